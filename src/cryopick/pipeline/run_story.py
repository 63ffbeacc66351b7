"""What each step of a run came to, in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cryopick.pipeline.runner import StepDone

__all__ = ["TITLES", "step_sentence"]

TITLES: Mapping[str, str] = {
    "ctf": "CTF",
    "diameter": "Diameter",
    "first_picks": "First picks",
    "first_particles": "First particles",
    "first_classes": "First classes",
    "first_selection": "Good first classes",
    "training": "Training",
    "picks": "Picks",
    "particles": "Particles",
    "classes": "Classes",
    "selection": "Good classes",
}


def step_sentence(step: StepDone) -> str:
    """Say what a step came to.

    Parameters
    ----------
    step
        That is done.
    """
    again = "" if step.is_new else " (done before)"
    return f"{TITLES[step.name]}: {_SENTENCES[step.name](step.facts)}{again}; {step.folder}"


def _ctf(facts: Mapping[str, Any]) -> str:
    return f"{facts['n_trusted']} of {facts['n_micrographs']} fits can be trusted"


def _diameter(facts: Mapping[str, Any]) -> str:
    return (
        f"{facts['diameter']:.0f} A, estimated; {facts['min_diameter']:.0f} to "
        f"{facts['max_diameter']:.0f} A are sought"
    )


def _picks(facts: Mapping[str, Any]) -> str:
    return f"{facts['n_picks']:,} in {facts['n_micrographs'] - facts['n_failed']} micrographs"


def _particles(facts: Mapping[str, Any]) -> str:
    lost = {
        "over an edge": facts["n_edge"],
        "outside": facts["n_outside"],
        "without contrast": facts["n_flat"],
        "below the threshold": facts["n_below_fom"],
    }
    words = ", ".join(f"{count:,} {why}" for why, count in lost.items() if count)
    return f"{facts['n_particles']:,} of {facts['image_size']} px" + (
        f"; left out: {words}" if words else ""
    )


def _classes(facts: Mapping[str, Any]) -> str:
    return (
        f"{facts['n_occupied']}, of {facts['n_particles']:,} particles, "
        f"{facts['n_junk']} of them junk, aligned to {facts['resolution']:.1f} A"
    )


def _selection(facts: Mapping[str, Any]) -> str:
    return (
        f"{facts['n_selected']} of {facts['n_classes']} classes with "
        f"{facts['n_particles_selected']:,} particles"
    )


def _training(facts: Mapping[str, Any]) -> str:
    if "average_precision" not in facts:
        return f"Topaz on {facts['n_labels']:,} particles"
    return (
        f"{facts['n_train_labels']:,} particles of {facts['n_train']} micrographs; average "
        f"precision {facts['average_precision']:.2f} on {facts['n_held_out']} held out"
    )


_SENTENCES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "ctf": _ctf,
    "diameter": _diameter,
    "first_picks": _picks,
    "first_particles": _particles,
    "first_classes": _classes,
    "first_selection": _selection,
    "training": _training,
    "picks": _picks,
    "particles": _particles,
    "classes": _classes,
    "selection": _selection,
}
