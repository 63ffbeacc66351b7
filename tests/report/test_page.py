from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from cryopick.report.blocks import (
    Command,
    chart_block,
    command_block,
    grid_block,
    image_block,
    table_block,
)
from cryopick.report.field_blocks import Field, field_blocks
from cryopick.report.figures import (
    plot_defocus,
    plot_diameters,
    plot_histogram,
    plot_picks_per_micrograph,
    plot_picks_versus,
    plot_precision_recall,
    score_colours,
)
from cryopick.report.page import Fact, Section, make_page
from cryopick.report.pictures import Picture

VOID = {"meta", "img", "input", "br", "link"}
EVIL = '<script>alert("x")</script>&'


class Balance(HTMLParser):
    """Checks that every element is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def assert_well_formed(page):
    parser = Balance()
    parser.feed(page)
    parser.close()
    assert parser.open == []


def field(n_picks=3, **changes):
    rng = np.random.default_rng(n_picks)
    picks = pd.DataFrame({"x": rng.uniform(0, 400, n_picks), "y": rng.uniform(0, 300, n_picks)})
    picks["fom"] = rng.uniform(4, 9, n_picks)
    picks["diameter"] = 120.0
    picture = Picture(pixels=np.full((150, 200), 90, np.uint8), scale=0.5, pixel_size=4.0)
    return Field(**{"name": "a.mrc", "picture": picture, "picks": picks, "note": "n"} | changes)


def whole_page():
    rng = np.random.default_rng(0)
    scores = rng.normal(6, 1, 200)
    counts = rng.poisson(80, 40)
    sections = [
        Section(
            title="Micrographs", blocks=field_blocks([field()], limits=(4, 9), default_diameter=100)
        ),
        Section(
            title="Scores",
            lead="How sure.",
            blocks=[
                chart_block(plot_histogram(scores, name="n"), caption="c", label="l"),
                grid_block(
                    [
                        chart_block(plot_picks_per_micrograph(counts), caption="c", label="l"),
                        chart_block(plot_defocus([1e4, 2e4]), caption="c", label="l"),
                        chart_block(
                            plot_picks_versus(counts, counts, name="n"), caption="c", label="l"
                        ),
                        chart_block(plot_diameters(scores, limits=(1, 9)), caption="c", label="l"),
                    ]
                ),
                image_block(np.zeros((9, 9), np.uint8), caption="c", label="l", is_sharp=True),
            ],
        ),
        Section(title="Left out", blocks=[]),
    ]
    return make_page(
        title=EVIL, facts=[Fact(label="Picks", value="1,200")], remarks=[EVIL], sections=sections
    )


def test_a_page_is_well_formed_and_refers_to_nothing_outside_itself():
    page = whole_page()

    assert_well_formed(page)
    links = re.findall(r'(?:href|src)="([^"]{0,40})', page)
    assert links
    assert all(link.startswith(("#", "data:image/")) for link in links)
    assert "url(http" not in page
    assert "@import" not in page


def test_text_is_escaped_everywhere():
    evil = pd.DataFrame({EVIL: [EVIL]})
    command = Command(name=EVIL, command=EVIL, outcome=EVIL, parameters={EVIL: EVIL})
    blocks = [
        table_block(evil),
        command_block(command),
        *field_blocks([field(name=EVIL, note=EVIL)], limits=(4, 9), default_diameter=100),
        chart_block(plot_histogram([1.0, 2.0], name=EVIL), caption=EVIL, label=EVIL),
        image_block(np.zeros((4, 4), np.uint8), caption=EVIL, label=EVIL),
    ]
    section = Section(title=EVIL, lead=EVIL, blocks=blocks)

    page = make_page(
        title=EVIL,
        subtitle=EVIL,
        facts=[Fact(label=EVIL, value=EVIL, unit=EVIL, note=EVIL)],
        remarks=[EVIL],
        sections=[section],
    )

    assert "<script" not in page
    assert_well_formed(page)


def test_sections_without_blocks_and_empty_headers_are_left_out():
    page = whole_page()

    assert "Left out" not in page
    assert '<ul class="remarks">' not in make_page(title="t")
    assert "<nav>" not in make_page(title="t")


def test_a_circle_lies_on_its_particle_with_its_diameter_and_colour():
    picks = pd.DataFrame({"x": [100.0], "y": [40.0], "fom": [9.0], "diameter": [120.0]})

    html = "".join(field_blocks([field(picks=picks)], limits=(4, 9), default_diameter=100))

    # half the size, the middle of pixel 0 at 0.5; 60 A of radius are 15 px of 4 A
    yellow = score_colours([9.0], low=4, high=9)[0]
    assert f'<circle cx="50.5" cy="20.5" r="15.0" stroke="{yellow}">' in html


def test_picks_without_score_or_diameter_are_drawn_with_the_default():
    picks = pd.DataFrame({"x": [10.0], "y": [10.0]})

    html = "".join(field_blocks([field(picks=picks)], limits=(0, 1), default_diameter=80))

    assert 'r="10.0"' in html


def test_a_crowded_field_draws_the_best_picks_only():
    html = "".join(field_blocks([field(9000)], limits=(4, 9), default_diameter=100))

    assert html.count("<circle") == 1500


def test_no_fields_make_no_blocks_and_a_field_without_picks_has_no_circle():
    nothing = field(0)

    assert field_blocks([], limits=(0, 1), default_diameter=1) == []
    blocks = field_blocks([nothing], limits=(4, 9), default_diameter=100)
    assert "<circle" not in "".join(blocks)


def test_a_page_does_not_grow_with_the_number_of_micrographs():
    counts = np.random.default_rng(0).poisson(90, 100_000)

    chart = chart_block(plot_picks_per_micrograph(counts), caption="", label="")

    assert len(chart) < 300_000


def test_a_long_table_is_cut_and_says_so():
    html = table_block(pd.DataFrame({"n": range(60)}), most=50)

    assert "and 10 more" in html
    assert html.count("<tr>") == 52


@pytest.mark.parametrize("values", [[], [3.0], [2.0, 2.0], [1.0, np.nan, np.inf]])
def test_charts_draw_any_values(values):
    counts = [v for v in values if np.isfinite(v)]
    for figure in (
        plot_histogram(values, name="n"),
        plot_diameters(values),
        plot_defocus(values),
        plot_picks_per_micrograph(counts),
        plot_picks_versus(counts, counts, name="n"),
        plot_precision_recall(counts, counts, average_precision=0.0, shipped=(0, 0)),
    ):
        assert "<svg" in chart_block(figure, caption="", label="")


def test_every_value_is_counted_even_far_outside():
    axes = plot_histogram([*np.linspace(4, 6, 4000), 1e9], name="n").axes[0]

    assert sum(p.get_height() for p in axes.patches) == 4001
    assert axes.get_xlim()[1] < 100


def test_colours_differ_at_the_ends_and_are_the_last_beyond():
    low, high, beyond = score_colours([0, 1, 5], low=0, high=1)

    assert low != high == beyond
    assert score_colours([3, 3], low=3, high=3) == [high, high]
