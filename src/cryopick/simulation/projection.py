"""Project models made of points: rotate, spread each over 4 x 4 pixels, sharpen and blur.

A point is spread with the cubic B-spline, whose transform is known: dividing by it in Fourier
space makes the image that of a point, at any sub-pixel place, up to what aliases. The blur of
the model (the size of an atom or a residue) is applied in the same step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.checks import require_even, require_shape
from cryopick.image.fourier import crop_rfft, frequency_grid

__all__ = [
    "Model",
    "merge_points",
    "move_model",
    "point_filter",
    "project",
    "render_volume",
    "splat",
]

_POINTS_AT_ONCE = 1 << 20
_PIXELS_AT_ONCE = 1 << 23  # of the fine grid


@dataclass(frozen=True, kw_only=True)
class Model:
    """A particle as points, each with its potential above that of the solvent."""

    name: str
    positions: Tensor  # (n, 3) float32: x, y, z in A, the centre of mass at 0
    weights: Tensor  # (n,) float32: V A^3 above the solvent that the point displaces
    blur: float  # rms of the Gaussian that each point stands for, A
    symmetry: str  # point group
    diameter: float  # of the sphere about the centre that holds the particle, A


def move_model(model: Model, device: torch.device | str) -> Model:
    """Bring a model to a device."""
    return replace(model, positions=model.positions.to(device), weights=model.weights.to(device))


def merge_points(model: Model, *, spacing: float) -> Model:
    """Replace the points in each cube of side `spacing` (A) by one at their centre of mass.

    It makes an atomic model fast where `spacing` is about the pixel size of its image.
    """
    cells = torch.floor(model.positions / spacing).long()
    cells = cells - cells.min(0).values
    width = int(cells.max()) + 1
    keys = (cells[:, 0] * width + cells[:, 1]) * width + cells[:, 2]
    unique, place = torch.unique(keys, return_inverse=True)
    if len(unique) == len(keys):
        return model
    weights = model.weights.new_zeros(len(unique)).index_add_(0, place, model.weights)
    moments = model.positions.new_zeros(len(unique), 3)
    moments.index_add_(0, place, model.positions * model.weights[:, None])
    return replace(model, positions=moments / weights[:, None], weights=weights)


def splat(
    target: Tensor,
    model: Model,
    rotations: Tensor,
    centers_yx: Tensor,
    *,
    pixel_size: float,
    image_index: Tensor | None = None,
) -> None:
    """Add projections to images, in place, still spread by the B-spline (see `point_filter`).

    Parameters
    ----------
    target
        (m, y, x), real, contiguous; points outside an image are left out.
    model
        What to project.
    rotations
        (n, 3, 3) as `euler_matrices` gives them.
    centers_yx
        (n, 2) px: where the centre of each projection goes, 0 is the middle of a pixel.
    pixel_size
        A/px.
    image_index
        (n,) which image each projection goes to; without it all go to image 0.
    """
    require_shape(rotations, "n 3 3", name="rotations")
    require_shape(centers_yx, "n 2", name="centers_yx")
    rows_of_image = target.shape[1] * torch.zeros_like(centers_yx[:, 0], dtype=torch.long)
    if image_index is not None:
        rows_of_image = target.shape[1] * image_index
    step = max(1, _POINTS_AT_ONCE // len(model.positions))
    flat = target.view(-1)
    for first in range(0, len(rotations), step):
        part = slice(first, first + step)
        turned = rotations[part, :2].to(model.positions) @ model.positions.T / pixel_size
        x = turned[:, 0] + centers_yx[part, 1, None].to(turned)
        y = turned[:, 1] + centers_yx[part, 0, None].to(turned)
        base = rows_of_image[part, None].expand_as(x).reshape(-1)
        weights = model.weights.expand_as(x).reshape(-1)
        _spread(flat, y.reshape(-1), x.reshape(-1), weights, base, target.shape[1:])


def point_filter(
    shape: tuple[int, int], model: Model, *, pixel_size: float, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Transfer function that turns spread points into the blurred model.

    Parameters
    ----------
    shape
        (y, x) of the images, px.
    model
        Its blur counts.
    pixel_size
        A/px.
    dtype
        Of the result.

    Returns
    -------
    Tensor
        (y, x // 2 + 1); with it the sum over pixels times the area of a pixel is the sum of
        the weights: pixel values are V A, the potential integrated along the beam.
    """
    fy, fx = (f.double() for f in frequency_grid(shape, pixel_size=pixel_size, dtype=torch.float64))
    y = _axis_filter(fy, pixel_size, model.blur)
    x = _axis_filter(fx, pixel_size, model.blur)
    return (y * x / pixel_size**2).to(dtype)


