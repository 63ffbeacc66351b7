"""What each step of a run came to, in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cryopick.pipeline.run_parameters import ALSO_PICKERS
from cryopick.pipeline.runner import StepDone

__all__ = ["TITLES", "counted", "duration", "step_result", "step_sentence"]

TITLES: Mapping[str, str] = {
    "ctf": "CTF",
    "diameter": "Diameter",
    "first_picks": "First picks",
    "first_particles": "First particles",
    "first_classes": "First classes",
    "first_selection": "Good first classes",
    "training": "Training",
    "picks": "Picks",
    "blob_picks": "Picks of the blob picker",
    "log_picks": "Picks of the LoG picker",
    "general_picks": "Picks of the general network",
    "topaz_picks": "Picks of Topaz",
    "consensus": "Consensus",
    "particles": "Particles",
    "accepted": "Accepted micrographs",
    "classes": "Classes",
    "selection": "Good classes",
}


def step_sentence(step: StepDone) -> str:
    """Say in one line what a step came to, where its results lie and how long it took.

    Parameters
    ----------
    step
        That is done.
    """
    how = duration(step.seconds) if step.is_new else "done before"
    return f"{TITLES[step.name]}: {step_result(step)} ({how}); {step.folder}"


def step_result(step: StepDone) -> str:
    """Say what a step came to.

    Parameters
    ----------
    step
        That is done.
    """
    return _RESULTS[step.name](step.facts)


def duration(seconds: float) -> str:
    """Write a time as people say it.

    Examples
    --------
    >>> duration(3.94), duration(250.6), duration(7700)
    ('3.9 s', '4 min 11 s', '2 h 8 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def counted(count: int, one: str, many: str = "") -> str:
    """Write a number of things.

    Examples
    --------
    >>> counted(1, "class", "classes"), counted(1200, "pick")
    ('1 class', '1,200 picks')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _ctf(facts: Mapping[str, Any]) -> str:
    words = f"{facts['n_trusted']:,} of {facts['n_micrographs']:,} fits can be trusted"
    return words + (f", {facts['n_failed']:,} refused" if facts["n_failed"] else "")


def _diameter(facts: Mapping[str, Any]) -> str:
    return (
        f"estimated as {facts['diameter']:.0f} Å; {facts['min_diameter']:.0f} to "
        f"{facts['max_diameter']:.0f} Å are picked"
    )


def _picks(facts: Mapping[str, Any]) -> str:
    n_picked = facts["n_micrographs"] - facts["n_failed"]
    words = f"{counted(facts['n_picks'], 'pick')} in {counted(n_picked, 'micrograph')}"
    return words + (f", {facts['n_failed']:,} refused" if facts["n_failed"] else "")


def _particles(facts: Mapping[str, Any]) -> str:
    lost = {
        "below the threshold": facts["n_below_fom"],
        "over an edge": facts["n_edge"],
        "outside": facts["n_outside"],
        "without contrast": facts["n_flat"],
    }
    words = ", ".join(f"{count:,} {why}" for why, count in lost.items() if count)
    size = facts["image_size"]
    return f"{counted(facts['n_particles'], 'particle')} of {size} px" + (
        f"; left out: {words}" if words else ""
    )


def _accepted(facts: Mapping[str, Any]) -> str:
    return (
        f"{facts['n_accepted']:,} of {counted(facts['n_micrographs'], 'micrograph')}, with "
        f"{facts['n_particles']:,} of {counted(facts['n_particles_given'], 'particle')}"
    )


def _classes(facts: Mapping[str, Any]) -> str:
    junk = f" ({facts['n_junk']:,} in the class of junk)" if facts["n_junk"] else ""
    return (
        f"{counted(facts['n_particles'], 'particle')}{junk} in {facts['n_occupied']:,} classes, "
        f"aligned to {facts['resolution']:.1f} Å"
    )


def _selection(facts: Mapping[str, Any]) -> str:
    return (
        f"{facts['n_selected']:,} of {counted(facts['n_occupied'], 'class', 'classes')}, with "
        f"{facts['n_particles_selected']:,} of {counted(facts['n_particles'], 'particle')}"
    )


def _training(facts: Mapping[str, Any]) -> str:
    if "n_labels" in facts:  # of Topaz
        return (
            f"learned from {counted(facts['n_labels'], 'particle')} in "
            f"{counted(facts['n_train'], 'micrograph')}, tested on {facts['n_test']:,}"
        )
    return (
        f"learned from {counted(facts['n_train_labels'], 'particle')} in "
        f"{counted(facts['n_train'], 'micrograph')}; average precision "
        f"{facts['average_precision']:.2f} on {facts['n_held_out']:,} held out"
    )


_RESULTS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "ctf": _ctf,
    "diameter": _diameter,
    "first_picks": _picks,
    "first_particles": _particles,
    "first_classes": _classes,
    "first_selection": _selection,
    "training": _training,
    "picks": _picks,
    **{f"{kind}_picks": _picks for kind in ALSO_PICKERS},
    "consensus": _picks,
    "particles": _particles,
    "accepted": _accepted,
    "classes": _classes,
    "selection": _selection,
}
