"""Score a folder or file of picks against a file of truth, whatever their forms."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from cryopick.checks import require_above
from cryopick.errors import FormatError, ParameterError, TableError
from cryopick.io.atomic import writing
from cryopick.picking.evaluate import Evaluation, evaluate_picks
from cryopick.pipeline.judged_scores import read_thresholds, write_judged_scores
from cryopick.tables.model import Picks
from cryopick.tables.paths import micrograph_key
from cryopick.tables.pick_scores import UNKNOWN, PickScore
from cryopick.tables.relion import picks_of_file, read_micrographs, read_picks

__all__ = ["PickEvaluation", "Truth", "evaluate_pick_files", "pair_names", "read_truth"]

_STATE = "cryopickState"


@dataclass(frozen=True, kw_only=True)
class Truth:
    """True positions, and what their file says of the particle and the micrographs."""

    rows: pd.DataFrame  # micrograph, x, y
    ignored: pd.DataFrame  # micrograph, x, y of particles that need not be found
    micrographs: list[str]  # all that were searched for particles, also without any
    diameter: float | None = None  # A
    pixel_size: float | None = None  # A/px


@dataclass(frozen=True, kw_only=True)
class PickEvaluation:
    """Scores of the picks as shipped, and of all stored peaks over every threshold."""

    picks: Evaluation
    peaks: Evaluation  # the same object as `picks` where no peaks are stored
    diameter: float  # A
    unmatched_micrographs: int  # with picks but without truth, not scored

    def to_dict(self) -> dict[str, Any]:
        """Gather the numbers that count, ready for JSON."""
        total = self.picks.total.to_dict()
        from_peaks = self.peaks.total.to_dict()
        over_thresholds = ("best_f1", "best_threshold", "average_precision")
        micrographs = {n: s.to_dict() for n, s in self.picks.micrographs.items()}
        for scores in micrographs.values():
            for name in over_thresholds:
                del scores[name]
        return {
            **total,
            **{name: from_peaks[name] for name in over_thresholds},
            "n_peaks": from_peaks["n_picks"],
            "n_ignored_peaks": from_peaks["n_ignored"],
            "diameter": self.diameter,
            "unmatched_micrographs": self.unmatched_micrographs,
            "micrographs": micrographs,
        }


def evaluate_pick_files(
    picks: Path,
    truth: Path,
    *,
    diameter: float | None = None,
    pixel_size: float | None = None,
    micrographs: Path | None = None,
    tolerance: float = 0.3,
    plot: Path | None = None,
    plot_scores: Path | None = None,
) -> PickEvaluation:
    """Score picks against truth.

    Parameters
    ----------
    picks
        A STAR file of picks or the folder of a picking job; if that has a folder ``peaks``,
        average precision and best F1 are taken over those.
    truth
        A STAR file or folder of coordinates or particles, or the simulator's ``truth.json``.
    diameter
        Of the particle, A; None takes it from `truth`.
    pixel_size
        A/px of the micrographs; None takes it from `micrographs`, from `truth`, or from the
        table that the picking job was given.
    micrographs
        Table with the pixel size of each micrograph.
    tolerance
        Largest distance of a match, as a part of the diameter.
    plot
        Where to draw the precision-recall curve as a PNG; None draws none.
    plot_scores
        Where to draw the scores of right and wrong peaks as a PNG; None draws none.

    Raises
    ------
    ParameterError
        If diameter or pixel size are known from nowhere, or not above 0, or the scores are to be
        drawn of picks without scores.
    TableError
        If picks and truth share no micrograph, or a table lacks a column.
    FormatError
        If a file is broken.
    OutputError
        If a plot cannot be written.
    """
    for name, value in (("diameter", diameter), ("pixel_size", pixel_size)):
        if value is not None:
            require_above(value, 0, name=name, unit="A")
    true = read_truth(truth)
    size = diameter or true.diameter
    if not size:
        raise ParameterError(
            "diameter", must="be given for this truth", got="none", remedy="Add --diameter"
        )
    found = read_picks(picks)
    pairs = pair_names(_names(found), true.micrographs)
    if found.rows.size and not pairs:
        raise _other_micrographs(picks, truth, _names(found), true.micrographs)
    pixel_sizes = _pixel_sizes(
        true, given=pixel_size, table=micrographs or _table_of_job(picks), diameter=size
    )
    score = partial(
        evaluate_picks,
        pixel_sizes=pixel_sizes,
        diameter=size,
        tolerance=tolerance,
        ignored=true.ignored,
    )
    shipped = score(_renamed(found.rows, pairs), true.rows)
    peaks = _read_peaks(picks, _names(found))
    over_peaks = shipped
    if peaks is not None:
        peak_pairs = pair_names(_names(peaks), true.micrographs)
        over_peaks = score(_renamed(peaks.rows, peak_pairs), true.rows)
    result = PickEvaluation(
        picks=shipped,
        peaks=over_peaks,
        diameter=size,
        unmatched_micrographs=len(set(found.rows["micrograph"]) - set(pairs)),
    )
    if plot is not None:
        _write_plot(plot, result)
    if plot_scores is not None:
        _write_scores(plot_scores, result, picks, found, pairs)
    return result


def _other_micrographs(
    picks: Path, truth: Path, found: Sequence[str], true: Sequence[str]
) -> TableError:
    return TableError(
        str(picks),
        must=f"name micrographs of {truth}",
        got=f"{found[0]} instead of {true[0]}" if true else "no micrographs there",
        remedy="Give the truth of the same micrographs",
    )


def _write_scores(
    path: Path, result: PickEvaluation, picks: Path, found: Picks, pairs: Mapping[str, str]
) -> None:
    meaning = found.attributes.get("score", UNKNOWN)
    assert isinstance(meaning, PickScore)
    thresholds = read_thresholds(Path(picks))
    write_judged_scores(
        path,
        result.peaks,
        picks=_renamed(found.rows, pairs),
        thresholds={pairs[n]: t for n, t in thresholds.items() if n in pairs},
        score=meaning,
    )


def read_truth(path: Path) -> Truth:
    """Read true positions from a STAR file or folder, or from the simulator's ``truth.json``.

    Particles that need not be found are set apart: those listed as ``ignored`` in JSON, in STAR
    files those with another ``cryopickState`` than ``particle`` or with ``cryopickIsJunk`` 1.

    Raises
    ------
    FormatError
        If the file is broken or is no truth.
    TableError
        If there are no coordinates.
    """
    path = Path(path)
    return _truth_of_json(path) if path.suffix == ".json" else _truth_of_star(path)


def _truth_of_star(path: Path) -> Truth:
    picks = read_picks(path)
    rows = picks.rows
    is_ignored = np.zeros(len(rows), bool)
    # one file of a folder may have a column that another lacks
    if "is_junk" in rows:
        is_ignored |= rows["is_junk"].fillna(0).to_numpy() != 0
    if _STATE in rows:
        is_ignored |= rows[_STATE].fillna("particle").to_numpy() != "particle"
    return Truth(rows=rows[~is_ignored], ignored=rows[is_ignored], micrographs=_names(picks))


def _truth_of_json(path: Path) -> Truth:
    try:
        content = json.loads(path.read_text())
        micrographs = {str(name): entry for name, entry in content["micrographs"].items()}
        return Truth(
            rows=_listed({n: e["particles"] for n, e in micrographs.items()}),
            ignored=_listed({n: e.get("ignored", []) for n, e in micrographs.items()}),
            micrographs=list(micrographs),
            diameter=float(content["diameter"]),
            pixel_size=float(content["apix"]),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise FormatError(
            str(path),
            must="hold diameter, apix and the particles of micrographs",
            got=_reason(error),
            remedy="Give the truth.json of a simulation or a STAR file",
        ) from error


def _listed(places: Mapping[str, Iterable[tuple[float, float]]]) -> pd.DataFrame:
    positions = [(n, float(x), float(y)) for n, listed in places.items() for x, y in listed]
    return pd.DataFrame(positions, columns=["micrograph", "x", "y"])


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"no {error}" if isinstance(error, KeyError) else "other content"


def pair_names(names: Iterable[str], wanted: Iterable[str]) -> dict[str, str]:
    """Pair micrographs that two files name differently.

    Names are paired by what is left of them without job prefix and suffix; where that pairs
    none at all, by file name alone, as far as that is unique.

    Returns
    -------
    dict
        Name in `names` to name in `wanted`; a name without partner is left out.

    Examples
    --------
    >>> pair_names(["MotionCorr/job002/a.mrc"], ["truth/a.mrc", "truth/b.mrc"])
    {'MotionCorr/job002/a.mrc': 'truth/a.mrc'}
    """
    names, wanted = list(dict.fromkeys(names)), list(dict.fromkeys(wanted))
    by_key = {micrograph_key(w): w for w in wanted}
    pairs = {n: by_key[micrograph_key(n)] for n in names if micrograph_key(n) in by_key}
    if pairs:
        return pairs
    stems = [PurePosixPath(micrograph_key(w)).name for w in wanted]
    by_stem = {s: w for s, w in zip(stems, wanted, strict=True) if stems.count(s) == 1}
    own = [PurePosixPath(micrograph_key(n)).name for n in names]
    return {
        n: by_stem[s] for n, s in zip(names, own, strict=True) if s in by_stem and own.count(s) == 1
    }


def _names(picks: Picks) -> list[str]:
    listed = picks.attributes.get("micrographs")
    if isinstance(listed, list):
        return [str(n) for n in listed]
    return [str(n) for n in picks.rows["micrograph"].unique()]


def _renamed(rows: pd.DataFrame, pairs: Mapping[str, str]) -> pd.DataFrame:
    """Keep the picks whose micrograph has a partner, under the partner's name."""
    kept = rows[rows["micrograph"].isin(list(pairs))]
    return kept.assign(micrograph=kept["micrograph"].map(dict(pairs)).astype("str"))


