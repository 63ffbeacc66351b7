"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of shared real data; the test is skipped where it is absent."""
    named = os.environ.get("CRYOPICK_TEST_DATA")
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(named) if named else beside
    if not folder.is_dir():
        pytest.skip("no test data: set CRYOPICK_TEST_DATA to the folder")
    return folder


def available_devices() -> list[str]:
    """Devices that tensors can live on here."""
    import torch

    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
