"""From recorded coordinates and origins to where a box is cut, and what origin is left over.

True centre of a particle, in px of the micrograph = coordinate - shift / pixel_size. Whatever is
done here keeps that sum, except when origins are reset or another point is made the centre.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryopick.extraction.extraction_parameters import ExtractionParameters
from cryopick.tables.inplane import euler_to_matrix

__all__ = ["Positions", "place_particles", "project_point"]

Floats = NDArray[np.float64]


class Positions(NamedTuple):
    """Where boxes are cut, and what is written of it."""

    centers_yx: Floats  # (n, 2) px, whole numbers: the pixel a box is centred on
    coordinates_yx: Floats  # (n, 2) px, to be written
    shifts_yx: Floats  # (n, 2) A, to be written


def project_point(point: tuple[float, float, float], angles: Floats) -> Floats:
    """Find where a point of a reference lies in its projections.

    Parameters
    ----------
    point
        x, y, z from the centre of the reference, in any unit.
    angles
        (n, 3) rot, tilt, psi, degrees.

    Returns
    -------
    numpy.ndarray
        (n, 2) y and x from the centre of the projection, in the unit of `point`.

    Examples
    --------
    >>> project_point((1.0, 0.0, 0.0), np.array([[0.0, 0.0, 90.0]])).round(6) + 0.0
    array([[-1.,  0.]])
    """
    matrices = euler_to_matrix(angles[:, 0], angles[:, 1], angles[:, 2])
    projected: Floats = (matrices @ np.asarray(point, np.float64))[:, 1::-1]
    return projected


def place_particles(
    coordinates_yx: Floats,
    shifts_yx: Floats,
    *,
    pixel_size: Floats,
    parameters: ExtractionParameters,
    point_yx: Floats | None = None,
) -> Positions:
    """Decide on the pixel each box is centred on.

    Parameters
    ----------
    coordinates_yx
        (n, 2) px of the micrograph, as recorded.
    shifts_yx
        (n, 2) A, the particles' origins; zero for picks.
    pixel_size
        (n,) A/px of each particle's micrograph.
    parameters
        What to do with fractions and origins.
    point_yx
        (n, 2) A: the point to centre on, from the particle's centre; None is that centre.

    Returns
    -------
    Positions
        With residuals, the coordinates are the pixels cut and the shifts hold the rest. Without,
        coordinates keep their fraction and it is not accounted for, as in RELION.
    """
    angpix = pixel_size[:, None]
    shifts = np.zeros_like(shifts_yx) if parameters.reset_offsets else shifts_yx
    coordinates = coordinates_yx
    if parameters.recenter:
        shifts = shifts if point_yx is None else shifts - point_yx
        # RELION's ROUND: halves away from zero
        whole = np.trunc(shifts / angpix + np.copysign(0.5, shifts))
        coordinates = coordinates - whole
        shifts = shifts - whole * angpix
        if parameters.residuals:
            coordinates, shifts = coordinates - shifts / angpix, np.zeros_like(shifts)
    if parameters.positions == "truncate":
        centers = np.trunc(coordinates)
    else:
        centers = np.floor(coordinates + 0.5)
    if parameters.residuals:
        shifts = shifts - (coordinates - centers) * angpix
        coordinates = centers
    return Positions(centers, coordinates, shifts)
