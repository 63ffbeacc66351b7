"""Views of a map: directions spread over the sphere, and projections along them."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from cryopick.alignment.point_groups import relion_point_group
from cryopick.checks import require_above, require_shape
from cryopick.image.fourier import good_size
from cryopick.tables.inplane import euler_to_matrix

__all__ = ["project_map", "view_directions"]

_DENSITY = 12.0  # candidates per view
_COVERED = 0.7  # radius that a view stands for, in angular steps
_GOLDEN = math.pi * (3 - math.sqrt(5))
_PADDING = 2  # side of the padded map over its own
_FINER = 3.0  # pixels of the shrunk map per resolution element


def view_directions(*, step: float, symmetry: str = "C1") -> NDArray[np.float64]:
    """Spread views over the part of the sphere that a symmetry leaves.

    Parameters
    ----------
    step
        About the angle between neighbouring views, degrees.
    symmetry
        Point group in RELION's setting: Cn, Dn, T, O or I.

    Returns
    -------
    numpy.ndarray
        (n, 2): rot and tilt, degrees; the first is along z. Every direction lies within 0.7
        steps of a view or of one equivalent to it. In-plane rotation is left to the search.

    Raises
    ------
    ParameterError
        If `step` is not above 0 or there is no such group.

    Notes
    -----
    Farthest-point sampling (Gonzalez, Theor. Comput. Sci. 38 (1985) 293) of a fine spiral, with
    the distance of the nearest equivalents.
    """
    require_above(step, 0, name="projections", unit="deg")
    group = relion_point_group(symmetry)
    count = math.ceil(_DENSITY * 4 * math.pi / math.radians(step) ** 2)
    number = np.arange(count) + 0.5
    z = 1 - 2 * number / count
    ring, turn = np.sqrt(1 - z * z), _GOLDEN * number
    candidates = np.stack([ring * np.cos(turn), ring * np.sin(turn), z], axis=1)
    candidates = np.concatenate([[[0.0, 0.0, 1.0]], candidates])
    limit = math.cos(math.radians(min(_COVERED * step, 180)))
    closest: NDArray[np.float64] = np.full(len(candidates), -np.inf)  # cosine to the nearest view
    chosen = [0]
    while True:
        alike = np.einsum("gij,j->gi", group, candidates[chosen[-1]])
        closest = np.maximum(closest, (candidates @ alike.T).max(1))
        farthest = int(closest.argmin())
        if closest[farthest] >= limit:
            break
        chosen.append(farthest)
    x, y, z = candidates[chosen].T
    views: NDArray[np.float64] = np.stack([np.arctan2(y, x), np.arccos(z.clip(-1, 1))], axis=1)
    return np.rad2deg(views)


def project_map(
    density: Tensor, views: NDArray[np.float64], *, pixel_size: float, low_pass: float
) -> tuple[Tensor, float]:
    """Project a map along some views.

    Parameters
    ----------
    density
        (z, y, x), real, cubic; its centre is voxel n // 2 on each axis.
    views
        (n, 2) rot and tilt, degrees, as RELION counts them; psi is 0.
    pixel_size
        A/px of the map.
    low_pass
        Detail below this may be lost, A: the map is shrunk first.

    Returns
    -------
    tuple of Tensor and float
        (n, y, x) float32 on the device of `density`, and their A/px. The centre is pixel n // 2.

    Raises
    ------
    ShapeError
        If the map is not cubic.

    Notes
    -----
    Central slices of the transform of the padded map (projection-slice theorem), by cubic
    B-splines; the map is first divided by the spline's transform, sinc^4 (O'Sullivan, IEEE Trans.
    Med. Imaging 4 (1985) 200). With twice the side what aliases is below 1 % at the rim of the
    box and 0.1 % half way to it.
    """
    require_shape(density, "n n n", name="map")
    volume = density.detach().double().cpu().numpy()
    small, small_size = _shrunk(volume, pixel_size, low_pass)
    side = small.shape[0]
    padded = _PADDING * side
    steps = np.arange(side) - side // 2
    spline = np.sinc(steps / padded) ** 4
    small = small / (spline[:, None, None] * spline[:, None] * spline)
    grid = np.zeros((padded,) * 3)
    first = padded // 2 - side // 2
    grid[(slice(first, first + side),) * 3] = small
    spectrum = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(grid)))
    ky, kx = np.meshgrid(
        np.fft.fftfreq(padded, 1 / padded), np.fft.rfftfreq(padded, 1 / padded), indexing="ij"
    )
    is_inside = np.hypot(ky, kx) < padded // 2 - 2
    images = np.empty((len(views), side, side), np.float32)
    for number, (rot, tilt) in enumerate(views):
        matrix = euler_to_matrix(*(np.array([a]) for a in (rot, tilt, 0.0)))[0]
        places = matrix[0][:, None] * kx[is_inside] + matrix[1][:, None] * ky[is_inside]
        places = places[::-1] + padded // 2  # z, y, x
        plane = np.zeros(kx.shape, np.complex128)
        plane[is_inside] = _sample(spectrum.real, places) + 1j * _sample(spectrum.imag, places)
        image = np.fft.fftshift(np.fft.irfft2(plane, s=(padded, padded)))
        images[number] = image[first : first + side, first : first + side]
    return torch.from_numpy(images).to(density.device), small_size


def _sample(values: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weigh grid values by cubic B-splines about places (3, n)."""
    result: NDArray[np.float64] = ndimage.map_coordinates(
        values, places, order=3, mode="constant", prefilter=False
    )
    return result


def _shrunk(
    volume: NDArray[np.float64], pixel_size: float, low_pass: float
) -> tuple[NDArray[np.float64], float]:
    """Crop the transform to what the low-pass leaves, the centre staying at n // 2."""
    side = volume.shape[0]
    even = good_size(side)
    if even != side:
        before = even // 2 - side // 2
        volume = np.pad(volume, [(before, even - side - before)] * 3)
    size = min(even, good_size(math.ceil(_FINER * even * pixel_size / low_pass)))
    if size == even:
        return volume, pixel_size
    spectrum = np.fft.fftshift(np.fft.fftn(volume))
    keep = slice(even // 2 - size // 2, even // 2 - size // 2 + size)
    small = np.fft.ifftn(np.fft.ifftshift(spectrum[keep, keep, keep])).real
    return small * (size / even) ** 3, pixel_size * even / size
