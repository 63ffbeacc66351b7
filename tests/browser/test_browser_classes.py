"""2D classes: what is selected is what is written."""

from __future__ import annotations

import json
from pathlib import Path

from browser_world import SLOW, Served, go, watched_page
from playwright.sync_api import Browser, Locator, Page, expect

from cryopick.io.star import read_star

pytest_plugins = ["browser_world"]


def gallery(page: Page) -> Locator:
    """The averages."""
    return page.get_by_role("listbox", name="Classes")


def open_classes(page: Page) -> None:
    """Show the classes, with none of them selected."""
    go(page, "#/classes")
    gallery(page).get_by_role("option").first.wait_for()
    page.get_by_role("button", name="None").click()
    expect(page.get_by_test_id("n-marked")).to_have_text("0 classes")


def members(table: Path) -> set[str]:
    """Names of the images in a particle table."""
    return set(read_star(table)["particles"]["rlnImageName"])


def test_classes_that_are_clicked_are_exactly_those_in_the_table_and_are_taken_up_again(
    chromium: Browser, served: Served
) -> None:
    with watched_page(chromium, served) as (page, watch):
        open_classes(page)
        gallery(page).get_by_role("option", name="Class 2").click()
        gallery(page).get_by_role("option", name="Class 4").click()
        expect(page.get_by_test_id("n-marked")).to_have_text("2 classes")
        page.get_by_role("button", name="Save selection").click()
        page.get_by_label("Name", exact=True).fill("chosen")
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.get_by_test_id("command")).to_contain_text("select classes")
        expect(page.get_by_role("button", name="chosen")).to_be_visible()

        page.get_by_role("button", name="None").click()
        page.get_by_role("button", name="chosen").click()
        for number, is_marked in ((1, "false"), (2, "true"), (3, "false"), (4, "true")):
            card = gallery(page).get_by_role("option", name=f"Class {number}")
            expect(card).to_have_attribute("aria-selected", is_marked)
        gallery(page).get_by_role("option", name="Class 4").click()
        page.get_by_role("button", name="Save selection").click()
        page.get_by_label("Name", exact=True).fill("chosen")
        watch.may_be_refused = True
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.get_by_label("replace the selection of this name")).to_be_visible()
        expect(page.get_by_label("Name", exact=True)).to_have_value("chosen")

    data = max((served.project / "classes").glob("run_it*_data.star"))
    particles = read_star(data)["particles"]
    expected = set(particles["rlnImageName"][particles["rlnClassNumber"].isin([2, 4])])
    assert 0 < len(expected) < len(particles)
    assert members(served.project / "selections" / "chosen" / "particles.star") == expected


def test_ranges_above_below_and_inverted_are_selected_in_the_order_shown(
    chromium: Browser, shared: Served
) -> None:
    with watched_page(chromium, shared) as (page, _):
        open_classes(page)
        marked = page.get_by_test_id("n-marked")
        cards = gallery(page).get_by_role("option")
        cards.nth(0).click()
        cards.nth(2).click(modifiers=["Shift"])
        expect(marked).to_have_text("3 classes")
        page.get_by_role("button", name="Invert").click()
        expect(marked).to_have_text("1 class")
        expect(cards.nth(3)).to_have_attribute("aria-selected", "true")
        cards.nth(1).click()
        page.get_by_role("button", name="Above").click()
        expect(marked).to_have_text("2 classes")
        expect(cards.nth(0)).to_have_attribute("aria-selected", "true")
        page.get_by_role("button", name="Below").click()
        expect(marked).to_have_text("3 classes")
        expect(cards.nth(0)).to_have_attribute("aria-selected", "false")


def test_members_of_a_class_are_shown_where_they_lie(chromium: Browser, shared: Served) -> None:
    with watched_page(chromium, shared) as (page, _):
        open_classes(page)
        gallery(page).get_by_role("option", name="Class 2").click()
        panel = page.get_by_role("region", name="Class 2")
        panel.get_by_role("link", name="sim_").first.click()
        told = page.get_by_text("members of classes 2")
        expect(told).to_be_visible()
        shown = page.get_by_test_id("shown-field")
        expect(shown).not_to_have_text("")
        field = shown.text_content()
        of_class = shared.ask("api/classifications")["classifications"][-1]["id"]
        places = shared.ask(f"api/classifications/{of_class}/places/{field}?classes=2")
        expect(told).to_have_text(f"{places['n']} members of classes 2")
        assert places["n"] > 0


def test_extract_these_leads_to_the_job_that_cuts_exactly_these(
    chromium: Browser, served: Served
) -> None:
    with watched_page(chromium, served) as (page, _):
        open_classes(page)
        gallery(page).get_by_role("option", name="Class 2").click()
        page.get_by_role("button", name="Extract these").click()
        page.get_by_label("Name", exact=True).fill("second")
        page.get_by_role("button", name="Save and go on").click()
        form = page.get_by_role("form")
        expect(form.get_by_label("Picks or particles")).to_have_value("s:second", timeout=SLOW)
        expect(form.locator("code")).to_contain_text("selections/second/particles.star")
        form.get_by_label("Micrographs").select_option("all")
        form.get_by_role("button", name="Start").click()
        expect(page.get_by_test_id("job-state")).to_have_text("done", timeout=SLOW)
        command = page.get_by_test_id("command").text_content() or ""

    assert "extract" in command
    job = served.project / "tasks" / "0001_extract"
    chosen = read_star(served.project / "selections" / "second" / "particles.star")["particles"]
    cut = read_star(job / "particles.star")["particles"]
    half = json.loads((job / "job.json").read_bytes())["parameters"]["box_size"] / 2
    places = chosen[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy()
    is_inside = ((places > half + 1) & (places < 640 - half - 1)).all(axis=1)
    assert 0 < is_inside.sum() <= len(cut) <= len(chosen)
    names = ["rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY"]
    assert set(map(tuple, cut[names].to_numpy())) <= set(map(tuple, chosen[names].to_numpy()))
