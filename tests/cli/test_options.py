from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner

from cryopick.cli.options import expand_parameters
from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, describe, option


@dataclass(frozen=True, kw_only=True)
class Cutting(Parameters):
    """Cutting of boxes."""

    box_size: int = option(help="Side of a box.", unit="px", minimum=2, even=True)
    scale: float = option(1.5, help="Scale.", above=0)
    limit: float | None = option(None, help="Limit.", unit="A")
    edges: Literal["drop", "keep"] = option("drop", help="At an edge.")
    mode: Literal["a", "b"] | None = option(None, help="Mode.")
    normalize: bool = option(default=True, help="Normalise.")
    dust: bool | None = option(None, help="Dust.")
    names: tuple[str, ...] = option((), help="Names.")


@dataclass(frozen=True, kw_only=True)
class Machine(Parameters):
    """The machine."""

    workers: int = option(0, help="Processes.", minimum=0)


class App:
    """A command with two groups of parameters, and what it was called with."""

    def __init__(self):
        self.calls = []
        self.app = typer.Typer(rich_markup_mode=None)
        self.app.command()(expand_parameters(self._make()))

    def _make(self):
        def command(
            file: str,
            *,
            cutting: Cutting,
            machine: Machine,
            out: Annotated[str, typer.Option(help="Folder.")] = "here",
        ) -> None:
            """Cut."""
            self.calls.append((file, cutting, machine, out))

        command.__annotations__ = inspect.get_annotations(command, eval_str=True)
        return command

    def __call__(self, *words):
        return CliRunner().invoke(self.app, words)


@pytest.fixture
def cut():
    return App()


def test_fields_become_options_and_are_handed_over_filled_in(cut):
    words = ["f.mrc", "--box-size", "64", "--scale", "2", "--limit", "3.5", "--edges", "keep"]
    words += ["--mode", "b", "--no-normalize", "--dust", "--names", "x", "--names", "y"]
    result = cut(*words, "--workers", "3", "--out", "there")

    assert result.exit_code == 0, result.output
    cutting = Cutting(
        box_size=64,
        scale=2.0,
        limit=3.5,
        edges="keep",
        mode="b",
        normalize=False,
        dust=True,
        names=("x", "y"),
    )
    assert cut.calls == [("f.mrc", cutting, Machine(workers=3), "there")]
    assert type(cut.calls[0][1].edges) is str
    assert type(cut.calls[0][1].mode) is str


def test_options_left_out_have_the_shipped_values(cut):
    assert cut("f.mrc", "--box-size", "64").exit_code == 0

    assert cut.calls == [("f.mrc", Cutting(box_size=64), Machine(), "here")]


def test_an_option_without_a_shipped_value_must_be_given(cut):
    result = cut("f.mrc")

    assert result.exit_code == 2
    assert "Missing option '--box-size'" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--edges", "fold"], "'fold' is not one of 'drop', 'keep'"),
        (["--mode", "c"], "'c' is not one of 'a', 'b'"),
        (["--scale", "wide"], "--scale"),
    ],
)
def test_words_of_the_wrong_kind_are_wrong_usage(cut, words, message):
    result = cut("f.mrc", "--box-size", "64", *words)

    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert cut.calls == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--box-size", "63"],
            "box_size must be an even number; got 63 px. Try 64.",
        ),
        (["--scale", "0"], "scale must be above 0; got 0.0. Change --scale."),
        (["--scale", "nan"], "scale must be a number; got nan. Change --scale."),
        (["--workers", "-1"], "workers must be at least 0; got -1. Change --workers."),
    ],
)
def test_values_out_of_range_are_refused_by_the_parameters(cut, words, sentence):
    result = cut("f.mrc", "--box-size", "64", *words)

    assert isinstance(result.exception, ParameterError)
    assert str(result.exception) == sentence
    assert cut.calls == []


def test_the_help_shows_unit_default_and_choices(cut):
    text = " ".join(cut("--help").output.split())

    assert "Side of a box. [px]" in text
    assert "[default: 1.5]" in text
    assert "drop" in text
    assert "keep" in text
    assert "--normalize" in text
    assert "--no-normalize" in text


def test_every_field_has_exactly_one_option():
    def command(*, cutting: Cutting, machine: Machine) -> None:
        """Cut."""

    command.__annotations__ = inspect.get_annotations(command, eval_str=True)
    names = list(inspect.signature(expand_parameters(command)).parameters)

    assert sorted(names) == sorted(d.name for g in (Cutting, Machine) for d in describe(g))
