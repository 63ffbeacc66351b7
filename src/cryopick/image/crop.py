"""Cut boxes out of a micrograph, on whole pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.checks import require_even, require_shape

__all__ = ["Boxes", "Placement", "crop_boxes", "gather_boxes", "iterate_boxes", "place_boxes"]


class Placement(NamedTuple):
    """Where boxes lie in a micrograph, in the order of the centres asked for."""

    corners_yx: Tensor  # (n, 2) int64, px: first row and column of each box
    residual_yx: Tensor  # (n, 2) px: centre asked for minus centre cut, in [-0.5, 0.5)
    is_complete: Tensor  # (n,) bool: False where the box runs over an edge
    is_outside: Tensor  # (n,) bool: True where the box has no pixel of the micrograph


class Boxes(NamedTuple):
    """Boxes cut from one micrograph, in the order of the centres asked for."""

    images: Tensor  # (n, box_size, box_size), dtype of the micrograph
    residual_yx: Tensor  # (n, 2) px: centre asked for minus centre cut, in [-0.5, 0.5)
    is_complete: Tensor  # (n,) bool: False where the box ran over an edge


def place_boxes(centers_yx: Tensor, *, shape: tuple[int, int], box_size: int) -> Placement:
    """Find the whole pixels each box covers, without cutting it.

    Parameters
    ----------
    centers_yx
        (n, 2), floating point, in px; (0, 0) is the middle of the first pixel.
    shape
        (y, x) of the micrograph, px.
    box_size
        Side of a box in px, even.

    Returns
    -------
    Placement
        On the device of `centers_yx`.

    Raises
    ------
    ShapeError
        If `centers_yx` has other axes.
    ParameterError
        If `box_size` is odd or below 2.
    """
    require_shape(centers_yx, "n 2", name="centers_yx")
    require_even(box_size, name="box_size")
    nearest = torch.floor(centers_yx + 0.5)
    first = nearest.long() - box_size // 2
    end = first + box_size
    limit = torch.tensor(shape, device=centers_yx.device)
    return Placement(
        corners_yx=first,
        residual_yx=centers_yx - nearest,
        is_complete=((first >= 0) & (end <= limit)).all(dim=1),
        is_outside=((end <= 0) | (first >= limit)).any(dim=1),
    )


def crop_boxes(micrograph: Tensor, centers_yx: Tensor, *, box_size: int) -> Boxes:
    """Cut one box around each centre, on whole pixels.

    Nothing is interpolated. Each box is centred on the pixel nearest to the centre
    asked for, and the fraction of a pixel left over comes back beside it, to be
    applied in Fourier space or written as an origin: shift_x is minus
    ``residual_yx[:, 1] * pixel_size``. The centre of a box is pixel
    ``box_size // 2`` on both axes.

    Parameters
    ----------
    micrograph
        (y, x), real.
    centers_yx
        (n, 2), floating point, in pixels of `micrograph`, on its device; (0, 0) is
        the middle of the first pixel. n may be zero.
    box_size
        Side of a box in pixels, even.

    Returns
    -------
    Boxes
        On the device of `micrograph`. Where a box runs over an edge, the edge
        pixels are repeated and ``is_complete`` is False.

    Raises
    ------
    ShapeError
        If an array has other axes than those above.
    ParameterError
        If `box_size` is odd or below 2.

    Examples
    --------
    >>> micrograph = torch.zeros(8, 8)
    >>> micrograph[3, 5] = 1.0
    >>> boxes = crop_boxes(micrograph, torch.tensor([[3.0, 5.2]]), box_size=4)
    >>> boxes.images[0, 2, 2].item()
    1.0
    """
    require_shape(micrograph, "y x", name="micrograph")
    height, width = micrograph.shape
    placement = place_boxes(centers_yx, shape=(height, width), box_size=box_size)
    images = gather_boxes(micrograph, placement.corners_yx, box_size=box_size)
    return Boxes(images, placement.residual_yx, placement.is_complete)


def gather_boxes(micrograph: Tensor, corners_yx: Tensor, *, box_size: int) -> Tensor:
    """Copy boxes whose first pixels are known; a second step after `place_boxes`.

    Parameters
    ----------
    micrograph
        (y, x), real.
    corners_yx
        (n, 2) int64, px, on the device of `micrograph`; a box may run over an edge.
    box_size
        Side of a box, px.

    Returns
    -------
    Tensor
        (n, box_size, box_size), new. Over an edge, the edge pixels are repeated.

    Raises
    ------
    ShapeError
        If an array has other axes than those above.
    """
    if not len(corners_yx):
        return micrograph.new_empty(0, box_size, box_size)
    return next(iterate_boxes(micrograph, corners_yx, box_size=box_size, step=len(corners_yx)))


def iterate_boxes(
    micrograph: Tensor, corners_yx: Tensor, *, box_size: int, step: int
) -> Iterator[Tensor]:
    """Copy boxes as `gather_boxes` does, some at a time.

    Parameters
    ----------
    micrograph, corners_yx, box_size
        As for `gather_boxes`.
    step
        How many boxes at a time.

    Yields
    ------
    Tensor
        (at most step, box_size, box_size), new.

    Raises
    ------
    ShapeError
        If an array has other axes than those above.
    """
    require_shape(micrograph, "y x", name="micrograph")
    require_shape(corners_yx, "n 2", name="corners_yx")
    if micrograph.device.type == "cpu" and min(micrograph.shape) >= box_size:
        pixels = micrograph.detach().numpy()
        for boxes in _copy_boxes(pixels, corners_yx.numpy(), box_size, step):
            yield torch.from_numpy(boxes)
        return
    height, width = micrograph.shape
    steps = torch.arange(box_size, device=micrograph.device)
    for few in torch.split(corners_yx, step):
        rows = (few[:, 0, None] + steps).clamp(0, height - 1)
        columns = (few[:, 1, None] + steps).clamp(0, width - 1)
        yield micrograph[rows[:, :, None], columns[:, None, :]]


def _copy_boxes(
    pixels: NDArray[Any], corners_yx: NDArray[np.int64], box_size: int, step: int
) -> Iterator[NDArray[Any]]:
    """Copy boxes row by row, several times as fast as the index kernel of torch does."""
    height, width = pixels.shape
    inside = corners_yx.clip(0, (height - box_size, width - box_size))
    over = (corners_yx - inside).clip(1 - box_size, box_size - 1)
    at_edge = np.flatnonzero(over.any(axis=1)).tolist()  # few
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (box_size, box_size))
    rows, columns = inside.T
    for start in range(0, len(corners_yx), step):
        end = start + step
        boxes = windows[rows[start:end], columns[start:end]]
        while at_edge and at_edge[0] < end:
            number = at_edge.pop(0)
            _move_over_edge(boxes[number - start], *over[number].tolist())
        yield boxes


def _move_over_edge(box: NDArray[Any], rows: int, columns: int) -> None:
    """Move a box by whole pixels, in place, and repeat the edge where it is left bare."""
    if rows < 0:
        box[-rows:] = box[:rows].copy()
        box[:-rows] = box[-rows]
    elif rows > 0:
        box[:-rows] = box[rows:].copy()
        box[-rows:] = box[-rows - 1]
    if columns < 0:
        box[:, -columns:] = box[:, :columns].copy()
        box[:, :-columns] = box[:, -columns, None]
    elif columns > 0:
        box[:, :-columns] = box[:, columns:].copy()
        box[:, -columns:] = box[:, -columns - 1, None]
