"""The steps of an unattended run, and which parameters each depends on."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from cryopick.errors import ParameterError
from cryopick.pipeline.planner import Step
from cryopick.pipeline.run_parameters import ALSO_PICKERS, RunParameters

__all__ = ["TRIED_FOR_DIAMETER", "run_graph", "step_parameters"]

TRIED_FOR_DIAMETER = 8  # micrographs, the first; of these a few are tried
_VERSION = 1  # of what the steps do; another makes results of before outdated
_SIZES = ("diameter", "min_diameter", "max_diameter")
_LENS = ("voltage", "spherical_aberration", "amplitude_contrast")
_CUT = ("white_particles", "float16", *_SIZES)
_DEPENDS: Mapping[str, tuple[str, ...]] = {
    "ctf": _LENS,
    "diameter": ("white_particles", "ctf", *_LENS),
    "first_picks": ("first_picker", "white_particles", "subset", "ctf", *_SIZES, *_LENS),
    "first_particles": ("coarse_pixel_size", *_CUT),
    "first_classes": ("first_classes", "ctf", "seed", *_SIZES),
    "first_selection": ("minimum_score",),
    "training": ("picker", "training_steps", "white_particles", "seed", *_SIZES),
    "picks": ("picker", "training", "white_particles", "ctf", *_SIZES, *_LENS),
    **{f"{kind}_picks": ("white_particles", "ctf", *_SIZES, *_LENS) for kind in ALSO_PICKERS},
    "consensus": ("consensus", "white_particles", "seed", *_SIZES),
    "particles": ("threshold", "box_size", "rescale", *_CUT),
    "accepted": (),
    "classes": ("classes", "ctf", "seed", *_SIZES),
    "selection": ("minimum_score",),
}
_SHIPPED = {  # weights of the package that a step uses
    "training": ("picking", "general_picker.npz"),
    "picks": ("picking", "general_picker.npz"),
    "general_picks": ("picking", "general_picker.npz"),
    "consensus": ("picking", "general_picker.npz"),
    "first_selection": ("selection", "class_scores.npz"),
    "selection": ("selection", "class_scores.npz"),
}
_SETS = (
    *("diameter", "first_classes", "first_selection", "training"),
    *("consensus", "accepted", "classes", "selection"),
)


def step_parameters(
    name: str, parameters: RunParameters, *, pixel_size: float | None
) -> dict[str, Any]:
    """Values that the results of a step depend on, beside what the steps before it made."""
    values = parameters.to_dict()
    return {n: values[n] for n in _DEPENDS[name]} | {"pixel_size": pixel_size}


def run_graph(
    parameters: RunParameters, *, has_ctf: bool, pixel_size: float | None, choices: str = ""
) -> tuple[Step, ...]:
    """Make the steps of a run, in order.

    Parameters
    ----------
    parameters
        Of the run.
    has_ctf
        Whether the table of the micrographs says the CTF of each.
    pixel_size
        A/px of all micrographs, where the user says it.
    choices
        Names what people have chosen of the micrographs, where they have; those that they reject
        are left out of the classes.

    Raises
    ------
    ParameterError
        If the run is to end with a step that it does not have.
    """
    needs = _needs(parameters, has_ctf=has_ctf, has_choices=bool(choices))
    if parameters.until not in needs:
        raise ParameterError(
            "until",
            must=f"name a step of this run, one of {', '.join(needs)}",
            got=parameters.until,
            remedy="Change --until",
        )
    names = list(needs)
    steps = []
    for name in names[: names.index(parameters.until) + 1]:
        values = step_parameters(name, parameters, pixel_size=pixel_size)
        shipped = _digest_of(_SHIPPED[name]) if name in _SHIPPED else ""
        said = [_VERSION, values, shipped, *([choices] if name == "accepted" else [])]
        text = json.dumps(said, sort_keys=True)
        firsts = {"diameter": TRIED_FOR_DIAMETER, "first_picks": parameters.subset}
        steps.append(
            Step(
                name=name,
                digest=hashlib.sha256(text.encode()).hexdigest()[:16],
                needs=needs[name],
                is_set=name in _SETS,
                first=firsts.get(name),
            )
        )
    return tuple(steps)


@functools.cache
def _digest_of(weights: tuple[str, str]) -> str:
    package, name = weights
    found = resources.files(f"cryopick.{package}") / name
    return hashlib.sha256(found.read_bytes()).hexdigest()[:16]


def _needs(
    parameters: RunParameters, *, has_ctf: bool, has_choices: bool
) -> dict[str, tuple[str, ...]]:
    """List steps in order, and the steps before them that they need."""
    needs: dict[str, tuple[str, ...]] = {}
    base: tuple[str, ...] = ()
    if parameters.ctf == "auto" and not has_ctf:
        needs["ctf"] = ()
        base = ("ctf",)
    if parameters.sizes is None:
        needs["diameter"] = base
        base = (*base, "diameter")
    learned = base
    if parameters.is_trained:
        needs["first_picks"] = base
        needs["first_particles"] = ("first_picks", *base)
        needs["first_classes"] = ("first_particles",)
        needs["first_selection"] = ("first_classes",)
        learned = (*base, "first_selection")
        if parameters.picker != "template":
            needs["training"] = ("first_selection",)
            learned = (*base, "training")
    needs["picks"] = learned
    picked: tuple[str, ...] = ("picks",)
    if parameters.also_pickers:
        others = tuple(f"{kind}_picks" for kind in parameters.also_pickers)
        needs |= dict.fromkeys(others, base)
        needs["consensus"] = ("picks", *others, *base)
        picked = ("consensus",)
    needs["particles"] = (*picked, *base)
    if has_choices:
        needs["accepted"] = ("particles", *picked, *(name for name in base if name == "ctf"))
    needs["classes"] = ("accepted",) if has_choices else ("particles",)
    needs["selection"] = ("classes",)
    return needs