def _read_peaks(picks: Path, names: Iterable[str]) -> Picks | None:
    """Read all peaks of a picking job; None where there are none but picks."""
    folder = Path(picks) / "peaks"
    if not folder.is_dir():
        return None
    files = {n: folder / f"{micrograph_key(n)}_peaks.star" for n in names}
    tables = [picks_of_file(f, n) for n, f in files.items()]
    return Picks(rows=pd.concat([t for t in tables if len(t)] or tables[:1], ignore_index=True))


def _table_of_job(picks: Path) -> Path | None:
    """Find the table of micrographs that a picking job was given, from its record."""
    folder = Path(picks) if Path(picks).is_dir() else Path(picks).parent
    try:
        inputs = json.loads((folder / "job.json").read_text())["inputs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    tables = [Path(i) for i in inputs if str(i).endswith(".star")]
    return tables[0] if len(tables) == 1 and tables[0].is_file() else None


def _pixel_sizes(
    truth: Truth, *, given: float | None, table: Path | None, diameter: float
) -> dict[str, float]:
    size = given or (truth.pixel_size if table is None else None)
    if size:
        return dict.fromkeys(truth.micrographs, size)
    found: dict[str, float] = {}
    if table is not None:
        fields = read_micrographs(table)
        of_group = fields.optics.set_index("optics_group")["pixel_size"]
        of_row = fields.rows["optics_group"].map(of_group)
        listed = {str(n): float(s) for n, s in zip(fields.rows["micrograph"], of_row, strict=True)}
        pairs = pair_names(truth.micrographs, listed)
        found = {name: listed[other] for name, other in pairs.items()}
    if not found and truth.micrographs:
        raise ParameterError(
            "pixel_size",
            must=f"be known, to compare positions with a diameter of {diameter:g} A",
            got="none",
            remedy="Add --pixel-size or --micrographs",
        )
    return found


def _write_plot(path: Path, result: PickEvaluation) -> None:
    from cryopick.report.figures import figure_to_png, plot_precision_recall

    curve = result.peaks.curve
    figure = plot_precision_recall(
        curve["precision"],
        curve["recall"],
        average_precision=result.peaks.total.average_precision,
        shipped=(result.picks.total.recall, result.picks.total.precision),
    )
    content = figure_to_png(figure)
    with writing(path) as handle:
        handle.write(content)
