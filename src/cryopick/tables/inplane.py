"""In-plane alignment: the other programs rotate and then shift, cryopick and RELION the reverse.

Write an image as content at x, the vector from the image centre in px. RELION moves it to
R (x + o), where R turns x towards y by psi. Xmipp and Scipion move it to F R x + s, where F
mirrors x if the row is flipped. Both describe one image when s = F R o.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

__all__ = ["euler_to_matrix", "matrix_to_euler", "shift_after_rotation", "shift_before_rotation"]

Floats = NDArray[np.float64]


def _turn(psi: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    cosine, sine = np.cos(np.deg2rad(psi)), np.sin(np.deg2rad(psi))
    return cosine * x - sine * y, sine * x + cosine * y


def shift_before_rotation(
    psi: Floats, shift_x: Floats, shift_y: Floats, is_flipped: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Turn a shift made after rotation and mirror into the same shift made before them.

    Parameters
    ----------
    psi
        (n,) deg, as RELION counts it.
    shift_x, shift_y
        (n,) in any unit: s of the module.
    is_flipped
        (n,) whether x is mirrored after the rotation.

    Returns
    -------
    tuple of numpy.ndarray
        x and y of o, in the unit of the shifts.
    """
    return _turn(-psi, np.where(is_flipped, -shift_x, shift_x), shift_y)


def shift_after_rotation(
    psi: Floats, shift_x: Floats, shift_y: Floats, is_flipped: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Inverse of `shift_before_rotation`."""
    x, y = _turn(psi, shift_x, shift_y)
    return np.where(is_flipped, -x, x), y


def euler_to_matrix(rot: Floats, tilt: Floats, psi: Floats) -> Floats:
    """Rotation matrices of RELION's Euler angles, (n, 3, 3): Rz(-psi) Ry(-tilt) Rz(-rot)."""
    from scipy.spatial.transform import Rotation

    angles = np.stack([rot, tilt, psi], axis=-1).reshape(-1, 3)
    if not len(angles):
        return np.zeros((0, 3, 3))
    return np.asarray(Rotation.from_euler("ZYZ", angles, degrees=True).inv().as_matrix())


def matrix_to_euler(matrices: Floats) -> tuple[Floats, Floats, Floats]:
    """RELION's rot, tilt and psi in deg of (n, 3, 3) rotation matrices."""
    from scipy.spatial.transform import Rotation

    if not len(matrices):
        return np.zeros(0), np.zeros(0), np.zeros(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at tilt 0 only rot + psi is defined; scipy sets psi to 0
        angles = Rotation.from_matrix(matrices).inv().as_euler("ZYZ", degrees=True)
    # at tilt 0 keep the turn in psi, where in-plane angles belong
    flat = np.abs(angles[:, 1]) < 1e-6
    psi = np.where(flat, angles[:, 0] + angles[:, 2], angles[:, 2])
    return np.where(flat, 0.0, angles[:, 0]), angles[:, 1], psi
