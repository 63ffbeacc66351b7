"""References of a stream: averages whose pixel size is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cryopick.errors import DataError
from cryopick.pipeline.class2d_references import UNSAID, is_of_run, kept_averages, read_averages
from cryopick.pipeline.stream_round import References

__all__ = ["read_stream_references", "require_said_pixel_size"]

_TOLERANCE = 0.01  # of the pixel size


def read_stream_references(path: Path) -> References:
    """Read averages that particles are assigned to.

    Parameters
    ----------
    path
        As for `class2d_references.read_averages`.

    Returns
    -------
    stream_round.References
        Of any box and pixel size.

    Raises
    ------
    DataError
        If they are not square, hold no density, values that are not numbers, or no pixel size.
    CryopickError
        If they cannot be read.
    """
    images, pixel_size = read_averages(path)
    height, width = images.shape[-2:]
    if height != width:
        raise DataError(
            f"--references {path}",
            must="be square images",
            got=f"{width} x {height} px",
            remedy="Cut or pad them",
        )
    if not pixel_size > 0:
        raise _unsaid(path, pixel_size)
    is_empty = ~np.asarray(images).any((1, 2))
    if not np.isfinite(images).all() or is_empty.all():
        raise DataError(
            f"--references {path}",
            must="hold densities",
            got="0 everywhere" if is_empty.all() else "NaN or infinity",
            remedy="Give other averages",
        )
    tensor = torch.from_numpy(np.ascontiguousarray(images, np.float32))
    return References(tensor, pixel_size, path)


def require_said_pixel_size(references: References, *, particle_pixel_size: float) -> None:
    """Refuse a pixel size that nobody has filled in: 1 A in a header, beside other particles.

    Raises
    ------
    DataError
        Saying so.
    """
    found, path = references.pixel_size, references.path
    if found not in UNSAID or (is_of_run(path) and not kept_averages(path)):
        return
    if abs(found - particle_pixel_size) > _TOLERANCE * particle_pixel_size:
        raise _unsaid(path, found)


def _unsaid(path: Path, found: float) -> DataError:
    return DataError(
        f"--references {path}",
        must="say their pixel size",
        got=f"{found:g} A in the header",
        remedy="Write it into the header, or give the run that they are of",
    )
