"""Sections of the report of a run on picks: fields, and scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.pipeline.picking_files import read_picking
from cryopick.pipeline.report_sample import SearchedFields, load_fields, sample_peaks
from cryopick.pipeline.report_source import PICKINGS, ReportSource
from cryopick.report import figures
from cryopick.report.blocks import chart_block, grid_block
from cryopick.report.field_blocks import Field, FieldScale, field_blocks, field_pair_blocks
from cryopick.report.page import Html, Section
from cryopick.report.score_histogram import count_scores, draw_scores
from cryopick.tables.model import Micrographs
from cryopick.tables.pick_scores import read_pick_score

__all__ = ["defocus_chart", "fields_section", "mean_defocus", "scores_section"]

_SHOWN = 6  # fields
_UNKNOWN_DIAMETER = 150.0  # A, of circles where nothing says it


def fields_section(source: ReportSource) -> Section:
    """Show fields with the first picks beside the final ones, and the picks of all fields."""
    pickings = [_searched(source, name) for name in PICKINGS if name in source.steps]
    last = pickings[-1]
    fields = load_fields(pickings, most=_SHOWN)
    if len(pickings) > 1 and not fields:  # no field was in both
        pickings, fields = [last], load_fields([last], most=_SHOWN)
    sizes = source.sizes
    diameter = _UNKNOWN_DIAMETER if sizes is None else sizes.diameter
    scales = [_scale([f[n] for f in fields], p) for n, p in enumerate(pickings)]
    if len(pickings) > 1:
        pairs = [(f[0], f[1]) for f in fields]
        blocks = field_pair_blocks(pairs, scales=(scales[0], scales[1]), default_diameter=diameter)
    else:
        shown = [f[0] for f in fields]
        blocks = field_blocks(shown, limits=scales[0].limits, default_diameter=diameter)
    return Section(
        title="Fields",
        lead=_lead(len(fields), pickings, is_trained="training" in source.steps),
        blocks=[*blocks, *_of_all_fields(last)],
    )


def _searched(source: ReportSource, name: str) -> SearchedFields:
    return SearchedFields(
        result=read_picking(source.steps[name].folder),
        micrographs=source.micrographs(name),
        name=PICKINGS[name],
    )


def _lead(n_shown: int, pickings: Sequence[SearchedFields], *, is_trained: bool) -> str:
    total = min(len(p.result.picked) for p in pickings)
    both = " that were searched twice" if len(pickings) > 1 else ""
    which = (
        f"{n_shown} of {total:,} micrographs{both}, from the fullest to the emptiest."
        if n_shown < total
        else f"All {total} micrographs{both}, from the fullest to the emptiest."
    )
    learned = "after training" if is_trained else "with what the first ones taught"
    beside = (
        f" Left, the first picks; right, the final ones, {learned}." if len(pickings) > 1 else ""
    )
    return (
        f"{which}{beside} Each circle is a pick, drawn with the diameter that was detected and "
        "coloured by its score."
    )


def _scale(fields: Sequence[Field], picking: SearchedFields) -> FieldScale:
    foms = [f.picks["fom"].to_numpy(np.float64) for f in fields if len(f.picks)]
    scores = np.concatenate(foms) if foms else np.array([0.0, 1.0])
    limits = (float(scores.min()), float(np.quantile(scores, 0.98)))
    meaning = read_pick_score(picking.result.folder / "summary.star").meaning
    return FieldScale(limits, f"{picking.name}: {meaning.split(' (')[0]}")


def _of_all_fields(picking: SearchedFields) -> list[Html]:
    """Draw picks per micrograph, and against the CTF where the table has it."""
    picked = picking.result.picked
    if not picked:
        return []
    counts = pd.Series({m.micrograph: m.n_picks for m in picked}, dtype=float)
    blocks = [
        chart_block(
            figures.plot_picks_per_micrograph(counts),
            caption=f"{picking.name} of each micrograph. A drift or a step points to a change of "
            "ice, of the grid square or of the microscope.",
            label="Picks per micrograph",
        )
    ]
    charts = _charts_of_ctf(picking.micrographs, counts)
    return [*blocks, grid_block(charts)] if charts else blocks


def _charts_of_ctf(micrographs: Micrographs, counts: pd.Series) -> list[Html]:
    """Draw picks against defocus and, where the CTF was estimated, against its resolution."""
    rows = micrographs.rows.set_index("micrograph").loc[list(counts.index)]
    if not {"defocus_u", "defocus_v"} <= set(rows.columns):
        return []
    defocus = mean_defocus(rows)
    against = chart_block(
        figures.plot_picks_versus(defocus / 1e4, counts, name="Defocus (µm)"),
        caption="Picks against defocus. If few are found close to focus, particles there may "
        "be too faint for the threshold.",
        label="Picks against defocus",
    )
    if "ctf_max_resolution" not in rows:
        return [defocus_chart(defocus), against]
    resolution = rows["ctf_max_resolution"].to_numpy(np.float64)
    return [
        against,
        chart_block(
            figures.plot_picks_versus(resolution, counts, name="Rings of the CTF seen to (Å)"),
            caption="Picks against the resolution of the CTF fit. Many picks where few rings are "
            "seen may be of something else than particles.",
            label="Picks against the resolution of the CTF",
        ),
    ]


def mean_defocus(rows: pd.DataFrame) -> NDArray[np.float64]:
    """Mean of the two defoci of micrographs, A."""
    return (rows["defocus_u"] + rows["defocus_v"]).to_numpy(np.float64) / 2


def defocus_chart(defocus: NDArray[np.float64]) -> Html:
    """Draw the distribution of the mean defocus, given in A."""
    return chart_block(
        figures.plot_defocus(defocus),
        caption="Mean defocus of the micrographs, underfocus positive.",
        label="Histogram of defocus",
    )


def scores_section(source: ReportSource) -> Section:
    """Show the scores of first and of final picks with their thresholds."""
    blocks: list[Html] = []
    for name, words in PICKINGS.items():
        if name not in source.steps:
            continue
        result = read_picking(source.steps[name].folder)
        if not any(m.n_peaks for m in result.picked):
            continue
        sample = sample_peaks(result.picked, result.folder)
        part = (
            f" Peaks of {sample.n_micrographs:,} of {len(result.picked):,} micrographs."
            if sample.n_micrographs < len(result.picked)
            else ""
        )
        blocks.append(
            chart_block(
                draw_scores(count_scores(sample.scores, n_kinds=2), score=sample.score),
                caption=f"{words}.{part}",
                label=f"Histogram of the scores of {words.lower()}, with the threshold",
            )
        )
        blocks += _diameters(source, sample.diameter[sample.is_pick], words)
    return Section(
        title="Scores",
        lead="A score above the threshold makes a peak a pick. A threshold sits well where the "
        "steep fall of the noise on the left turns into the hump of the particles. All peaks are "
        "stored, so another threshold needs no new picking.",
        blocks=blocks,
    )


def _diameters(source: ReportSource, values: NDArray[np.float64], words: str) -> list[Html]:
    """Draw the diameters detected; a picker that detects none gives all picks the same."""
    finite = values[np.isfinite(values)]
    sizes = source.sizes
    if sizes is None or len(np.unique(finite)) < 2:
        return []
    limits = (sizes.min_diameter, sizes.max_diameter)
    return [
        chart_block(
            figures.plot_diameters(finite, limits=limits),
            caption=f"{words}: diameters detected; the range searched, {limits[0]:.0f} to "
            f"{limits[1]:.0f} Å, is dashed. A heap at one end says that the range should be wider "
            "there.",
            label=f"Histogram of the diameters of {words.lower()}",
        )
    ]
