"""What came in, what was kept and what was lost at each step of a run, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryopick.pipeline.run_story import counted
from cryopick.report.flow_block import FlowGroup, FlowRow

__all__ = ["run_flow"]

Facts = Mapping[str, Any]
_UNKNOWN = "not accounted for"  # never seen unless files were changed


def run_flow(facts: Mapping[str, Facts], *, n_micrographs: int) -> list[FlowGroup]:
    """Follow micrographs and picks through the steps that are done.

    In each group what a step kept is what came into the next one.

    Parameters
    ----------
    facts
        Numbers of the steps that are done, by name.
    n_micrographs
        In the table that the run was given.
    """
    groups = [FlowGroup(title="Micrographs", rows=_micrographs(facts, n_micrographs))]
    first = _round(facts, "first_")
    if first:
        n_tried = facts["first_picks"]["n_micrographs"] - facts["first_picks"]["n_failed"]
        training = facts.get("training")
        if training is not None:
            came = facts["first_selection"]["n_particles_selected"]
            rest = "not needed, or where nothing can be learned"
            first.append(_row("Learned from", came, _labels(training), {}, rest=rest))
        title = f"First particles, of {counted(n_tried, 'micrograph')}, to learn from"
        groups.append(FlowGroup(title=title, rows=first))
    final = _round(facts, "")
    if final:
        n_searched = facts["picks"]["n_micrographs"] - facts["picks"]["n_failed"]
        title = f"Final particles, of {counted(n_searched, 'micrograph')}"
        groups.append(FlowGroup(title=title, rows=final))
    return groups


def _micrographs(facts: Mapping[str, Facts], n_micrographs: int) -> list[FlowRow]:
    rows = [FlowRow(name="Given", kept=n_micrographs)]
    kept = n_micrographs
    for step, name in (("ctf", "CTF estimated"), ("picks", "Searched")):
        found = facts.get(step)
        if found is not None:
            refused = int(found["n_failed"])
            left = int(found["n_micrographs"]) - refused
            rows.append(_row(name, kept, left, {"refused": refused}, rest="not reached"))
            kept = left
    found = facts.get("picks")
    if found is not None:
        empty = int(found["n_without_picks"])
        rows.append(_row("With picks", kept, kept - empty, {"without a pick": empty}))
    return rows


def _round(facts: Mapping[str, Facts], prefix: str) -> list[FlowRow]:
    """Rows from picks to the particles of good classes."""
    picks, particles, classes, selection = (
        facts.get(f"{prefix}{name}") for name in ("picks", "particles", "classes", "selection")
    )
    if picks is None:
        return []
    if not prefix:
        picks = facts.get("consensus", picks)
    came = int(picks["n_picks"])
    rows = [FlowRow(name="Picked", kept=came)]
    if particles is None:
        return rows
    rows.append(_extracted(particles, came))
    accepted = None if prefix else facts.get("accepted")
    if accepted is not None:
        kept = int(accepted["n_particles"])
        lost = {"in rejected micrographs": rows[-1].kept - kept}
        rows.append(_row("In accepted micrographs", rows[-1].kept, kept, lost))
    if classes is None:
        return rows
    left_out, junk = int(classes["n_left_out"]), int(classes["n_junk"])
    kept = int(classes["n_particles"]) - junk
    if selection is not None:
        kept = int(selection["n_particles_in_classes"])
    why = {"that could not be classified": left_out, "like no class (junk)": junk}
    rows.append(_row("In a class", rows[-1].kept, kept, why))
    if selection is not None:
        rows.append(_selected(selection))
    return rows


def _extracted(facts: Facts, came: int) -> FlowRow:
    why = {
        "below the threshold": int(facts["n_below_fom"]),
        "over an edge": int(facts["n_edge"]),
        "outside": int(facts["n_outside"]),
        "without contrast": int(facts["n_flat"]),
    }
    rest = "in micrographs that were refused" if facts.get("failed") else _UNKNOWN
    if facts.get("n_unlisted"):
        rest = "in micrographs that are not listed"
    return _row("Extracted", came, int(facts["n_particles"]), why, rest=rest)


def _selected(facts: Facts) -> FlowRow:
    came, kept = int(facts["n_particles_in_classes"]), int(facts["n_particles_selected"])
    n_rejected = int(facts["n_occupied"]) - int(facts["n_selected"])
    classes = counted(n_rejected, "rejected class", "rejected classes")
    return _row("In good classes", came, kept, {f"in {classes}": came - kept})


def _labels(facts: Facts) -> int:
    if "n_labels" in facts:
        return int(facts["n_labels"])
    return int(facts["n_train_labels"]) + int(facts["n_held_out_labels"])


def _row(
    name: str, came: int, kept: int, why: Mapping[str, int], *, rest: str = _UNKNOWN
) -> FlowRow:
    """Make a row whose losses add up to what is missing."""
    losses = [(count, words) for words, count in why.items() if count]
    missing = came - kept - sum(count for count, _ in losses)
    if missing > 0:
        losses.append((missing, rest))
    return FlowRow(name=name, kept=kept, losses=losses)
