"""The sections of the picking report, each made from results on its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.extraction.extraction_parameters import ExtractionParameters
from cryopick.parameters import describe
from cryopick.picking.log_parameters import LogParameters
from cryopick.pipeline.extraction import ExtractionResult
from cryopick.pipeline.picking import PickingResult
from cryopick.pipeline.report_sample import load_fields, sample_particles, sample_peaks
from cryopick.report import figures
from cryopick.report.blocks import (
    Command,
    chart_block,
    command_block,
    field_blocks,
    grid_block,
    image_block,
    table_block,
)
from cryopick.report.page import Html, Section
from cryopick.report.pictures import mean_power, spread_contrast, tile_images
from cryopick.report.score_histogram import count_scores, draw_scores
from cryopick.tables.model import Micrographs
from cryopick.tables.relion import read_particles

__all__ = [
    "commands_section",
    "failures_section",
    "fields_section",
    "micrographs_section",
    "particles_section",
    "scores_section",
]

_GALLERY = 60  # particles shown
_AVERAGED = 400  # particles in the mean
_LOW_PASS = 15.0  # A, of the particles shown
_UNITS = {d.name: d.unit for p in (LogParameters, ExtractionParameters) for d in describe(p)}


def fields_section(picking: PickingResult, micrographs: Micrographs, diameter: float) -> Section:
    """Show micrographs with their picks."""
    fields = load_fields(picking.picked, micrographs, picking.folder)
    foms = [f.picks["fom"].to_numpy(np.float64) for f in fields if len(f.picks)]
    scores = np.concatenate(foms) if foms else np.array([0.0, 1.0])
    limits = (float(scores.min()), float(np.quantile(scores, 0.98)))
    count, total = len(fields), len(picking.picked)
    which = (
        f"{count} of {total:,} micrographs, spread over the number of picks"
        if count < total
        else f"All {total} micrographs"
    )
    return Section(
        title="Micrographs",
        lead=f"{which}, from the fullest to the emptiest. Each circle is a pick, drawn with the "
        "diameter that was detected and coloured by its score.",
        blocks=field_blocks(fields, limits=limits, default_diameter=diameter),
    )


def scores_section(picking: PickingResult, limits: tuple[float, float]) -> Section:
    """Show scores with the threshold, and the diameters detected."""
    if not picking.picked:
        return Section(title="Scores", blocks=[])
    sample = sample_peaks(picking.picked, picking.folder)
    scores = draw_scores(count_scores(sample.scores, n_kinds=2), score=sample.score)
    part = (
        f" Peaks of {sample.n_micrographs:,} of {len(picking.picked):,} micrographs."
        if sample.n_micrographs < len(picking.picked)
        else ""
    )
    blocks = [
        chart_block(
            scores,
            caption="All stored peaks, the picks in colour. A threshold sits well where the steep "
            f"fall of the noise on the left turns into the hump of the particles.{part}",
            label="Histogram of scores with the threshold",
        )
    ]
    diameters = sample.diameter[sample.is_pick & np.isfinite(sample.diameter)]
    if len(diameters):
        blocks.append(
            chart_block(
                figures.plot_diameters(diameters, limits=limits),
                caption=f"Diameters detected; the range searched, {limits[0]:g} to {limits[1]:g} "
                "Å, is dashed. A heap at one end says that the range should be wider there.",
                label="Histogram of detected diameters",
            )
        )
    return Section(
        title="Scores",
        lead="A score above the threshold makes a peak a pick. All peaks are stored, so another "
        "threshold needs no new picking.",
        blocks=blocks,
    )


def micrographs_section(picking: PickingResult, micrographs: Micrographs) -> Section:
    """Show picks per micrograph, and the defocus where the table has it."""
    if not picking.picked:
        return Section(title="Data set", blocks=[])
    counts = pd.Series({m.micrograph: m.n_picks for m in picking.picked}, dtype=float)
    blocks = [
        chart_block(
            figures.plot_picks_per_micrograph(counts),
            caption="Picks of each micrograph. A drift or a step points to a change of ice, "
            "of the grid square or of the microscope.",
            label="Picks per micrograph",
        )
    ]
    rows = micrographs.rows.set_index("micrograph").loc[list(counts.index)]
    if {"defocus_u", "defocus_v"} <= set(rows.columns):
        defocus = (rows["defocus_u"] + rows["defocus_v"]).to_numpy(np.float64) / 2
        blocks.append(grid_block(_defocus_charts(defocus, counts)))
    return Section(title="Data set", blocks=blocks)


def _defocus_charts(defocus: NDArray[np.float64], counts: pd.Series) -> list[Html]:
    return [
        chart_block(
            figures.plot_defocus(defocus),
            caption="Mean defocus of the micrographs, underfocus positive.",
            label="Histogram of defocus",
        ),
        chart_block(
            figures.plot_picks_versus(defocus / 1e4, counts, name="Defocus (µm)"),
            caption="Picks against defocus. If few are found close to focus, particles there may "
            "be too faint for the threshold.",
            label="Picks against defocus",
        ),
    ]


def particles_section(extraction: ExtractionResult) -> Section:
    """Show a gallery of particles, their mean, their spread and their spectrum."""
    if extraction.particles is None:
        return Section(title="Particles", blocks=[])
    particles = read_particles(Path(extraction.particles))
    pixel_size = float(particles.optics["pixel_size"].iloc[0])
    gallery = sample_particles(particles, most=_GALLERY, by_score=True)
    sample = sample_particles(particles, most=_AVERAGED, by_score=False)
    sheet = tile_images(gallery, columns=12, side=96, pixel_size=pixel_size, low_pass=_LOW_PASS)
    side = gallery.shape[-1]
    width = side * pixel_size
    blocks = [
        image_block(
            sheet,
            caption=f"{len(gallery)} of {len(particles):,} particles, the best score first and "
            f"evenly spread down to the worst. Box {side} px, {width:.0f} Å; "
            f"filtered to {_LOW_PASS:g} Å to be seen.",
            label="Gallery of particles",
        ),
        grid_block(_average_images(sample, pixel_size), columns=3),
    ]
    return Section(title="Particles", blocks=blocks)


def _average_images(sample: NDArray[np.float32], pixel_size: float) -> list[Html]:
    mean, spread = (
        tile_images(i[None], columns=1, pixel_size=pixel_size, low_pass=_LOW_PASS)
        for i in (sample.mean(axis=0), sample.std(axis=0))
    )
    panels = [
        (
            mean,
            f"Mean of {len(sample)} particles as they are, not aligned. A round blob in the "
            "middle says that picks are well centred.",
        ),
        (
            spread,
            "Standard deviation. Brighter in the middle is particles that differ; brighter at the "
            "rim is neighbours.",
        ),
        (
            spread_contrast(mean_power(sample)),
            "Mean power spectrum, logarithmic, zero frequency in the middle. Rings are Thon "
            "rings; a cross is damaged edges.",
        ),
    ]
    return [image_block(pixels, caption=text, label=text, is_sharp=True) for pixels, text in panels]


def failures_section(picking: PickingResult, extraction: ExtractionResult | None) -> Section:
    """List what was refused, with the reason of each."""
    found = [("Picking", m.micrograph, m.error) for m in picking.failed]
    if extraction:
        found += [("Extraction", name, text) for name, text in extraction.failures.items()]
    rows = pd.DataFrame(found, columns=["Step", "Micrograph", "Reason"], dtype="str")
    return Section(
        title="Refused",
        lead="These were left out; the rest went on. The same command tries them again.",
        blocks=[table_block(rows)] if found else [],
    )


def commands_section(folders: Sequence[Path], *, command: str) -> Section:
    """Write how the results were made: the command, each step's parameters, the versions."""
    jobs = [json.loads((f / "job.json").read_text()) for f in folders if (f / "job.json").exists()]
    blocks = [
        command_block(
            Command(
                name=str(job["name"]).capitalize(),
                command="",
                outcome=_outcome(job),
                parameters=job["parameters"],
                units=_UNITS,
            )
        )
        for job in jobs
    ]
    blocks.insert(
        0, command_block(Command(name="Command", command=command, outcome="", parameters={}))
    )
    versions = ", ".join(f"{n} {v}" for n, v in jobs[-1]["versions"].items()) if jobs else ""
    return Section(
        title="How it was made",
        lead=f"Software: {versions}." if versions else "",
        blocks=blocks,
    )


def _outcome(job: Mapping[str, Any]) -> str:
    done, failed = int(job["n_done"]), int(job["n_failed"])
    refused = f", {failed:,} refused" if failed else ""
    started = datetime.fromisoformat(job["started"]).strftime("%-d %B %Y, %H:%M:%S")
    return f"{done:,} micrographs done{refused}. Started {started}."
