"""Sections of the report of a run on its numbers, CTF, diameter and training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cryopick.pipeline.report_fields import defocus_chart, mean_defocus
from cryopick.pipeline.report_sample import choose_over_range
from cryopick.pipeline.report_source import ReportSource
from cryopick.pipeline.run_context import CTF_TABLE
from cryopick.pipeline.run_numbers import run_flow
from cryopick.pipeline.run_story import TITLES, counted, step_result
from cryopick.report import figures
from cryopick.report.blocks import chart_block, grid_block, image_block, table_block, text_block
from cryopick.report.diameter_chart import plot_diameter_estimate
from cryopick.report.flow_block import flow_block
from cryopick.report.page import Html, Section
from cryopick.tables.paths import micrograph_key
from cryopick.tables.relion import read_micrographs

__all__ = [
    "ctf_section",
    "diameter_section",
    "numbers_section",
    "read_picture",
    "training_section",
]

_SHOWN = 6  # fits


def numbers_section(source: ReportSource, *, n_micrographs: int) -> Section:
    """Follow the micrographs and particles through the run, with the time of each step."""
    facts = {name: step.facts for name, step in source.steps.items()}
    blocks = [flow_block(run_flow(facts, n_micrographs=n_micrographs))]
    if source.steps:
        blocks.append(table_block(_steps(source), right=("Seconds", "Share"), is_wide=True))
    return Section(
        title="Numbers",
        lead="What each step kept, in colour, of what the step before handed on; and what was "
        "lost there, pale, with the reason.",
        blocks=blocks,
    )


def _steps(source: ReportSource) -> pd.DataFrame:
    total = source.seconds
    rows = [
        {
            "Step": TITLES[step.name],
            "Result": step_result(step),
            "Seconds": f"{step.seconds:,.1f}",
            "Share": f"{100 * step.seconds / total:.0f} %" if total else "",
            "Job": f"{step.folder.parent.name}/{step.folder.name}",
        }
        for step in source.steps.values()
    ]
    whole = {"Step": "In all", "Result": "", "Seconds": f"{total:,.1f}", "Share": "", "Job": ""}
    return pd.DataFrame([*rows, whole])


def ctf_section(source: ReportSource) -> Section:
    """Show fits from the best to the worst, and the resolutions of all."""
    folder = source.steps["ctf"].folder
    rows = read_micrographs(folder / CTF_TABLE).rows
    facts = source.steps["ctf"].facts
    total, trusted = int(facts["n_micrographs"]), int(facts["n_trusted"])
    refused = int(facts["n_failed"])
    doubted = total - refused - trusted
    resolution = rows["ctf_max_resolution"].to_numpy(np.float64)
    lead = f"{trusted:,} of {total:,} fits can be trusted"
    lead += f", {doubted:,} cannot" if doubted else ""
    lead += f"; {refused:,} refused" if refused else ""
    lead += (
        ". Where no rings are found, the defocus is a guess; if that is so for more than half of "
        "the micrographs, the run does without the CTF."
    )
    of_resolution = chart_block(
        figures.plot_histogram(resolution, name="Rings seen to (Å)", counted="Micrographs"),
        caption="Resolution to which rings agree with the fit. Micrographs far to the right are "
        "worth a look, and perhaps to be left out.",
        label="Histogram of the resolution of CTF fits",
    )
    blocks = [grid_block([defocus_chart(mean_defocus(rows)), of_resolution])]
    order = choose_over_range((-resolution * 1000).astype(np.int64).tolist(), most=_SHOWN)
    pictures = [_fit(folder, source, str(rows["micrograph"].iloc[i])) for i in order]
    blocks += [p for p in pictures if p is not None]
    return Section(title="CTF", lead=lead, blocks=blocks)


def _fit(folder: Path, source: ReportSource, name: str) -> Html | None:
    """Show the picture that the job left; None where there is none."""
    path = folder / f"{micrograph_key(name)}_ctf.png"
    if not path.exists():
        return None
    return image_block(
        read_picture(path), caption="", label=f"CTF fit of {Path(name).name}", is_wide=True
    )


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture as (y, x, 3)."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), np.uint8)


def diameter_section(source: ReportSource) -> Section:
    """Show what particles of each diameter explain."""
    found = json.loads((source.steps["diameter"].folder / "diameter.json").read_bytes())
    figure = plot_diameter_estimate(
        np.array(found["candidates"], np.float64),
        np.array(found["gains"], np.float64),
        diameter=found["diameter"],
        limits=(found["min_diameter"], found["max_diameter"]),
        is_part=np.array(found["is_part"], np.bool_),
    )
    return Section(
        title="Diameter",
        lead="Nobody said how large the particles are, so balls and shells of many diameters were "
        f"tried. Particles of {found['diameter']:.0f} Å explain the micrographs best; from "
        f"{found['min_diameter']:.0f} to {found['max_diameter']:.0f} Å were picked. If that is "
        "wrong, run again with --diameter.",
        blocks=[chart_block(figure, caption="", label="What each diameter explains")],
    )


def training_section(source: ReportSource) -> Section:
    """Show what the picker learned from, and how well it finds what was held out."""
    step = source.steps["training"]
    chart = step.folder / "training.png"
    told = _said_of_topaz if "n_labels" in step.facts else _said_of_network
    blocks = [text_block(told(step.facts))]
    if chart.exists():
        blocks.append(
            image_block(
                read_picture(chart),
                caption="Left, loss and success over the steps; right, scores of the peaks held "
                "out: those at labelled particles, and all others, among which are particles that "
                "nobody has labelled.",
                label="Course of the training",
                is_wide=True,
            )
        )
    return Section(title="Training", blocks=blocks)


def _said_of_network(facts: Mapping[str, Any]) -> str:
    before, after = facts.get("first_average_precision"), facts["average_precision"]
    words = (
        f"The network learned from {counted(facts['n_train_labels'], 'particle')} of good classes "
        f"in {counted(facts['n_train'], 'micrograph')}"
    )
    if facts["n_rejected"]:
        words += f", with {facts['n_rejected']:,} of rejected classes as examples of what is none"
    words += (
        f". On {counted(facts['n_held_out'], 'micrograph')} held out, with "
        f"{counted(facts['n_held_out_labels'], 'particle')}, its average precision is {after:.3f}"
    )
    words += "" if before is None else f"; before training it was {before:.3f}"
    words += (
        ". What is not labelled counts as wrong there, so that is a lower bound. The model of "
        f"step {facts['steps']:,} was taken. A peak is a pick from a probability of "
        f"{facts['threshold']:.2f}; about {facts['n_expected']:.0f} particles are expected in a "
        "micrograph."
    )
    return words


def _said_of_topaz(facts: Mapping[str, Any]) -> str:
    words = (
        f"Topaz learned from {counted(facts['n_labels'], 'particle')} of good classes in "
        f"{counted(facts['n_train'] + facts['n_test'], 'micrograph')}, {facts['n_test']:,} of them "
        f"held out, shrunk {facts['downscale']} times. The model of epoch {facts['epoch']} was "
        f"taken; {facts['expected']:.0f} particles are expected in a micrograph."
    )
    if facts["auprc"] is not None:
        words += f" The area under precision and recall of the test is {facts['auprc']:.3f}."
    return words
