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
    text_block,
)
from cryopick.report.class_cards import ClassCard, class_cards_block
from cryopick.report.field_blocks import Field, FieldScale, field_blocks, field_pair_blocks
from cryopick.report.figures import (
    plot_defocus,
    plot_diameters,
    plot_histogram,
    plot_picks_per_micrograph,
    plot_picks_versus,
    plot_precision_recall,
    score_colours,
)
from cryopick.report.flow_block import FlowGroup, FlowRow, flow_block
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


def card(**changes):
    values = {"number": 3, "pixels": np.zeros((4, 4), np.uint8), "score": "0.51", "share": 0.51}
    values |= {"details": ["40", "8.0 Å"], "reasons": [], "is_selected": True}
    return ClassCard(**values | changes)


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
        text_block(EVIL),
        flow_block([FlowGroup(title=EVIL, rows=[FlowRow(name=EVIL, kept=1, losses=[(2, EVIL)])])]),
        class_cards_block(EVIL, [card(score=EVIL, details=[EVIL], reasons=[(True, EVIL)])]),
        *field_pair_blocks(
            [(field(name=EVIL), field(note=EVIL))],
            scales=(FieldScale((4, 9), EVIL), FieldScale((0, 1))),
            default_diameter=100,
        ),
    ]
    section = Section(title=EVIL, lead=EVIL, blocks=blocks)

    page = make_page(
        title=EVIL,
        subtitle=EVIL,
        alarm=EVIL,
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


def test_two_pickings_of_a_field_share_its_picture_and_have_colours_of_their_own():
    picks = pd.DataFrame({"x": [100.0], "y": [40.0], "fom": [0.5], "diameter": [120.0]})

    html = "".join(
        field_pair_blocks(
            [(field(picks=picks), field(picks=picks))],
            scales=(FieldScale((0.5, 1.0), "first"), FieldScale((0.0, 0.5), "final")),
            default_diameter=100,
        )
    )

    assert html.count("data:image/webp") == 1
    assert html.count('<use href="#field-1"/>') == html.count('<image id="field-1"') == 1
    low, high = score_colours([0, 1], low=0, high=1)
    assert re.findall(r'<circle[^>]*stroke="([^"]+)"', html) == [low, high]
    assert field_pair_blocks([], scales=(FieldScale((0, 1)),) * 2, default_diameter=1) == []


def test_bars_of_a_flow_are_as_wide_as_what_they_stand_for():
    rows = [
        FlowRow(name="all", kept=200),
        FlowRow(name="some", kept=120, losses=[(50, "edge"), (30, "junk"), (0, "none")]),
        FlowRow(name="no", kept=0, losses=[(120, "bad")]),
    ]

    html = flow_block([FlowGroup(title="t", rows=rows)])

    widths = re.findall(r'<i class="(\w+)" style="width:([\d.]+)%"', html)
    assert widths == [
        ("kept", "100.00"),
        ("kept", "60.00"),
        ("lost", "25.00"),
        ("lost", "15.00"),
        ("lost", "60.00"),
    ]
    assert [r.came for r in rows] == [200, 200, 120]
    assert "\u221250 edge, \u221230 junk</td>" in html
    assert "none" not in html
    assert "<i" not in flow_block([FlowGroup(title="t", rows=[FlowRow(name="none", kept=0)])])


def test_a_class_says_whether_it_is_selected_and_what_moved_its_score():
    cards = [
        card(reasons=[(True, "texture"), (False, "edge")]),
        card(number=4, is_selected=False),
    ]

    html = class_cards_block("Classes", cards)

    assert html.count('<figure class="class">') == html.count('<figure class="class out">') == 1
    assert "<li>+ texture</li><li>\u2212 edge</li>" in html
    assert 'style="width:51.0%"' in html


def test_what_stopped_the_work_stands_before_the_numbers():
    page = make_page(title="t", alarm="No class.", facts=[Fact(label="Picks", value="1")])

    assert page.index('role="alert">No class.</p>') < page.index('class="facts"')
    assert "alert" not in make_page(title="t")


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
