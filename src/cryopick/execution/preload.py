"""Imported once by the server that forks worker processes, so that each starts at once."""

import numpy as np
import pandas as pd
import torch

__all__ = ["np", "pd", "torch"]
