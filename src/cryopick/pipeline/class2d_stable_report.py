"""The report of a stable classification: classes in order, generations, centring, parameters."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.class2d.ordering import Ordering
from cryopick.class2d.stable_state import StableState
from cryopick.io.atomic import write_text
from cryopick.parameters import describe
from cryopick.pipeline.class2d_stable_tables import Outcome
from cryopick.report.accounted_chart import plot_accounted
from cryopick.report.blocks import (
    Command,
    chart_block,
    command_block,
    grid_block,
    image_block,
    table_block,
)
from cryopick.report.class_cards import ClassCard, class_cards_block
from cryopick.report.page import Fact, Html, Section, make_page
from cryopick.report.pictures import spread_contrast

__all__ = ["generation_rows", "write_stable_report"]

_MOST_CARDS = 400


def write_stable_report(
    path: Path, outcome: Outcome, table: pd.DataFrame, *, ordering: Ordering | None
) -> None:
    """Write one self-contained HTML file.

    Parameters
    ----------
    path
        Of the HTML file.
    outcome
        Of the run.
    table
        Accepted classes, from `class_rows`; empty without any.
    ordering
        Of these; None shows them as they were found.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    n, n_members = len(outcome.source), int((outcome.label >= 0).sum())
    shrink = outcome.shrink
    facts = [
        Fact(label="Classes", value=str(len(outcome.accepted)), note="accepted"),
        Fact(label="Images", value=f"{n:,}"),
        Fact(label="In a class", value=f"{100 * n_members / n:.1f}", unit="%",
             note=f"{n_members:,}"),
        Fact(label="Pixel", value=f"{shrink.pixel_size:.2f}", unit="Å", note="when compared"),
    ]  # fmt: skip
    page = make_page(
        title=f"Stable classes of {path.parent.resolve().name}",
        subtitle=time.strftime("%-d %B %Y, %H:%M"),
        facts=facts,
        remarks=[] if len(outcome.accepted) else ["No class was stable and reproducible."],
        sections=[
            _classes(outcome, table, ordering),
            _generations(outcome),
            _centring(outcome),
            _command(outcome),
        ],
    )
    write_text(path, page)


def _classes(outcome: Outcome, table: pd.DataFrame, ordering: Ordering | None) -> Section:
    order = np.arange(len(table)) if ordering is None else ordering.order
    limit = outcome.parameters.pixel_error_limit
    cards = [_card(outcome, table.iloc[int(place)]) for place in order[:_MOST_CARDS]]
    words = "in an order in which neighbours look alike" if ordering is not None else "as found"
    lead = (
        f"Accepted classes, {words}. Bold: reproducibility, the mean Jaccard index of the class "
        f"in independent partitions. Pixel error: the scatter of poses of stable members in "
        f"repeated alignments, px; below {limit:.2f} an image is stable. Stable: share of the "
        "images that fit the class."
    )
    more = len(order) - len(cards)
    blocks = [class_cards_block("", cards), table_block(_shown(table))] if cards else []
    if more > 0:
        lead += f" The first {_MOST_CARDS} are shown; {more:,} more are in class_averages.hdf."
    return Section(title="Classes", lead=lead, blocks=blocks)


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers of the classes, the most reproducible first."""
    rows = table.sort_values("cryopickReproducibility", ascending=False, kind="stable")
    return pd.DataFrame(
        {
            "Class": rows["rlnClassNumber"],
            "Images": rows["cryopickParticleCount"],
            "Reproducibility": rows["cryopickReproducibility"].round(3),
            "Pixel error (px)": rows["cryopickPixelError"].round(3),
            "Stable": rows["cryopickStableShare"].round(3),
            "Resolution (Å)": rows["rlnEstimatedResolution"]
            .where(np.isfinite(rows["rlnEstimatedResolution"]))
            .round(1),
            "Found in": [
                f"{m}.{g}"
                for m, g in zip(
                    rows["cryopickMainIteration"], rows["cryopickGeneration"], strict=True
                )
            ],
        }
    )


def _card(outcome: Outcome, row: pd.Series) -> ClassCard:
    number = int(row["rlnClassNumber"])
    return ClassCard(
        number=number,
        pixels=spread_contrast(outcome.averages[number - 1]),
        score=f"{row['cryopickReproducibility']:.2f}",
        share=float(np.clip(row["cryopickReproducibility"], 0, 1)),
        details=[
            f"{int(row['cryopickParticleCount']):,} images",
            f"{row['cryopickPixelError']:.2f} px",
        ],
        reasons=(),
        is_selected=True,
    )


def generation_rows(state: StableState) -> pd.DataFrame:
    """One row for each generation: what it has found, and the share of images in a class after it.

    Generations without a candidate have left no class; their place is known from the others.
    """
    classes, rows = state.classes, []
    main, generation = 1, 1
    for share in state.accounted.tolist():
        here = (classes.main == main) & (classes.generation == generation)
        accepted = here & classes.is_accepted
        rows.append(
            {
                "Main iteration": main,
                "Generation": generation,
                "Candidates": int(here.sum()),
                "Accepted": int(accepted.sum()),
                "Images": int(classes.n_members[accepted].sum()),
                "In a class": round(float(share), 4),
            }
        )
        main, generation = (main, generation + 1) if accepted.any() else (main + 1, 1)
    return pd.DataFrame(rows)


def _generations(outcome: Outcome) -> Section:
    rows = generation_rows(outcome.state)
    blocks: list[Html] = []
    if len(rows):
        names = [
            f"{m}.{g}" for m, g in zip(rows["Main iteration"], rows["Generation"], strict=True)
        ]
        chart = plot_accounted(rows["In a class"].tolist(), names)
        shown = rows.assign(**{"In a class": [f"{100 * s:.1f} %" for s in rows["In a class"]]})
        blocks = [
            chart_block(chart, caption="", label="Share of the images in a class by generation"),
            table_block(shown, right=("In a class",)),
        ]
    lead = (
        "Each generation works on the images that are in no class yet. A main iteration ends "
        "with a generation that finds no class, the run with one that begins so."
    )
    return Section(title="Generations", lead=lead, blocks=blocks)


def _centring(outcome: Outcome) -> Section:
    average: NDArray[np.float32] = outcome.state.global_average.numpy()
    blocks = []
    if average.any():
        words = "Average of all images after the prealignment; it should be centred."
        picture = image_block(spread_contrast(average), caption=words, label=words, is_sharp=True)
        blocks = [grid_block([picture], columns=3)]
    return Section(title="Centring", blocks=blocks)


def _command(outcome: Outcome) -> Section:
    parameters = outcome.parameters
    block = command_block(
        Command(
            name="class2d stable",
            command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            outcome=f"{len(outcome.accepted)} classes.",
            parameters=parameters.to_dict(),
            units={d.name: d.unit for d in describe(type(parameters)) if d.unit},
        )
    )
    return Section(title="Command", blocks=[block])
