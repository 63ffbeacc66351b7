"""The overview: counts, limits that are dragged, the table, ticks."""

from __future__ import annotations

import re
from pathlib import Path

from browser_world import Served, go, settle, watched_page
from playwright.sync_api import Browser, Page, expect

from cryopick.tables.relion import read_micrographs

pytest_plugins = ["browser_world"]
SOME = re.compile("^[1-9]")


def wait_for_all(page: Page) -> None:
    """Wait until the fields and their limits are there, of which none is set."""
    expect(page.get_by_test_id("limits-rejected")).to_have_text("0")
    expect(page.get_by_role("grid").get_by_role("row").nth(5)).to_contain_text("sim_00005.mrc")
    settle(page)


def test_a_limit_that_is_dragged_rejects_as_many_fields_as_the_server_says(
    chromium: Browser, served: Served
) -> None:
    with watched_page(chromium, served) as (page, _):
        wait_for_all(page)
        handle = page.get_by_role("slider", name="Greatest Defocus accepted")
        box = handle.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 90, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + 90, box["y"] + 60, steps=5)
        page.mouse.up()

        limits = page.get_by_test_id("command")
        expect(limits).to_contain_text("defocus")
        said = served.ask("api/limits")
        expect(page.get_by_test_id("limits-accepted")).to_have_text(str(said["n_accepted"]))
        expect(page.get_by_test_id("n-accepted")).to_have_text(str(said["n_accepted"]))

    low, high = said["limits"]["defocus"]
    defocus = served.ask("api/fields/series?columns=defocus")["columns"]["defocus"]
    assert low is None
    assert 0 < said["n_rejected"] < len(defocus)
    assert said["n_rejected"] == sum(value > high for value in defocus)


def test_limits_are_set_and_taken_away_with_keys(chromium: Browser, served: Served) -> None:
    with watched_page(chromium, served) as (page, _):
        wait_for_all(page)
        handle = page.get_by_role("slider", name="Least Picks accepted")
        handle.press("PageUp")
        expect(handle).not_to_have_attribute("aria-valuetext", "no limit")
        expect(page.get_by_test_id("limits-rejected")).to_have_text(SOME)

        handle.press("Delete")
        expect(handle).to_have_attribute("aria-valuetext", "no limit")
        expect(page.get_by_test_id("limits-rejected")).to_have_text("0")

    assert served.ask("api/limits")["limits"] == {}


def test_fields_rejected_by_hand_are_left_out_of_the_table_that_is_saved(
    chromium: Browser, served: Served
) -> None:
    with watched_page(chromium, served) as (page, _):
        wait_for_all(page)
        page.get_by_role("grid").focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("x")
        expect(page.get_by_test_id("n-accepted")).to_have_text("4")
        page.get_by_role("button", name="Save accepted").click()
        expect(page.get_by_test_id("command")).to_contain_text("cryopick")
        expect(page.get_by_text("4 micrographs in")).to_be_visible()

    saved = read_micrographs(served.project / "micrographs_selected.star").rows
    names = [Path(name).name for name in saved["micrograph"]]
    assert names == [f"sim_0000{i}.mrc" for i in (1, 3, 4, 5)]


def test_the_table_is_sorted_and_filtered_by_the_server(chromium: Browser, shared: Served) -> None:
    with watched_page(chromium, shared) as (page, _):
        page.get_by_role("columnheader", name="Picks").get_by_role("button").click()
        expect(page.get_by_role("columnheader", name="Picks")).to_have_attribute(
            "aria-sort", "ascending"
        )
        picks = shared.ask("api/fields?sort=picks&columns=name,picks")["rows"]
        first = page.get_by_role("row").nth(1)
        expect(first).to_contain_text(Path(picks[0][1]).name)

        page.get_by_placeholder("Name contains").fill("00003")
        expect(page.get_by_test_id("n-listed")).to_have_text("1 of 5 micrographs")
        expect(page.get_by_role("row")).to_have_count(2)


def test_limits_are_saved_under_a_name_and_taken_up_again(
    chromium: Browser, served: Served
) -> None:
    with watched_page(chromium, served) as (page, _):
        wait_for_all(page)
        handle = page.get_by_role("slider", name="Least Picks accepted")
        handle.press("PageUp")
        expect(page.get_by_test_id("limits-rejected")).to_have_text(SOME)
        limits = served.ask("api/limits")["limits"]
        page.get_by_role("button", name="Save limits").click()
        page.get_by_label("Name", exact=True).fill("strict")
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.get_by_test_id("command")).to_contain_text("--name strict")
        page.get_by_role("button", name="Clear limits").click()
        expect(page.get_by_test_id("limits-rejected")).to_have_text("0")
        assert served.ask("api/limits")["limits"] == {}

        page.get_by_label("Saved and earlier limits").select_option("named:strict")
        expect(page.get_by_test_id("limits-rejected")).to_have_text(SOME)
        expect(page.get_by_test_id("command")).to_contain_text("--use strict")

    assert served.ask("api/limits")["limits"] == limits


def test_the_reason_for_a_rejection_is_typed_in_the_table_and_beside_the_picture(
    chromium: Browser, served: Served
) -> None:
    ids = [row[0] for row in served.ask("api/fields?columns=name")["rows"]]
    with watched_page(chromium, served) as (page, _):
        wait_for_all(page)
        page.get_by_role("grid").focus()
        page.keyboard.press("Shift+X")
        page.get_by_label("Why").fill("crystalline ice")
        page.keyboard.press("Enter")
        command = page.get_by_test_id("command")
        expect(command).to_contain_text("--reason 'crystalline ice'")
        expect(page.get_by_role("row").nth(1)).to_contain_text("crystalline ice")

        go(page, f"#/micrograph/{ids[1]}")
        expect(page.get_by_test_id("shown-field")).to_have_text(ids[1])
        page.keyboard.press("Shift+X")
        expect(page.get_by_label("Why")).to_be_focused()
        page.keyboard.type("a crack")
        page.keyboard.press("Enter")
        expect(command).to_contain_text("--reason 'a crack'")

    rows = served.ask("api/fields?state=rejected&columns=tick,reason")["rows"]
    assert [row[1:] for row in rows] == [["rejected", "crystalline ice"], ["rejected", "a crack"]]
