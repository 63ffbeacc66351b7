"""The report of a stream: its time line and the classes of its last round, in one file."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cryopick.io.atomic import write_text
from cryopick.pipeline.class2d_output import GALLERY
from cryopick.pipeline.stream_rounds import Round
from cryopick.report.blocks import chart_block, image_block, table_block, text_block
from cryopick.report.page import Fact, Html, Section, make_page
from cryopick.report.stream_chart import plot_stream

__all__ = ["write_stream_report"]

_EARLIER = 4  # rounds before the last one whose classes are shown


def write_stream_report(
    path: Path,
    rounds: Sequence[Round],
    *,
    status: Mapping[str, Any],
    classes: pd.DataFrame,
) -> None:
    """Write one self-contained HTML file on a stream.

    Parameters
    ----------
    path
        Of the HTML file.
    rounds
        All rounds, at least one.
    status
        As it stands in ``stream.json``.
    classes
        Table of the classes of the last round (`stream_output.class_table`).

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    last = rounds[-1].values
    is_closed = status["state"] == "closed"
    facts = [
        Fact(label="Particles", value=f"{last['n_particles']:,}", note=f"{last['n_junk']:,} junk"),
        Fact(label="Classes", value=f"{last['n_occupied']}", note=f"of {last['n_classes']}"),
        Fact(label="Resolution", value=f"{last['resolution']:.1f}", unit="Å", note="aligned"),
        Fact(label="Rounds", value=str(len(rounds)), note="closed" if is_closed else "still open"),
    ]
    page = make_page(
        title=f"Classes of {path.parent.resolve().name}",
        subtitle=time.strftime("%-d %B %Y, %H:%M"),
        facts=facts,
        remarks=_remarks(status, is_closed=is_closed),
        sections=[_time_line(rounds), _of_classes(rounds, classes), _command()],
    )
    write_text(path, page)


def _remarks(status: Mapping[str, Any], *, is_closed: bool) -> list[str]:
    found = [] if is_closed else ["Provisional: more particles may come."]
    if status["n_twice"]:
        found.append(f"{status['n_twice']:,} particles were named twice and taken once.")
    return found + [f"Refused: {sentence}" for sentence in status["refused"].values()]


def _time_line(rounds: Sequence[Round]) -> Section:
    values = [r.values for r in rounds]
    changed = [None if v["changed"] is None else v["changed"]["class"] for v in values]
    figure = plot_stream(
        [v["n_particles"] for v in values],
        junk=[v["n_junk"] for v in values],
        resolutions=[v["resolution"] for v in values],
        drifts=[v["drift"] for v in values],
        changed=changed,
    )
    table = pd.DataFrame(
        {
            "Round": [r.number for r in rounds],
            "What": [v["kind"] for v in values],
            "Particles": [v["n_particles"] for v in values],
            "New": [v["n_new"] for v in values],
            "Changed class": [_share(c) for c in changed],
            "Drift": [_share(v["drift"]) for v in values],
            "Merged": [v["merged"] for v in values],
            "Split": [v["split"] for v in values],
            "Seconds": [v["seconds"] for v in values],
        }
    )
    return Section(
        title="Time line",
        lead="After each round every particle has been assigned to one version of the averages.",
        blocks=[
            chart_block(figure, caption="", label="Particles, resolution and unrest by round"),
            table_block(table.iloc[::-1], right=("Changed class", "Drift")),
        ],
    )


def _share(value: float | None) -> str:
    return "\u2013" if value is None else f"{100 * value:.1f} %"


def _of_classes(rounds: Sequence[Round], classes: pd.DataFrame) -> Section:
    blocks: list[Html] = []
    for made in reversed(rounds[-1 - _EARLIER :]):
        picture = made.folder / GALLERY
        if picture.exists():
            with Image.open(picture) as image:
                pixels = np.asarray(image.convert("RGB"), np.uint8)
            words = f"Round {made.number}, {made.values['n_particles']:,} particles."
            blocks.append(image_block(pixels, caption=words, label=words, is_wide=True))
        if len(blocks) == 1:
            blocks.append(table_block(_shown(classes), right=("Drift",)))
    return Section(title="Classes", blocks=blocks)


def _shown(classes: pd.DataFrame) -> pd.DataFrame:
    rows = classes.sort_values("particle_count", ascending=False, kind="stable")
    return (
        pd.DataFrame(
            {
                "Class": rows["class_number"],
                "Particles": rows["particle_count"],
                "New": rows["new_particles"],
                "Before": rows["count_before"],
                "Resolution (Å)": rows["resolution"].where(np.isfinite(rows["resolution"])),
                "Drift": [_share(d if np.isfinite(d) else None) for d in rows["drift"]],
                "Split from": rows["split_from"].where(rows["split_from"] > 0).astype("Int64"),
                "Merged into": rows["merged_into"].where(rows["merged_into"] > 0).astype("Int64"),
            }
        )
        .astype({"Split from": object, "Merged into": object})
        .replace({pd.NA: None})
    )


def _command() -> Section:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return Section(title="Command", blocks=[text_block(command)])
