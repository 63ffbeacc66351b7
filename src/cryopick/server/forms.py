"""Forms for commands: which can be started from the page, and JSON schemas of their parameters.

The schemas are made from the same dataclasses as the options of the command line, and what comes
back is checked by them.
"""

from __future__ import annotations

import importlib
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from typing import Any, Literal

from cryopick.errors import ParameterError
from cryopick.parameters import ParameterDescription, Parameters, describe, option

__all__ = ["FORMS", "Form", "FormInput", "StableSize", "check_values", "flags_of", "schema_of"]

InputKind = Literal["micrographs", "picks", "labels", "particles", "templates", "classes", "model"]
_COMPUTE = "cryopick.execution.parameters.ComputeParameters"
_CTF = "cryopick.pipeline.picking_ctf_parameters.PickingCtfParameters"
_PLAIN_COMPUTE = frozenset({"device", "workers", "threads", "memory"})
_LONGEST = 1000  # characters
_LARGEST = 1e15  # number


@dataclass(frozen=True, kw_only=True)
class StableSize(Parameters):
    """Particle."""

    diameter: float = option(help="Diameter of the particle.", unit="A", above=0)


@dataclass(frozen=True, kw_only=True)
class FormInput:
    """Something that a command works on."""

    name: str
    title: str
    kind: InputKind
    flag: str = ""  # the option that names it; empty for an argument
    is_required: bool = True


@dataclass(frozen=True, kw_only=True)
class Form:
    """A command that can be started from the page."""

    command: str
    title: str
    about: str
    groups: tuple[str, ...]  # parameter dataclasses
    inputs: tuple[FormInput, ...]

    def parameters(self) -> list[type[Parameters]]:
        """Import the dataclasses."""
        found = []
        for name in self.groups:
            module, _, kind = name.rpartition(".")
            found.append(getattr(importlib.import_module(module), kind))
        return found


_FIELDS = FormInput(name="micrographs", title="Micrographs", kind="micrographs")
_PARTICLES = FormInput(name="particles", title="Particles", kind="particles")
_FORMS = (
    Form(
        command="run",
        title="Run",
        about="Do all steps, or those that the changed parameters make necessary.",
        groups=("cryopick.pipeline.run_parameters.RunParameters", _COMPUTE),
        inputs=(),
    ),
    Form(
        command="ctf estimate",
        title="Estimate the CTF",
        about="Defocus, astigmatism and phase shift from the rings of the spectrum.",
        groups=("cryopick.ctf.estimate_parameters.CtfParameters", _COMPUTE),
        inputs=(_FIELDS,),
    ),
    Form(
        command="pick blob",
        title="Pick blobs",
        about="Matched filters that see the CTF and the noise of each micrograph.",
        groups=("cryopick.picking.blob_parameters.BlobParameters", _CTF, _COMPUTE),
        inputs=(_FIELDS,),
    ),
    Form(
        command="pick log",
        title="Pick blobs without the lens",
        about="Laplacian of Gaussian, and the mode that does what RELION does.",
        groups=("cryopick.picking.log_parameters.LogParameters", _COMPUTE),
        inputs=(_FIELDS,),
    ),
    Form(
        command="pick template",
        title="Pick with templates",
        about="Find particles that look like class averages, at any rotation.",
        groups=("cryopick.picking.template_parameters.TemplateParameters", _CTF, _COMPUTE),
        inputs=(
            _FIELDS,
            FormInput(name="templates", title="Templates", kind="templates", flag="--templates"),
        ),
    ),
    Form(
        command="pick network",
        title="Pick with a network",
        about="The general network, or one that was trained on your particles.",
        groups=("cryopick.picking.network_parameters.NetworkParameters", _COMPUTE),
        inputs=(
            _FIELDS,
            FormInput(name="model", title="Model", kind="model", flag="--model", is_required=False),
        ),
    ),
    Form(
        command="pick train",
        title="Train the picker",
        about="Teach a network particles that were chosen, in classes or by hand.",
        groups=("cryopick.picking.network_parameters.NetworkTrainingParameters", _COMPUTE),
        inputs=(
            FormInput(name="labels", title="Particles to learn from", kind="labels"),
            FormInput(
                name="micrographs", title="Micrographs", kind="micrographs", flag="--micrographs"
            ),
        ),
    ),
    Form(
        command="extract",
        title="Extract particles",
        about="Cut particles out of micrographs and bring them to one grey scale.",
        groups=("cryopick.extraction.extraction_parameters.ExtractionParameters", _COMPUTE),
        inputs=(_FIELDS, FormInput(name="picks", title="Picks or particles", kind="picks")),
    ),
    Form(
        command="class2d em",
        title="Classify",
        about="2D classes by expectation-maximisation.",
        groups=("cryopick.class2d.em_parameters.ClassificationParameters",),
        inputs=(_PARTICLES,),
    ),
    Form(
        command="class2d stable",
        title="Stable classes",
        about="Only classes that come out again.",
        groups=(
            "cryopick.server.forms.StableSize",
            "cryopick.class2d.stable_parameters.StableOptions",
        ),
        inputs=(_PARTICLES,),
    ),
    Form(
        command="select classes",
        title="Score and select classes",
        about="Score the classes and keep the good ones with their particles.",
        groups=("cryopick.selection.select_classes_parameters.SelectClassesParameters",),
        inputs=(FormInput(name="classes", title="Classes", kind="classes"),),
    ),
)
FORMS: Mapping[str, Form] = {form.command: form for form in _FORMS}


