"""Choose what a report shows: as much of a data set of any size as a person can look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.io.micrograph import read_micrograph
from cryopick.pipeline.picking import PickedMicrograph, PickingResult
from cryopick.pipeline.score_chart import peaks_path, scores_of_peaks
from cryopick.pipeline.show import read_images
from cryopick.report.field_blocks import Field
from cryopick.report.pictures import Picture, picture_of_micrograph
from cryopick.report.score_histogram import FieldScores
from cryopick.tables.micrographs import micrograph_path, pixel_sizes
from cryopick.tables.model import Micrographs, Particles
from cryopick.tables.paths import micrograph_key
from cryopick.tables.pick_scores import PickScore, read_pick_score
from cryopick.tables.relion import picks_of_file

__all__ = [
    "PeakSample",
    "SearchedFields",
    "choose_over_range",
    "load_fields",
    "sample_particles",
    "sample_peaks",
]

_SIDE = 720  # px of a field's picture


@dataclass(frozen=True, kw_only=True)
class PeakSample:
    """Peaks of some micrographs, spread over the data set."""

    scores: list[FieldScores]  # one entry per micrograph
    score: PickScore  # what they mean
    diameter: NDArray[np.float64]  # (n,) A, of all peaks, best first in each micrograph
    is_pick: NDArray[np.bool_]  # (n,)
    n_micrographs: int


@dataclass(frozen=True, kw_only=True)
class SearchedFields:
    """What a picking job found, and the table of its micrographs."""

    result: PickingResult
    micrographs: Micrographs
    name: str = ""  # before the number of picks

    def by_path(self) -> dict[Path, PickedMicrograph]:
        """Micrographs that were not refused, by where they lie."""
        source = self.micrographs.source
        return {micrograph_path(m.micrograph, source).resolve(): m for m in self.result.picked}


def choose_over_range(counts: Sequence[int], *, most: int) -> list[int]:
    """Choose items spread over the range of their counts, the fullest first.

    Parameters
    ----------
    counts
        Of each item.
    most
        How many to choose at most, at least 2; the fullest and the emptiest are among them.

    Examples
    --------
    >>> choose_over_range([5, 90, 40, 0, 60], most=3)
    [1, 2, 3]
    """
    order = np.argsort(-np.asarray(counts, np.int64), kind="stable")
    places = np.linspace(0, len(order) - 1, min(most, len(order)))
    return [int(order[p]) for p in np.unique(places.round().astype(int))]


def load_fields(pickings: Sequence[SearchedFields], *, most: int = 6) -> list[list[Field]]:
    """Read some micrographs that all pickings searched, from the fullest to the emptiest.

    Parameters
    ----------
    pickings
        At least one; the number of picks of the last counts.
    most
        Micrographs at most.

    Returns
    -------
    list of list of Field
        For each micrograph one field of each picking, with the same picture.
    """
    known = [p.by_path() for p in pickings]
    common = [path for path in known[-1] if all(path in k for k in known)]
    table = pickings[-1].micrographs
    sizes = dict(zip(table.rows["micrograph"], pixel_sizes(table), strict=True))
    defocus = _defocus(table)
    found = []
    for index in choose_over_range([known[-1][p].n_picks for p in common], most=most):
        path = common[index]
        name = known[-1][path].micrograph
        picture = picture_of_micrograph(
            read_micrograph(path), pixel_size=float(sizes[name]), longest_side=_SIDE
        )
        found.append(
            [
                _field(p, k[path], picture, defocus.get(name))
                for p, k in zip(pickings, known, strict=True)
            ]
        )
    return found


def _field(
    picking: SearchedFields, one: PickedMicrograph, picture: Picture, defocus: float | None
) -> Field:
    path = picking.result.folder / f"{micrograph_key(one.micrograph)}_autopick.star"
    picks = picks_of_file(path, one.micrograph)
    note = _note(one, defocus)
    if picking.name:
        note = f"{picking.name}: {note}"
    return Field(name=Path(one.micrograph).name, picture=picture, picks=picks, note=note)


def sample_peaks(
    picked: Sequence[PickedMicrograph], folder: Path, *, most: int = 300
) -> PeakSample:
    """Read the peaks of some micrographs, evenly spaced in the data set."""
    places = np.unique(np.linspace(0, len(picked) - 1, min(most, len(picked))).round().astype(int))
    chosen = [picked[int(place)] for place in places]
    paths = [peaks_path(folder, one.micrograph) for one in chosen]
    tables = [picks_of_file(p, one.micrograph) for p, one in zip(paths, chosen, strict=True)]
    scores = [scores_of_peaks(t, one) for t, one in zip(tables, chosen, strict=True)]
    rows = pd.concat(tables, ignore_index=True)
    if "diameter" not in rows:
        rows = rows.assign(diameter=np.nan)
    return PeakSample(
        scores=scores,
        score=read_pick_score(paths[0]),
        diameter=rows["diameter"].to_numpy(np.float64),
        is_pick=np.concatenate([s.kind for s in scores]) == 1,
        n_micrographs=len(places),
    )


def sample_particles(particles: Particles, *, most: int, by_score: bool) -> NDArray[np.float32]:
    """Read particle images spread evenly over a table.

    Parameters
    ----------
    particles
        The table.
    most
        How many images at most.
    by_score
        Spread over the scores, the best first, rather than over the order of the table.

    Returns
    -------
    numpy.ndarray
        (n, y, x), of the image size that most particles have.
    """
    rows = particles.rows
    if "box_size" in particles.optics:
        box_sizes = rows["optics_group"].map(particles.optics.set_index("optics_group")["box_size"])
        rows = rows[box_sizes == box_sizes.mode().iloc[0]]
    if by_score and "fom" in rows:
        rows = rows.sort_values("fom", ascending=False, kind="stable")
    places = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))
    chosen = rows.iloc[places]
    return read_images(chosen["image"], chosen["image_index"], table=particles.source)


def _defocus(micrographs: Micrographs) -> dict[str, float]:
    rows = micrographs.rows
    if not {"defocus_u", "defocus_v"} <= set(rows.columns):
        return {}
    mean = (rows["defocus_u"] + rows["defocus_v"]) / 2
    return dict(zip(rows["micrograph"], mean.astype(float), strict=True))


def _note(one: PickedMicrograph, defocus: float | None) -> str:
    parts = [f"{one.n_picks:,} pick{'' if one.n_picks == 1 else 's'}"]
    if defocus is not None:
        parts.append(f"defocus {defocus / 1e4:.2f} µm")
    if one.valid_fraction < 0.85:  # the rim of every field is a few per cent
        parts.append(f"{100 * one.valid_fraction:.0f} % of the field searched")
    return ", ".join(parts)
