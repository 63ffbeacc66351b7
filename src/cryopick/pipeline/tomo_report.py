"""The page of a picking job in tomograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryopick.io.atomic import write_text
from cryopick.parameters import describe
from cryopick.pipeline.tomo_pick_output import WrittenPicks
from cryopick.pipeline.tomo_pick_task import read_found
from cryopick.report.blocks import Command, chart_block, command_block, grid_block, table_block
from cryopick.report.page import Fact, Html, Section, make_page
from cryopick.report.tomogram_charts import draw_sections, plot_by_kind, plot_features
from cryopick.tomogram.locate_parameters import TomogramPickParameters

__all__ = ["write_tomogram_report"]

_SHOWN = 6  # tomograms with slices
_DEPTH = 5  # sections in a slice


def write_tomogram_report(
    path: Path,
    tomograms: Sequence[Mapping[str, Any]],
    written: WrittenPicks,
    *,
    parameters: TomogramPickParameters,
    folder: Path,
) -> None:
    """Write the page: slices with picks, sizes, scores and kinds.

    Parameters
    ----------
    path
        Of the page.
    tomograms
        What became of those that were picked.
    written
        Their picks.
    parameters
        Of the job.
    folder
        Of the job.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    rows = written.picks.rows
    kinds = written.kinds.kind
    thresholds = [float(t["threshold"]) for t in tomograms]
    charts = [
        chart_block(
            plot_by_kind(
                rows["score"].to_numpy(float),
                kinds,
                name="score, deviations of the noise",
                threshold=float(np.mean(thresholds)) if thresholds else None,
            ),
            caption="Scores of the picks; the line is the threshold.",
            label="Histogram of scores",
        ),
        chart_block(
            plot_by_kind(
                rows["diameter"].to_numpy(float), kinds, name="diameter, Å", threshold=None
            ),
            caption="Diameter of a ball of the same moments as the evidence about each pick.",
            label="Histogram of diameters",
        ),
        chart_block(
            plot_by_kind(
                (rows["long_axis"] / rows["short_axis"].clip(lower=1e-3)).to_numpy(float),
                kinds,
                name="longest by shortest axis",
                threshold=None,
            ),
            caption="Axes; the missing wedge makes round particles look longer along z.",
            label="Histogram of ratios of axes",
        ),
        chart_block(
            plot_features(written.features, kinds, written.kinds.criterion.tolist()),
            caption="Features that no rotation changes, by kind.",
            label="Scatter of features",
        ),
    ]
    page = make_page(
        title="Picks in tomograms",
        subtitle=f"method {parameters.method}",
        facts=_facts(tomograms, written),
        sections=[
            Section(title="Slices", blocks=_slices(tomograms, written, parameters, folder)),
            Section(title="Picks", blocks=[grid_block(charts)]),
            Section(title="Tomograms", blocks=[_table(tomograms)]),
            Section(title="Parameters", blocks=[_command(parameters)]),
        ],
    )
    write_text(path, page)


def _facts(tomograms: Sequence[Mapping[str, Any]], written: WrittenPicks) -> list[Fact]:
    return [
        Fact(label="tomograms", value=str(len(tomograms))),
        Fact(label="picks", value=f"{len(written.picks):,}"),
        Fact(label="kinds", value=str(written.kinds.number)),
        Fact(
            label="left out",
            value=f"{sum(t['n_extended'] for t in tomograms):,}",
            note="maxima on membranes or filaments",
        ),
        Fact(label="gold beads", value=str(sum(t["n_beads"] for t in tomograms))),
    ]


def _slices(
    tomograms: Sequence[Mapping[str, Any]],
    written: WrittenPicks,
    parameters: TomogramPickParameters,
    folder: Path,
) -> list[Html]:
    blocks = []
    for tomogram in tomograms[:_SHOWN]:
        name = str(tomogram["tomogram"])
        found = read_found(folder, name)
        own = (written.picks.rows["tomogram"] == name).to_numpy(bool)
        figure = draw_sections(
            {axis: found[f"picture_{axis}"] for axis in "zyx"},
            found["sections"],
            found["places"],
            written.kinds.kind[own],
            radius=parameters.max_diameter / 2 / float(tomogram["voxel_size"]),
            depth=_DEPTH,
        )
        caption = f"{name}: {tomogram['n_picks']} picks; those near each slice, coloured by kind."
        blocks.append(chart_block(figure, caption=caption, label=f"Slices of {name}"))
    return blocks


def _table(tomograms: Sequence[Mapping[str, Any]]) -> Html:
    columns = {
        "tomogram": [t["tomogram"] for t in tomograms],
        "picks": [t["n_picks"] for t in tomograms],
        "maxima": [t["n_maxima"] for t in tomograms],
        "on membranes or filaments": [t["n_extended"] for t in tomograms],
        "gold beads": [t["n_beads"] for t in tomograms],
        "threshold": [t["threshold"] for t in tomograms],
        "voxel, Å": [t["voxel_size"] for t in tomograms],
    }
    return table_block(pd.DataFrame(columns))


def _command(parameters: TomogramPickParameters) -> Html:
    return command_block(
        Command(
            name="tomo pick",
            command="",
            outcome="",
            parameters=parameters.to_dict(),
            units={d.name: d.unit for d in describe(type(parameters))},
        )
    )