def schema_of(form: Form) -> dict[str, Any]:
    """Make the JSON schema (2020-12) of the parameters of a command."""
    properties: dict[str, Any] = {}
    required = []
    for group in form.parameters():
        title = (group.__doc__ or group.__name__).splitlines()[0].rstrip(".")
        for one in _offered(group):
            properties[one.name] = _property(one, title)
            if one.is_required:
                required.append(one.name)
    return {"type": "object", "properties": properties, "required": required}


def check_values(form: Form, given: Mapping[str, Any]) -> list[Parameters]:
    """Check values as the command line would, and give the filled dataclasses.

    Raises
    ------
    ParameterError
        If a name is unknown, or a value of another type or out of its range.
    """
    groups = form.parameters()
    known = {one.name: one for group in groups for one in _offered(group)}
    for name, value in given.items():
        if name not in known:
            raise ParameterError(
                str(name)[:50],
                must=f"be a parameter of {form.command}",
                got="an unknown name",
                remedy=f"Known are {', '.join(known)}",
            )
        _require_type(known[name], value)
    filled = []
    for group in groups:
        names = {one.name for one in _offered(group)}
        values = {n: v for n, v in given.items() if n in names}
        lacking = [o.name for o in _offered(group) if o.is_required and o.name not in values]
        if lacking:
            raise ParameterError(
                lacking[0], must="be given", got="nothing", remedy=f"Fill in {lacking[0]}"
            )
        filled.append(group.from_dict(values))
    return filled


def flags_of(filled: Parameters, *, is_whole: bool = False) -> list[str]:
    """Write the parameters that differ from what is shipped as options of the command line.

    Parameters
    ----------
    filled
        The dataclass.
    is_whole
        All of its parameters, those too that no form offers.
    """
    words: list[str] = []
    for one in describe(type(filled)) if is_whole else _offered(type(filled)):
        value = getattr(filled, one.name)
        if value is None or (not one.is_required and value == one.default):
            continue
        if isinstance(value, bool):
            words.append(one.flag if value else f"--no-{one.flag.removeprefix('--')}")
        elif isinstance(value, tuple):
            words += [f"{one.flag}={single}" for single in value]
        else:
            words.append(f"{one.flag}={value}")
    return words


def _offered(group: type[Parameters]) -> list[ParameterDescription]:
    """List the parameters of a group that a form has; of the machine only the plain ones."""
    everything = describe(group)
    if group.__name__ == "ComputeParameters":
        return [one for one in everything if one.name in _PLAIN_COMPUTE]
    return list(everything)


def _property(one: ParameterDescription, group: str) -> dict[str, Any]:
    kind = _kind(one)
    is_optional = one.annotation is not one.base_type
    found: dict[str, Any] = {
        "title": one.name.replace("_", " ").capitalize(),
        "description": one.help,
        "x-unit": one.unit,
        "x-flag": one.flag,
        "x-group": group,
    }
    if one.choices:
        found["enum"] = [*one.choices, *([None] if is_optional else [])]
    elif kind == "array":
        (single, *_) = typing.get_args(one.base_type)
        found |= {"type": "array", "items": {"type": _WORDS[single]}}
    else:
        found["type"] = [kind, "null"] if is_optional else kind
    limits = {
        "minimum": one.minimum,
        "maximum": one.maximum,
        "exclusiveMinimum": one.above,
        "exclusiveMaximum": one.below,
        "multipleOf": 2 if one.even else None,
    }
    found |= {name: value for name, value in limits.items() if value is not None}
    if one.default is not MISSING:
        found["default"] = list(one.default) if isinstance(one.default, tuple) else one.default
    return found


_WORDS: Mapping[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}


def _kind(one: ParameterDescription) -> str:
    if typing.get_origin(one.base_type) is tuple:
        return "array"
    return _WORDS.get(one.base_type, "string")


def _require_type(one: ParameterDescription, value: Any) -> None:
    if value is None and one.annotation is not one.base_type:
        return
    kind = _kind(one)
    singles = value if kind == "array" and isinstance(value, list) else [value]
    base = typing.get_args(one.base_type)[0] if kind == "array" else one.base_type
    allowed = {int: (int,), float: (int, float), bool: (bool,)}.get(base, (str,))
    is_right = (kind == "array") == isinstance(value, list) and all(
        isinstance(v, allowed)
        and (not isinstance(v, bool) or base is bool)
        and (isinstance(v, str) or abs(v) < _LARGEST)
        and (not isinstance(v, str) or (len(v) <= _LONGEST and v.isprintable()))
        for v in singles
    )
    if not is_right:
        word = "a list" if kind == "array" else f"a {kind}"
        raise ParameterError(
            one.name, must=f"be {word}", got=repr(value)[:50], remedy=f"Change {one.flag}"
        )
