"""The report of a consensus: how the pickers agree, what was kept, and what that is worth."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cryopick.errors import CryopickError
from cryopick.image.crop import crop_boxes
from cryopick.image.fourier import fourier_resize
from cryopick.io.atomic import write_text
from cryopick.io.micrograph import read_micrograph
from cryopick.picking.field_picks import FieldPicks
from cryopick.pipeline.consensus_request import CONSENSUS_REPORT
from cryopick.pipeline.consensus_sets import CandidateField
from cryopick.pipeline.report_sample import choose_over_range
from cryopick.pipeline.report_steps import read_picture
from cryopick.pipeline.score_chart import SCORE_CHART
from cryopick.report.blocks import chart_block, grid_block, image_block, table_block, text_block
from cryopick.report.consensus_charts import draw_picker_agreement, plot_estimated_curve
from cryopick.report.page import Fact, Html, Section, make_page
from cryopick.report.pictures import tile_images

if TYPE_CHECKING:
    from cryopick.pipeline.consensus_result import ConsensusResult

__all__ = ["write_consensus_report"]

_FIELDS, _SHOWN, _COLUMNS = 10, 24, 12  # micrographs looked into, candidates of a gallery, a row
_BOX, _SIDE, _LOW_PASS = 1.6, 96, 25.0  # diameters, px, A

Floats = NDArray[np.float64]


class _Shown(NamedTuple):
    """Candidates of some micrographs, cut out."""

    images: NDArray[np.float32]  # (n, side, side)
    score: Floats  # (n,)
    is_pick: NDArray[np.bool_]  # (n,)


def write_consensus_report(
    folder: Path,
    result: ConsensusResult,
    fields: Sequence[CandidateField],
    found: Mapping[str, FieldPicks],
    *,
    diameter: float,
    is_probability: bool,
    remarks: Sequence[str] = (),
) -> None:
    """Write one self-contained HTML file on a consensus.

    Parameters
    ----------
    folder
        Of the job; ``report.html`` in it is written.
    result
        What the sets have in common.
    fields
        All micrographs.
    found
        Candidates of each, by its key; refused ones are not there.
    diameter
        Of the particle, A.
    is_probability
        Whether the scores are probabilities, and not numbers of votes.
    remarks
        Sentences on what the reader should look after.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    picks = result.picks.to_dict()
    n_picks, n_candidates = int(picks["n_picks"]), int(picks["n_peaks"])
    facts = [
        Fact(label="Particles", value=f"{n_picks:,}", note=f"of {n_candidates:,} candidates"),
        Fact(label="Micrographs", value=f"{picks['n_micrographs']:,}"),
        Fact(label="Pickers", value=str(len(result.pickers)), note=_counted_as(result)),
    ]
    sections = [
        _of_pickers(result),
        _of_scores(folder, result, found, is_probability=is_probability),
    ]
    sections += [_of_galleries(fields, found, diameter), _command()]
    page = make_page(
        title=f"Consensus of {folder.resolve().name}",
        subtitle=time.strftime("%-d %B %Y, %H:%M"),
        facts=facts,
        remarks=[*remarks, *(f"Refused: {s}" for s in picks["failed"].values())],
        sections=sections,
    )
    write_text(folder / CONSENSUS_REPORT, page)


def _counted_as(result: ConsensusResult) -> str:
    groups = len({p.counted_as for p in result.pickers})
    return "" if groups == len(result.pickers) else f"counted as {groups}"


def _of_pickers(result: ConsensusResult) -> Section:
    is_alone = len(result.pickers) == 1 and round(result.pickers[0].sensitivity, 6) == 1
    table = pd.DataFrame(
        {
            "Picks of": [p.path for p in result.pickers],
            "Picks": [p.n_picks for p in result.pickers],
            "Micrographs": [p.n_micrographs for p in result.pickers],
            "Finds": ["-" if is_alone else _share(p.sensitivity) for p in result.pickers],
            "Wrong": [_share(p.false_share) for p in result.pickers],
            "Counted as": [p.counted_as for p in result.pickers],
        }
    )
    matrix = draw_picker_agreement(_names(result), np.array(result.shared, np.int64))
    blocks = [
        table_block(table, right=("Finds", "Wrong")),
        grid_block(
            [
                chart_block(
                    matrix,
                    caption="Share of the candidates of either picker that both have; on the "
                    "diagonal, the candidates of each.",
                    label="Agreement of the pickers",
                )
            ]
        ),
    ]
    lead = (
        "Estimated without any truth: the share of the particles that a picker finds, and the "
        "share of its picks that are none. Pickers of one number are copies and have one vote. "
        f"Picks within {result.radius:.0f} Å are of one particle."
    )
    return Section(title="Pickers", lead=lead, blocks=blocks)