def project(
    model: Model,
    rotations: NDArray[np.float64],
    *,
    box_size: int,
    pixel_size: float,
    shifts_yx: NDArray[np.float64] | None = None,
    image_index: NDArray[np.int64] | None = None,
    count: int | None = None,
) -> Tensor:
    """Project a model along z after each rotation.

    Parameters
    ----------
    model
        What to project; the images are made on its device.
    rotations
        (n, 3, 3) as `euler_matrices` gives them.
    box_size
        Side of the images, px, even.
    pixel_size
        A/px.
    shifts_yx
        (n, 2) px: how far the particle lies from the centre of its image.
    image_index
        (n,) the image that each projection is added to; without it each has its own.
    count
        Number of images, with `image_index`.

    Returns
    -------
    Tensor
        (n or count, box_size, box_size) float32, V A: the projected potential above the
        solvent. The centre of the model is at pixel ``box_size // 2`` on both axes plus its
        shift.

    Notes
    -----
    Points are spread on a grid of half the pixel size, so that at Nyquist frequency aliases
    are 80 times weaker than the image; the transform is then cropped.
    """
    require_even(box_size, name="box_size")
    n_images = len(rotations) if count is None else count
    places = np.arange(len(rotations)) if image_index is None else np.asarray(image_index)
    offsets = np.zeros((len(rotations), 2)) if shifts_yx is None else np.asarray(shifts_yx)
    step = max(1, _PIXELS_AT_ONCE // (2 * box_size) ** 2)
    device = model.positions.device
    images = torch.empty(n_images, box_size, box_size, device=device)
    for first in range(0, n_images, step):
        part = images[first : first + step]
        rows = np.flatnonzero((places >= first) & (places < first + len(part)))
        fine = torch.zeros(len(part), 2 * box_size, 2 * box_size, device=device)
        splat(
            fine,
            model,
            torch.tensor(rotations[rows], device=device),
            torch.tensor(box_size + 2 * offsets[rows], device=device),
            pixel_size=pixel_size / 2,
            image_index=torch.tensor(places[rows] - first, device=device),
        )
        part[:] = _crop_fine(fine, model, pixel_size / 2)
    return images


def render_volume(model: Model, *, box_size: int, pixel_size: float) -> Tensor:
    """Make a density map of a model.

    Parameters
    ----------
    model
        What to render.
    box_size
        Side of the map, px, even.
    pixel_size
        A/px.

    Returns
    -------
    Tensor
        (z, y, x) float32, V above the solvent; the centre of the model is at
        ``box_size // 2`` on each axis. Its sum along z times `pixel_size` is `project`'s
        image for the identity, but for what aliases at `pixel_size`.
    """
    require_even(box_size, name="box_size")
    volume = torch.zeros(box_size, box_size, box_size)
    places = model.positions / pixel_size + box_size // 2
    z = places[:, 2]
    low = torch.floor(z)
    for offset in range(-1, 3):
        layer = (low + offset).long()
        weights = model.weights * _cubic_spline(z - low - offset)
        inside = (layer >= 0) & (layer < box_size)
        _spread(
            volume.view(-1),
            places[inside, 1],
            places[inside, 0],
            weights[inside],
            layer[inside] * box_size,
            (box_size, box_size),
        )
    frequency = torch.fft.fftfreq(box_size, pixel_size, dtype=torch.float64)
    axis = _axis_filter(frequency, pixel_size, model.blur) / pixel_size
    half = axis[: box_size // 2 + 1]
    transfer = (axis[:, None, None] * axis[:, None] * half).float()
    result: Tensor = torch.fft.irfftn(torch.fft.rfftn(volume) * transfer, s=volume.shape)
    return result


def _crop_fine(fine: Tensor, model: Model, pixel_size: float) -> Tensor:
    """Turn images of spread points into images of twice the pixel size."""
    height, width = fine.shape[-2:]
    transfer = point_filter((height, width), model, pixel_size=pixel_size).to(fine.device)
    # a quarter of the pixels: 1/4 keeps their values
    cropped = crop_rfft(torch.fft.rfft2(fine) * transfer, shape=(height // 2, width // 2)) / 4
    result: Tensor = torch.fft.irfft2(cropped, s=(height // 2, width // 2))
    return result


def _cubic_spline(distance: Tensor) -> Tensor:
    """Cubic B-spline at a distance in pixels."""
    t = distance.abs()
    near = 2 / 3 - t * t * (1 - t / 2)
    far = (2 - t).clamp(min=0) ** 3 / 6
    return torch.where(t < 1, near, far)


def _spread(
    flat: Tensor,
    y: Tensor,
    x: Tensor,
    weights: Tensor,
    first_row: Tensor,
    shape: tuple[int, ...] | torch.Size,
) -> None:
    """Add points to images laid one after the other in `flat`."""
    height, width = shape
    low_y, low_x = torch.floor(y), torch.floor(x)
    inside = (low_y >= 1) & (low_y < height - 2) & (low_x >= 1) & (low_x < width - 2)
    if not bool(inside.all()):
        y, x, weights, first_row = y[inside], x[inside], weights[inside], first_row[inside]
        low_y, low_x = low_y[inside], low_x[inside]
    corner = (first_row + low_y.long()) * width + low_x.long()
    along_x = [_cubic_spline(x - low_x - i) for i in range(-1, 3)]
    for j in range(-1, 3):
        row = weights * _cubic_spline(y - low_y - j)
        for i in range(-1, 3):
            flat.index_add_(0, corner + (j * width + i), row * along_x[i + 1])


def _axis_filter(frequency: Tensor, pixel_size: float, blur: float) -> Tensor:
    """Gaussian of the blur over the B-spline's transform, along one axis."""
    spline = torch.sinc(frequency * pixel_size) ** 4
    return torch.exp(-2 * (math.pi * blur * frequency) ** 2) / spline
