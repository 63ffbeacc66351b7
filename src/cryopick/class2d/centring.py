"""Bring the centre of mass of class averages to the centre, and their members with them."""

from __future__ import annotations

import torch
from torch import Tensor

from cryopick.alignment.transform import transform_images
from cryopick.checks import require_above, require_shape
from cryopick.image.masks import circle_mask

__all__ = ["centre_averages", "centre_of_mass_shift", "compose_shift"]


def centre_of_mass_shift(
    averages: Tensor, *, max_shift: float, mask_radius: float | None = None
) -> tuple[Tensor, Tensor]:
    """Find the shift that brings the centre of mass of each average to its centre.

    Parameters
    ----------
    averages
        (k, n, n), particles white on a background of 0.
    max_shift
        Longest shift, px; a longer one is cut to this length.
    mask_radius
        Density further from the centre does not count, px; None is the edge of the box.

    Returns
    -------
    tuple of Tensor
        shift_x and shift_y, (k,) px: the content is to move by this. 0 for an average without
        positive density. Apply it with `centre_averages`, and with `compose_shift` to the
        members of the class.

    Raises
    ------
    ShapeError
        If `averages` has other axes.
    ParameterError
        If `max_shift` or `mask_radius` is not above 0.

    Notes
    -----
    Only positive density has mass, as in RELION.
    """
    require_shape(averages, "k n n", name="averages")
    require_above(max_shift, 0, name="max_shift", unit="px")
    size = averages.shape[-1]
    mass = averages.clamp_min(0).double()
    if mask_radius is not None:
        require_above(mask_radius, 0, name="mask_radius", unit="px")
        mass = mass * circle_mask(size, radius=mask_radius, device=mass.device)
    steps = torch.arange(size, device=mass.device, dtype=mass.dtype) - size // 2
    total = mass.sum((1, 2)).clamp_min(1e-300)
    x = -(mass.sum(1) @ steps) / total
    y = -(mass.sum(2) @ steps) / total
    shorter = (max_shift / torch.hypot(x, y).clamp_min(1e-12)).clamp_max(1.0)
    return (x * shorter).to(averages), (y * shorter).to(averages)


def centre_averages(averages: Tensor, *, shift_x: Tensor, shift_y: Tensor) -> Tensor:
    """Shift averages (k, n, n) by (k,) px."""
    still = torch.zeros_like(shift_x)
    return transform_images(averages, psi=still, shift_x=shift_x, shift_y=shift_y)


def compose_shift(
    psi: Tensor, shift_x: Tensor, shift_y: Tensor, *, class_shift_x: Tensor, class_shift_y: Tensor
) -> tuple[Tensor, Tensor]:
    """Change the shifts of members so that they fit their class after it has been shifted.

    Parameters
    ----------
    psi, shift_x, shift_y
        Pose of each member, deg and px; any shape. psi stays as it is.
    class_shift_x, class_shift_y
        By which the class of each member has been shifted, px.

    Returns
    -------
    tuple of Tensor
        The new shift_x and shift_y.

    Notes
    -----
    Members are shifted first and turned by psi afterwards, so the shift of the class has to be
    turned back: s' = s + R(-psi) c.

    Examples
    --------
    >>> quarter, one, none = torch.tensor([90.0]), torch.ones(1), torch.zeros(1)
    >>> x, y = compose_shift(quarter, none, none, class_shift_x=one, class_shift_y=none)
    >>> x.round().abs().item(), y.round().item()
    (0.0, -1.0)
    """
    turn = torch.deg2rad(psi)
    cosine, sine = torch.cos(turn), torch.sin(turn)
    x = shift_x + cosine * class_shift_x + sine * class_shift_y
    y = shift_y - sine * class_shift_x + cosine * class_shift_y
    return x, y
