"""Write the report of picking and extraction: one HTML file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cryopick.io.atomic import write_text
from cryopick.picking.log_parameters import LogParameters
from cryopick.pipeline import report_sections as parts
from cryopick.pipeline.extraction import ExtractionResult
from cryopick.pipeline.picking import PickingResult
from cryopick.report.page import Fact, Section, make_page
from cryopick.tables.model import Micrographs

__all__ = ["write_report"]


def write_report(
    path: Path,
    *,
    title: str,
    micrographs: Micrographs,
    picking: PickingResult,
    extraction: ExtractionResult | None,
    parameters: LogParameters,
) -> list[str]:
    """Write one self-contained HTML file on what was picked and extracted.

    Its size does not grow with the data set: at most 12 fields, 60 particles and the peaks of 300
    micrographs are shown. A section that cannot be drawn is left out and named.

    Parameters
    ----------
    path
        Of the HTML file.
    title
        Its heading.
    micrographs
        The table that was picked.
    picking, extraction
        What the steps returned; None for extraction where there was no pick.
    parameters
        Of picking.

    Returns
    -------
    list of str
        A sentence for each section that could not be drawn.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    limits = (parameters.min_diameter, parameters.max_diameter)
    folders = [picking.folder]
    if extraction is not None and extraction.particles is not None:
        folders.append(Path(extraction.particles).parent)
    makers: list[Callable[[], Section]] = [
        lambda: parts.fields_section(picking, micrographs, limits[1]),
        lambda: parts.scores_section(picking, limits),
        lambda: parts.micrographs_section(picking, micrographs),
    ]
    if extraction is not None:
        makers.append(lambda: parts.particles_section(extraction))
    makers.append(lambda: parts.failures_section(picking, extraction))
    makers.append(lambda: parts.commands_section(folders, command=_command()))
    sections, problems = _make(makers)
    page = make_page(
        title=title,
        subtitle=_subtitle(micrographs),
        facts=_facts(picking, extraction),
        remarks=[*_remarks(picking, extraction), *problems],
        sections=sections,
    )
    write_text(path, page)
    return problems


def _make(makers: list[Callable[[], Section]]) -> tuple[list[Section], list[str]]:
    """Make every section that can be made: no picture is worth the results it shows."""
    sections, problems = [], []
    for make in makers:
        try:
            sections.append(make())
        except Exception as error:  # a fault of drawing must not end a run whose picks are safe
            problems.append(f"A part of the report could not be drawn: {error}")
    return sections, problems


def _command() -> str:
    return " ".join(["cryopick", *sys.argv[1:]])


def _subtitle(micrographs: Micrographs) -> str:
    source = f"{micrographs.source}, " if micrographs.source else ""
    return f"{source}{time.strftime('%-d %B %Y, %H:%M')}"


def _facts(picking: PickingResult, extraction: ExtractionResult | None) -> list[Fact]:
    counts = np.array([m.n_picks for m in picking.picked])
    failed = len(picking.failed)
    facts = [
        Fact(
            label="Micrographs",
            value=f"{len(picking.picked):,}",
            note=f"{failed:,} more refused" if failed else "none refused",
        ),
        Fact(label="Picks", value=f"{int(counts.sum()):,}", note="above the threshold"),
    ]
    if len(counts):
        low, high = np.quantile(counts, [0.1, 0.9])
        facts.append(
            Fact(
                label="Per micrograph",
                value=f"{np.median(counts):.0f}",
                note=f"median; 80 % between {low:.0f} and {high:.0f}",
            )
        )
    if extraction is not None:
        lost = extraction.n_edge + extraction.n_outside + extraction.n_flat
        sizes = " and ".join(f"{s:.4g}" for s in extraction.pixel_sizes[:3])
        facts.append(
            Fact(
                label="Particles",
                value=f"{extraction.n_particles:,}",
                note=f"{lost:,} left out at edges" if lost else "all picks extracted",
            )
        )
        facts.append(
            Fact(
                label="Particle image",
                value=str(extraction.image_size),
                unit="px",
                note=f"of {sizes} Å",
            )
        )
    return facts


def _remarks(picking: PickingResult, extraction: ExtractionResult | None) -> list[str]:
    found = []
    empty = sum(not m.n_picks for m in picking.picked)
    refused = len(picking.failed) + (len(extraction.failures) if extraction else 0)
    if refused:
        found.append(f"{refused:,} {_plural(refused, 'item')} refused; the reasons are below.")
    if picking.picked and empty == len(picking.picked):
        found.append(
            "No micrograph gave a pick. Check the diameters, and whether particles are dark or "
            "white."
        )
    elif empty:
        found.append(f"{empty:,} {_plural(empty, 'micrograph')} without a pick.")
    masked = sum(m.valid_fraction < 0.5 for m in picking.picked)
    if masked:
        found.append(
            f"{masked:,} {_plural(masked, 'micrograph')} more than half masked as carbon, ice or "
            "damage."
        )
    return found


def _plural(count: int, noun: str) -> str:
    return f"{noun} was" if count == 1 else f"{noun}s were"
