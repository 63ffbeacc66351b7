"""Blob picking as RELION does it, number for number.

Each pixel takes the diameter of the blob that responds most. The pixels whose diameter is in the
range asked for compete: the highest is a pick and silences the pixels around it, and so on.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.checks import require_above, require_shape
from cryopick.ctf.field_ctf import FieldCtf
from cryopick.errors import ParameterError
from cryopick.picking.field_picks import FieldPicks
from cryopick.picking.log_parameters import LogParameters
from cryopick.picking.log_relion_response import (
    blob_responses,
    ctf_until_first_peak,
    scale_diameters,
    small_transform,
    working_size,
)

__all__ = ["pick_log_relion"]

_IN_RANGE = 3  # diameters tried between the smallest and the largest


def pick_log_relion(
    micrograph: Tensor,
    *,
    pixel_size: float,
    parameters: LogParameters,
    ctf: FieldCtf | None = None,
) -> FieldPicks:
    """Find blobs in one micrograph with RELION's algorithm.

    Parameters
    ----------
    micrograph
        (y, x), real; it is not changed.
    pixel_size
        A/px.
    parameters
        Of mode relion.
    ctf
        Of the micrograph, where the parameters ask for it.

    Returns
    -------
    FieldPicks
        Every peak above 0, found with the same rule as the picks. Figures of merit are the
        response of the z-scored micrograph; positions lie on the grid of working pixels. Maps,
        if asked for, are of working pixels: ``LoG<d>`` for every diameter, ``bestLoG``,
        ``bestSize`` (A), ``bestLoGb`` (where a pick can be) and ``bestLoGc`` (above the
        threshold).

    Raises
    ------
    DataError
        If the micrograph holds NaN or infinity, or is constant.
    ParameterError
        If the parameters are of another mode, ask for a CTF and there is none, or leave too few
        working pixels.

    Notes
    -----
    ``relion_autopick --LoG``, checked against release 3.1.3. A micrograph that is not square is
    padded with random numbers as there, but with other ones. A resolution limit beyond Nyquist
    works at full size, where RELION would enlarge the micrograph.
    """
    require_shape(micrograph, "y x", name="micrograph")
    require_above(pixel_size, 0, name="pixel_size", unit="A/px")
    _require_relion(parameters, ctf)
    frame = _Frame.of(micrograph, pixel_size, parameters)
    transform = small_transform(micrograph, side=frame.side, work=frame.work, parameters=parameters)
    if ctf is not None and parameters.value("use_ctf"):
        transform /= ctf_until_first_peak(ctf, work=frame.work, pixel_size=frame.pixel_size).to(
            transform.device
        )
    diameters = scale_diameters(parameters)
    responses = blob_responses(transform, diameters, work=frame.work, pixel_size=frame.pixel_size)
    field = _compete(responses, frame)
    threshold = field.mean + parameters.value("adjust_threshold") * field.deviation
    picks = _search(field, diameters, frame, parameters)._replace(threshold=threshold)
    if parameters.write_fom_maps:
        picks = picks._replace(maps=_maps(responses, field, diameters, threshold))
    return picks


class _Frame(NamedTuple):
    """The shrunk square and where the micrograph lies in it."""

    side: int  # px of the micrograph along the square
    work: int  # working pixels along the square
    pixel_size: float  # A per working pixel
    height: int  # working pixels of the micrograph
    width: int
    margin: int  # working pixels along each edge where no pick may be
    covered: float  # fraction of the micrograph inside the margin

    @classmethod
    def of(cls, micrograph: Tensor, pixel_size: float, parameters: LogParameters) -> _Frame:
        side = max(micrograph.shape)
        work = working_size(side, pixel_size=pixel_size, parameters=parameters)
        height, width = (_shrunk(length, work, side) for length in micrograph.shape)
        margin = max(parameters.value("skip_side"), int(parameters.min_diameter / pixel_size / 2))
        margin = _shrunk(margin, work, side)
        inner = max(height - 2 * margin, 0) * max(width - 2 * margin, 0)
        size = pixel_size * side / work
        return cls(side, work, size, height, width, margin, inner / max(height * width, 1))

    def inside(self, length: int) -> slice:
        """Pixels along one axis of the square that are in the micrograph and not near its edge."""
        first = self.work // 2 - length // 2
        return slice(first + self.margin, max(first + length - self.margin, first + self.margin))


def _shrunk(length: int, work: int, side: int) -> int:
    """Working pixels of a length, as RELION counts them.

    Single precision is deliberate: there 1240 px become 183 instead of 184 working pixels of a
    square shrunk to 184, which moves every position by one of them.
    """
    scale = np.float32(work) / np.float32(side)
    return int(np.float32(length) * scale)


class _Field(NamedTuple):
    """Working pixels that compete to be picks."""

    fom: Tensor  # (y, x) best response, 0 where a pick cannot be
    size: Tensor  # (y, x) which diameter of those in the range is best
    mean: float  # of the response where the best diameter is in the range
    deviation: float


def _require_relion(parameters: LogParameters, ctf: FieldCtf | None) -> None:
    if parameters.mode != "relion":
        raise ParameterError(
            "mode", must="be relion here", got=parameters.mode, remedy="Call pick_log"
        )
    if parameters.value("use_ctf") and ctf is None:
        raise ParameterError(
            "use_ctf",
            must="have a CTF to use",
            got="a micrograph without a defocus that can be trusted",
            remedy="Estimate the CTF first, or remove --use-ctf",
        )


def _compete(responses: Tensor, frame: _Frame) -> _Field:
    """Give every pixel its best diameter; drop those out of range or near an edge.

    As in RELION, the mean and deviation count the pixels near the edge as 0.
    """
    below = (len(responses) - _IN_RANGE) // 2
    best, size = responses[below : below + _IN_RANGE].max(dim=0)
    is_in_range = torch.ones_like(best, dtype=torch.bool)
    if below:
        is_in_range &= best > responses[:below].amax(dim=0)
        is_in_range &= best >= responses[below + _IN_RANGE :].amax(dim=0)
    fom = torch.zeros_like(best)
    inner = frame.inside(frame.height), frame.inside(frame.width)
    fom[inner] = best[inner] * is_in_range[inner]
    count = max(int(is_in_range.sum()), 1)
    mean = float(fom.double().sum()) / count
    variance = float(fom.double().square().sum()) / count - mean**2
    return _Field(fom, size, mean, math.sqrt(max(variance, 0.0)))


def _search(
    field: _Field, diameters: list[float], frame: _Frame, parameters: LogParameters
) -> FieldPicks:
    """Find the peaks and put them where they are in the micrograph."""
    below = (len(diameters) - _IN_RANGE) // 2
    in_range = np.array(diameters[below : below + _IN_RANGE])
    share = parameters.value("neighbour_distance") / 100
    reach = (in_range + parameters.min_diameter) * share / 2 / frame.pixel_size
    fom, size = field.fom.cpu().numpy(), field.size.cpu().numpy()
    rows, columns = _take_highest(fom, size, np.floor(reach + 0.5).astype(int).tolist())
    values = fom[rows, columns].astype(np.float64)
    is_low = values < field.mean + parameters.value("upper_threshold") * field.deviation
    rows, columns, values = rows[is_low], columns[is_low], values[is_low]
    scale = frame.side / frame.work
    return FieldPicks(
        x=(columns - frame.work // 2 + frame.width // 2) * scale,
        y=(rows - frame.work // 2 + frame.height // 2) * scale,
        fom=values,
        diameter=in_range[size[rows, columns]],
        threshold=0.0,
        valid_fraction=frame.covered,
        maps={},
    )


def _take_highest(
    fom: NDArray[np.float32], size: NDArray[np.int64], radii: list[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Take the highest pixel, silence the pixels nearer than its radius, and so on to 0.

    After a disc is silenced the highest pixel may lie on the disc's rim and be no local maximum,
    so all pixels are walked in order, not only the maxima.
    """
    border = max(radii) + 1
    side = fom.shape[0] + 2 * border
    above = np.flatnonzero(fom > 0)
    order = above[np.argsort(-fom.ravel()[above], kind="stable")]
    rows, columns = np.divmod(order, fom.shape[1])
    places = ((rows + border) * side + columns + border).tolist()
    kinds = size.ravel()[order].tolist()
    silent = bytearray(side * side)
    silenced = np.frombuffer(silent, np.uint8).reshape(side, side)
    discs = [_disc(radius) for radius in radii]
    chosen = []
    for number, place in enumerate(places):
        if silent[place]:
            continue
        chosen.append(number)
        radius, disc = radii[kinds[number]], discs[kinds[number]]
        row, column = divmod(place, side)
        top, left, width = row - radius, column - radius, 2 * radius + 1
        silenced[top : top + width, left : left + width] |= disc
    return rows[chosen], columns[chosen]


def _disc(radius: int) -> NDArray[np.uint8]:
    steps = np.arange(-radius, radius + 1) ** 2
    is_near = steps[:, None] + steps[None, :] < radius**2
    return is_near.astype(np.uint8)


def _maps(
    responses: Tensor, field: _Field, diameters: list[float], threshold: float
) -> dict[str, NDArray[np.float32]]:
    best, which = responses.max(dim=0)
    maps = {f"LoG{d:g}": r for d, r in zip(diameters, responses, strict=True)}
    maps["bestLoG"] = best
    maps["bestSize"] = torch.tensor(diameters, device=best.device)[which]
    maps["bestLoGb"] = field.fom
    maps["bestLoGc"] = field.fom * (field.fom >= threshold)
    return {name: m.cpu().numpy().astype(np.float32) for name, m in maps.items()}
