"""Point groups as RELION orients them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import ParameterError

__all__ = ["close_group", "relion_point_group"]

_GOLDEN = (1 + math.sqrt(5)) / 2


def relion_point_group(symmetry: str) -> NDArray[np.float64]:
    """All rotations of a point group in RELION's setting.

    Parameters
    ----------
    symmetry
        ``C1``, ``C2``, ... (axis z), ``D2``, ... (also x), ``T`` (3-fold axis z), ``O`` (4-fold
        axes x, y, z), ``I`` (2-fold axes x, y, z, 5-fold axis in the plane of x and z).

    Returns
    -------
    numpy.ndarray
        (order, 3, 3); the first is the identity.

    Raises
    ------
    ParameterError
        If there is no such group.
    """
    match = re.fullmatch(r"([CD])([1-9]\d*)|([TOI])", symmetry)
    if not match:
        raise ParameterError(
            "symmetry", must="be Cn, Dn, T, O or I", got=symmetry, remedy="Try C1 or D7"
        )
    letter = match.group(1) or match.group(3)
    if letter in "CD":
        generators = [_turn((0, 0, 1), int(match.group(2)))]
        if letter == "D":
            generators.append(_turn((1, 0, 0), 2))
    elif letter == "T":
        generators = [_turn((0, 0, 1), 3), _turn((0, math.sqrt(2 / 3), math.sqrt(1 / 3)), 2)]
    elif letter == "O":
        generators = [_turn((0, 0, 1), 4), _turn((1, 1, 1), 3)]
    else:
        generators = [_turn((0, 0, 1), 2), _turn((1, 1, 1), 3), _turn((1, 0, _GOLDEN), 5)]
    return close_group(generators)


def close_group(generators: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Multiply elements with the generators until no new one appears.

    Parameters
    ----------
    generators
        Rotation matrices (3, 3) of a finite group.

    Returns
    -------
    numpy.ndarray
        (order, 3, 3), the identity first.
    """
    elements = [np.eye(3)]
    for element in elements:  # grows while it is walked through
        for generator in generators:
            product = generator @ element
            if not any(np.allclose(product, known, atol=1e-6) for known in elements):
                elements.append(product)
    return np.stack(elements)


def _turn(axis: tuple[float, float, float], fold: int) -> NDArray[np.float64]:
    """Rotation by a full turn over `fold` about an axis (Rodrigues' formula)."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = 2 * math.pi / fold
    result: NDArray[np.float64] = (
        np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    )
    return result
