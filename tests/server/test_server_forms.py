"""Forms of the page: each is a command of cryopick with its own options, and checks like it."""

from __future__ import annotations

import json

import pytest
import typer.main

from cryopick.cli.app import app
from cryopick.errors import ParameterError
from cryopick.server.forms import FORMS, check_values, flags_of, schema_of

NAMES = sorted(FORMS)


def command_of(name):
    found = typer.main.get_command(app)
    for word in name.split():
        found = found.commands[word]
    return found


def options_of(command):
    return {flag: p for p in command.params for flag in (*p.opts, *p.secondary_opts)}


def required_values(form):
    return {
        name: {"number": 100.0, "integer": 64}[said["type"]]
        for name, said in schema_of(form)["properties"].items()
        if name in schema_of(form)["required"]
    }


@pytest.mark.parametrize("name", NAMES)
def test_each_form_has_options_of_its_command_only(name):
    form, options = FORMS[name], options_of(command_of(name))
    schema = schema_of(form)

    assert json.loads(json.dumps(schema)) == schema
    for said in schema["properties"].values():
        assert said["x-flag"] in options
    for one in form.inputs:
        assert not one.flag or one.flag in options
    arguments = [p for p in command_of(name).params if p.param_type_name == "argument"]
    assert len(arguments) == len([i for i in form.inputs if not i.flag]) or name == "run"


@pytest.mark.parametrize("name", NAMES)
def test_the_options_that_a_form_writes_say_what_was_filled_in(name):
    """The command line is read back by the command itself."""
    form = FORMS[name]
    given = required_values(form)
    for key, said in schema_of(form)["properties"].items():
        if said.get("type") == "boolean":
            given[key] = not said["default"]
    try:
        filled = check_values(form, given)
    except ParameterError:  # switches that exclude one another
        filled = check_values(form, given := required_values(form))
    flags = [flag for group in filled for flag in flags_of(group)]
    words = ["x" for i in form.inputs if not i.flag] or ["x"]
    others = [w for i in form.inputs if i.flag for w in (i.flag, "x")]
    command = command_of(name)
    context = command.make_context(name, [*words, *others, "--out", "y", *flags])

    for key, value in given.items():
        read = context.params[key]
        assert getattr(read, "value", read) == value, key


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("box_size", "64; rm -rf /"), ("box_size", 63), ("box_size", True), ("box_size", None),
        ("out", "/etc"), ("--out", "x"), ("box_size", 10**400), ("scratch", "/tmp"),
    ],
    ids=range(8),
)  # fmt: skip
def test_what_is_no_value_of_a_parameter_is_refused(name, value):
    with pytest.raises(ParameterError):
        check_values(FORMS["extract"], {"box_size": 64, name: value})


def test_text_is_one_word_of_the_command_line():
    (filled, *_) = check_values(FORMS["select classes"], {"classes": "1,2"})
    assert flags_of(filled) == ["--classes=1,2"]
    with pytest.raises(ParameterError):
        check_values(FORMS["select classes"], {"classes": "1 --out=/etc"})
