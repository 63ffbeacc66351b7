"""The numbers and remarks at the head of the report of a run."""

from __future__ import annotations

import contextlib

from cryopick.errors import CryopickError
from cryopick.pipeline.picking_files import read_picking
from cryopick.pipeline.report_source import PICKINGS, ReportSource
from cryopick.pipeline.run_story import TITLES
from cryopick.report.page import Fact

__all__ = ["run_facts", "run_remarks"]


def run_facts(source: ReportSource, *, n_micrographs: int) -> list[Fact]:
    """Gather the numbers that a reader wants first; those of steps that are not done are left out.

    Parameters
    ----------
    source
        The run.
    n_micrographs
        In its table.
    """
    refused = {name for s in source.steps.values() for name in s.facts.get("failed") or {}}
    note = f"{len(refused):,} refused" if refused else "none refused"
    facts = [Fact(label="Micrographs", value=f"{n_micrographs:,}", note=note)]
    name = next((n for n in ("picks", "first_picks") if n in source.steps), None)
    if name is not None:
        picks = source.steps[name].facts
        mean = int(picks["n_picks"]) / max(int(picks["n_micrographs"]) - int(picks["n_failed"]), 1)
        words = f"{mean:.0f} in a micrograph"
        facts.append(Fact(label=TITLES[name], value=f"{picks['n_picks']:,}", note=words))
    facts += _of_particles(source)
    sizes = source.sizes
    if sizes is not None:
        words = "estimated" if "diameter" in source.steps else "as given"
        facts.append(Fact(label="Diameter", value=f"{sizes.diameter:.0f}", unit="Å", note=words))
    for name in ("classes", "first_classes"):
        if name in source.steps:
            value = f"{source.steps[name].facts['resolution']:.1f}"
            words = f"of the {TITLES[name].lower()}"
            facts.append(Fact(label="Resolution", value=value, unit="Å", note=words))
            break
    return facts


def _of_particles(source: ReportSource) -> list[Fact]:
    particles, selection = source.facts("particles"), source.facts("selection")
    if particles is None:
        return []
    size = f"of {particles['image_size']} px"
    if selection is None:
        return [Fact(label="Particles", value=f"{particles['n_particles']:,}", note=size)]
    kept, total = int(selection["n_particles_selected"]), int(particles["n_particles"])
    good = f"{selection['n_selected']} of {selection['n_occupied']}"
    return [
        Fact(label="Particles", value=f"{kept:,}", note=f"selected of {total:,}, {size}"),
        Fact(label="Good classes", value=good),
    ]


def run_remarks(source: ReportSource) -> list[str]:
    """Say what the reader should look after."""
    found = []
    ctf = source.facts("ctf")
    if ctf is not None:
        doubted = int(ctf["n_micrographs"]) - int(ctf["n_failed"]) - int(ctf["n_trusted"])
        if doubted:
            found.append(f"{_count(doubted)} a CTF that cannot be trusted.")
    for name in PICKINGS:
        if name in source.steps:
            found += _of_picking(source, name)
    for name, step in source.steps.items():
        found += [f"{TITLES[name]}: {words}" for words in step.facts.get("warnings") or ()]
    refused = sum(len(s.facts.get("failed") or {}) for s in source.steps.values())
    if refused:
        found.append(f"{_count(refused, 'was', 'were')} refused; the reasons are below.")
    return found


def _of_picking(source: ReportSource, name: str) -> list[str]:
    step, words = source.steps[name], PICKINGS[name]
    n_picked = int(step.facts["n_micrographs"]) - int(step.facts["n_failed"])
    empty = int(step.facts["n_without_picks"])
    found = []
    if n_picked and empty == n_picked:
        found.append(
            f"{words}: no micrograph gave a pick. Check the diameters, and whether particles are "
            "dark or white."
        )
    elif empty:
        found.append(f"{words}: {_count(empty)} no pick.")
    masked = 0
    with contextlib.suppress(CryopickError):  # the section of the fields says so
        masked = sum(m.valid_fraction < 0.5 for m in read_picking(step.folder).picked)
    if masked:
        verb = _count(masked, "is", "are")
        found.append(f"{words}: {verb} more than half masked as carbon, ice or damage.")
    return found


def _count(count: int, one: str = "has", many: str = "have") -> str:
    return f"1 micrograph {one}" if count == 1 else f"{count:,} micrographs {many}"
