"""Particles of one micrograph: cut, apply the CTF, shrink, clean, normalise, invert."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cryopick.checks import require_shape
from cryopick.ctf.apply import apply_ctf, flip_phases
from cryopick.ctf.evaluate import evaluate_ctf
from cryopick.errors import DataError
from cryopick.extraction.extraction_parameters import ExtractionParameters
from cryopick.image.crop import iterate_boxes, place_boxes
from cryopick.image.normalize import make_background, normalize_images, replace_dust
from cryopick.image.resample import shrink_images

__all__ = [
    "CtfValues",
    "ParticleBatch",
    "extract_particles",
    "level_micrograph_",
    "require_contrast",
]

_PIXELS_CUT_AT_ONCE = 1 << 18  # 1 MB of float32, so that a box is shrunk while it is in the cache
_PIXELS_PER_BATCH = 1 << 21  # 8 MB of float32 of finished images


@dataclass(frozen=True, kw_only=True)
class CtfValues:
    """CTF of each particle, and the lens they share."""

    per_particle: Mapping[str, Tensor]  # columns of the particle table by name, (n,) each
    voltage: float  # kV
    spherical_aberration: float  # mm
    amplitude_contrast: float


class ParticleBatch(NamedTuple):
    """Some finished images of one micrograph."""

    images: Tensor  # (k, image_size, image_size)
    indices: Tensor  # (k,) int64: which of the centres asked for, ascending
    is_flat: Tensor  # (k,) bool: no contrast in the background; all zero if normalised


def level_micrograph_(micrograph: Tensor) -> Tensor:
    """Refuse a field that no particle can come from, and subtract its mean in place.

    Parameters
    ----------
    micrograph
        (y, x), floating point; changed.

    Returns
    -------
    Tensor
        `micrograph`. On a level of thousands of counts float32 would not resolve the noise.

    Raises
    ------
    DataError
        If a pixel is NaN or infinite, or all are equal.
    """
    return micrograph.sub_(require_contrast(micrograph))


def require_contrast(micrograph: Tensor) -> Tensor:
    """Refuse a field that no particle can come from.

    Parameters
    ----------
    micrograph
        (y, x), floating point.

    Returns
    -------
    Tensor
        The mean, which had to be found.

    Raises
    ------
    DataError
        If a pixel is NaN or infinite, or all are equal.
    """
    require_shape(micrograph, "y x", name="micrograph")
    mean = micrograph.mean()  # NaN and infinity show in it
    if not bool(torch.isfinite(mean)):
        raise DataError(
            "micrograph",
            must="hold finite numbers",
            got="NaN or infinity",
            remedy="Repeat the motion correction or leave it out",
        )
    first = micrograph[0, 0]
    if bool((micrograph[::64] == first).all()) and bool((micrograph == first).all()):
        raise DataError(
            "micrograph",
            must="have contrast",
            got=f"{float(first):g} in every pixel",
            remedy="Repeat the motion correction or leave it out",
        )
    return mean


def extract_particles(
    micrograph: Tensor,
    centers_yx: Tensor,
    *,
    parameters: ExtractionParameters,
    pixel_size: float,
    ctf: CtfValues | None = None,
    seeds: Tensor | None = None,
) -> Iterator[ParticleBatch]:
    """Make the particle images of one micrograph, some at a time.

    Parameters
    ----------
    micrograph
        (y, x) float32 or float64, as `level_micrograph_` gives it.
    centers_yx
        (n, 2) px, whole numbers (see `cryopick.extraction.recenter`); n may be zero.
    parameters
        What to do; ``edges`` decides which boxes are left out. A box wholly outside always is.
    pixel_size
        A/px of the micrograph; used for the CTF only.
    ctf
        Needed for phase flip or premultiplication.
    seeds
        (n,) int64, of the noise that replaces dust; the number of the particle where left out.

    Yields
    ------
    ParticleBatch
        In the order of `centers_yx`, without the boxes left out. Memory is bounded by the batch,
        not by n.

    Notes
    -----
    The steps and their order are those of ``relion_preprocess``: CTF in a larger box, crop,
    Fourier crop, dust, plane, mean and standard deviation of the background, sign.
    """
    height, width = micrograph.shape
    placement = place_boxes(centers_yx, shape=(height, width), box_size=parameters.box_size)
    is_kept = ~placement.is_outside
    if parameters.edges == "drop":
        is_kept &= placement.is_complete
    if seeds is None:
        seeds = torch.arange(len(centers_yx), device=centers_yx.device)
    kept = is_kept.nonzero()[:, 0]
    step = max(1, _PIXELS_PER_BATCH // parameters.image_size**2)
    for start in range(0, len(kept), step):
        indices = kept[start : start + step]
        images = _cut(micrograph, placement.corners_yx, indices, parameters, pixel_size, ctf)
        images, is_flat = _finish(images, parameters, seeds[indices])
        yield ParticleBatch(images, indices, is_flat)


def _cut(
    micrograph: Tensor,
    corners_yx: Tensor,
    indices: Tensor,
    parameters: ExtractionParameters,
    pixel_size: float,
    ctf: CtfValues | None,
) -> Tensor:
    """Cut, apply the CTF and shrink, a few boxes at a time."""
    side, size = parameters.filter_box_size, parameters.image_size
    corners = corners_yx[indices] - (side - parameters.box_size) // 2
    images = micrograph.new_empty(len(indices), size, size)
    step = max(1, _PIXELS_CUT_AT_ONCE // side**2)
    start = 0
    for boxes in iterate_boxes(micrograph, corners, box_size=side, step=step):
        few = slice(start, start + len(boxes))
        start = few.stop
        if ctf is not None and (parameters.phase_flip or parameters.premultiply):
            boxes = _apply_ctf(boxes, indices[few], parameters, pixel_size, ctf)
        images[few] = shrink_images(boxes, size=size)
    return images


def _apply_ctf(
    boxes: Tensor,
    indices: Tensor,
    parameters: ExtractionParameters,
    pixel_size: float,
    ctf: CtfValues,
) -> Tensor:
    """Apply the CTF in the large box, so that what it moves outwards is there, then crop."""
    side = boxes.shape[-1]
    columns = {name: column[indices] for name, column in ctf.per_particle.items()}
    values = evaluate_ctf(
        (side, side),
        pixel_size=pixel_size,
        defocus_u=columns["defocus_u"],
        defocus_v=columns["defocus_v"],
        defocus_angle=columns["defocus_angle"],
        phase_shift=columns.get("phase_shift", 0.0),
        bfactor=columns.get("ctf_bfactor", 0.0),
        scale=columns.get("ctf_scale", 1.0),
        voltage=ctf.voltage,
        spherical_aberration=ctf.spherical_aberration,
        amplitude_contrast=ctf.amplitude_contrast,
        device=boxes.device,
        dtype=boxes.dtype,
    )
    applied = flip_phases(boxes, values) if parameters.phase_flip else apply_ctf(boxes, values)
    margin = (side - parameters.box_size) // 2
    inner = slice(margin, margin + parameters.box_size)
    return applied[:, inner, inner]


def _finish(
    images: Tensor, parameters: ExtractionParameters, seeds: Tensor
) -> tuple[Tensor, Tensor]:
    """Clean, normalise and invert."""
    if not parameters.normalize:
        is_flat = (images == images[:, :1, :1]).flatten(1).all(dim=1)
        return (-images if parameters.invert_contrast else images), is_flat
    background = make_background(
        parameters.image_size,
        radius=parameters.background_radius,
        has_ramp=parameters.remove_ramp,
        device=images.device,
        dtype=images.dtype,
    )
    if parameters.has_dust_removal:
        images = replace_dust(
            images,
            background,
            white=parameters.white_dust,
            black=parameters.black_dust,
            seeds=seeds,
        )
    return normalize_images(
        images, background, invert_contrast=parameters.invert_contrast, out=images
    )