def _names(result: ConsensusResult) -> list[str]:
    """Name sets by what tells them apart, the last parts of their paths."""
    paths = [Path(p.path) for p in result.pickers]
    for depth in range(1, max(len(p.parts) for p in paths) + 1):
        names = ["/".join(p.parts[-depth:]) for p in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{n}: {p.name}" for n, p in enumerate(paths, 1)]


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"


def _of_scores(
    folder: Path, result: ConsensusResult, found: Mapping[str, FieldPicks], *, is_probability: bool
) -> Section:
    blocks: list[Html] = []
    chart = folder / SCORE_CHART
    if chart.exists():
        blocks.append(
            image_block(read_picture(chart), caption="", label="Scores of candidates", is_wide=True)
        )
    lead = "Candidates by score."
    if is_probability and found:
        score = np.concatenate([f.fom for f in found.values()])
        least = min(f.threshold for f in found.values())
        figure = plot_estimated_curve(score, n_unseen=result.n_unseen, least=least)
        caption = (
            "Precision: mean probability of what is kept. Recall: its sum over that of all "
            f"candidates and of {result.n_unseen:,.0f} particles that nobody has found."
        )
        blocks.append(grid_block([chart_block(figure, caption=caption, label="Expected")]))
        lead = (
            "The probabilities are calibrated, so precision and recall of every threshold can be "
            "expected from them. Change --threshold and start again: nothing is trained anew."
        )
    return Section(title="Scores", lead=lead, blocks=blocks)


def _of_galleries(
    fields: Sequence[CandidateField], found: Mapping[str, FieldPicks], diameter: float
) -> Section:
    shown = _cut_out(fields, found, diameter)
    if shown is None:
        return Section(title="Candidates", blocks=[])
    size = _BOX * diameter / _SIDE
    order = np.argsort(-shown.score, kind="stable")
    kept, rejected = order[shown.is_pick[order]], order[~shown.is_pick[order]]
    groups = {
        "Kept, the best": kept[:_SHOWN],
        "Kept, just above the threshold": kept[_SHOWN:][-_SHOWN:],
        "Rejected, just below it": rejected[:_SHOWN],
        "Rejected, the worst": rejected[_SHOWN:][-_SHOWN:],
    }
    blocks = []
    for title, places in groups.items():
        if not len(places):
            continue
        pixels = tile_images(
            shown.images[places], columns=_COLUMNS, pixel_size=size, low_pass=_LOW_PASS
        )
        scores = shown.score[places]
        words = f"{title}: {scores.max():.3g} to {scores.min():.3g}"
        blocks.append(image_block(pixels, caption=words, label=title, is_wide=True))
    lead = f"Of {min(_FIELDS, len(found))} micrographs, from the fullest to the emptiest."
    return Section(title="Candidates", lead=lead, blocks=blocks)


def _cut_out(
    fields: Sequence[CandidateField], found: Mapping[str, FieldPicks], diameter: float
) -> _Shown | None:
    """Cut candidates out of some micrographs, at one pixel size."""
    there = [f for f in fields if f.key in found and len(found[f.key].fom)]
    counts = [len(found[f.key].fom) for f in there]
    parts = []
    for place in choose_over_range(counts, most=_FIELDS):
        field = there[place]
        try:
            parts.append(_cut_out_of(field, found[field.key], diameter))
        except (CryopickError, OSError):
            continue  # it is gone since; its candidates are known
    parts = [p for p in parts if len(p.score)]
    if not parts:
        return None
    return _Shown(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _cut_out_of(field: CandidateField, picks: FieldPicks, diameter: float) -> _Shown:
    micrograph = torch.from_numpy(read_micrograph(field.path))
    side = max(2, 2 * round(_BOX * diameter / field.pixel_size / 2))
    centres = torch.from_numpy(np.stack([picks.y, picks.x], 1))
    boxes = crop_boxes(micrograph, centres, box_size=side)
    keep = boxes.is_complete
    images = fourier_resize(boxes.images[keep], shape=(_SIDE, _SIDE)).numpy()
    kept = keep.numpy()
    return _Shown(images.astype(np.float32), picks.fom[kept], picks.is_pick[kept])


def _command() -> Section:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return Section(title="Command", blocks=[text_block(command)])
