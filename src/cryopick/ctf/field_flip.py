"""Flip the phases of a whole micrograph."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cryopick.checks import require_shape
from cryopick.ctf.apply import flip_phases
from cryopick.ctf.field_ctf import FieldCtf
from cryopick.image.fourier import good_size
from cryopick.physics import electron_wavelength

__all__ = ["flip_field"]

_FINEST = 6.0  # A: finer details, which are spread farthest, are lost in the noise of a field
_TIMES = 2.0  # so far, as signs that change abruptly spread a little beyond
_MOST = 0.5  # of the side, to be reflected


def flip_field(micrograph: Tensor, ctf: FieldCtf, *, pixel_size: float) -> Tensor:
    """Turn the sign of every frequency of a micrograph at which the CTF is negative.

    The field is continued by its mirror image twice as far as the lens spreads a detail of 6 A
    (wavelength times defocus over 6 A), so that one edge does not show at the opposite one.

    Parameters
    ----------
    micrograph
        (y, x), real, finite.
    ctf
        Of the micrograph.
    pixel_size
        A/px.

    Returns
    -------
    Tensor
        (y, x), on the device and of the dtype of `micrograph`; its mean stays.

    Raises
    ------
    ShapeError
        If `micrograph` has not two axes.
    ParameterError
        If `pixel_size` or the voltage is not above 0.
    """
    require_shape(micrograph, "y x", name="micrograph")
    height, width = micrograph.shape
    mean = micrograph.mean()
    finest = max(_FINEST, 2 * pixel_size)
    defocus = max(abs(ctf.defocus_u), abs(ctf.defocus_v))
    reach = _TIMES * electron_wavelength(ctf.voltage) * defocus / finest / pixel_size
    margins = [min(math.ceil(reach), int(_MOST * n)) for n in (height, width)]
    padded = (micrograph - mean).to(torch.promote_types(micrograph.dtype, torch.float32))
    for axis, margin in enumerate(margins):
        size = good_size(padded.shape[axis] + 2 * margin)
        padded = _mirrored(padded, axis, margin, size)
    of_lens = ctf.evaluate(
        (padded.shape[0], padded.shape[1]), pixel_size=pixel_size, device=padded.device
    )
    flipped = flip_phases(padded[None], of_lens[None])[0]
    inside = flipped[margins[0] : margins[0] + height, margins[1] : margins[1] + width]
    return (inside + mean).to(micrograph.dtype)


def _mirrored(image: Tensor, axis: int, before: int, size: int) -> Tensor:
    """Continue an image by its mirror image along an axis to a size."""
    length = image.shape[axis]
    places = torch.arange(size, device=image.device) - before
    period = max(1, 2 * (length - 1))
    places = places.abs() % period
    return image.index_select(axis, torch.minimum(places, period - places))
