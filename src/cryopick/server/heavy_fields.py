"""What the helper process does with fields: it takes and gives plain arrays and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryopick.ctf.estimate import CtfEstimate, estimate_ctf
from cryopick.ctf.field_ctf import FieldCtf
from cryopick.ctf.half_picture import half_picture
from cryopick.ctf.wiener import wiener_field
from cryopick.io.micrograph import read_micrograph

__all__ = ["ctf_curves", "ctf_halves", "denoise", "nothing"]


def nothing() -> None:
    """Do nothing: the libraries are loaded by now."""


def denoise(
    image: NDArray[np.float32], pixel_size: float, ctf: Mapping[str, float] | None
) -> NDArray[np.float32]:
    """Filter a shrunken field; the CTF may be unknown."""
    tensor = torch.from_numpy(np.array(image))  # what came through a pipe cannot be written
    shape = (int(image.shape[0]), int(image.shape[1]))
    known = None if ctf is None else FieldCtf(**ctf).evaluate(shape, pixel_size=pixel_size)
    return np.asarray(wiener_field(tensor, known).numpy(), np.float32)


def ctf_curves(path: Path, pixel_size: float, lens: Mapping[str, float]) -> dict[str, Any]:
    """Estimate the CTF of a field, and average its spectrum along lines of equal phase."""
    found = _estimate(path, pixel_size, lens)
    curves = found.curves
    return {
        "frequency": curves.frequency.numpy(),
        "measured": curves.measured.numpy(),
        "fitted": curves.model.numpy(),
        "agreement": curves.correlation.numpy(),
        "max_resolution": found.max_resolution,
        "fom": found.figure_of_merit,
        "is_trusted": found.is_trusted,
        **found.ctf._asdict(),
    }


def ctf_halves(path: Path, pixel_size: float, lens: Mapping[str, float]) -> NDArray[np.float32]:
    """Estimate the CTF of a field; measured spectrum beside the fit, (side, side)."""
    return np.asarray(half_picture(_estimate(path, pixel_size, lens)).numpy(), np.float32)


def _estimate(path: Path, pixel_size: float, lens: Mapping[str, float]) -> CtfEstimate:
    torch.set_num_threads(1)
    field = torch.from_numpy(read_micrograph(path))
    return estimate_ctf(
        field,
        pixel_size=pixel_size,
        voltage=lens["voltage"],
        spherical_aberration=lens["spherical_aberration"],
        amplitude_contrast=lens["amplitude_contrast"],
    )
