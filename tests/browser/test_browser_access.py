"""The page for everybody: keyboard, small screens, any colour vision, a server that went away."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browser_world import Served, go, serious_findings, serving, settle, watched_page
from playwright.sync_api import Browser, expect

pytest_plugins = ["browser_world"]

PLACES = {
    "overview": "#/overview",
    "gallery": "#/micrograph",
    "micrograph": "#/micrograph/first",
    "classes": "#/classes",
    "particles": "#/particles",
    "tomograms": "#/tomograms",
    "jobs": "#/jobs/2",
    "new job": "#/jobs/new/pick-blob",
    "plan": "#/jobs/plan",
    "export": "#/export",
}


def reject_some(served: Served) -> None:
    """Set a limit that rejects some fields and not all."""
    defocus = sorted(served.ask("api/fields/series?columns=defocus")["columns"]["defocus"])
    limit = (defocus[2] + defocus[3]) / 2
    served.ask("api/limits", {"limits": {"defocus": [None, limit]}}, "PUT")


@pytest.mark.parametrize(("scheme", "only"), [("light", ""), ("dark", "color-contrast")])
def test_no_page_has_a_serious_fault_of_access(
    chromium: Browser, shared: Served, scheme: str, only: str
) -> None:
    """The dark page differs in its colours alone."""
    found = {}
    with watched_page(chromium, shared, color_scheme=scheme) as (page, _):
        for name, place in PLACES.items():
            go(page, place)
            settle(page)
            found[name] = serious_findings(page, only=only)

    assert {name: faults for name, faults in found.items() if faults} == {}


def test_every_page_fits_on_a_phone(chromium: Browser, shared: Served) -> None:
    with watched_page(chromium, shared, viewport={"width": 390, "height": 844}) as (page, _):
        for place in PLACES.values():
            go(page, place)
            settle(page)
            main = page.locator("main")
            wide = main.evaluate("m => m.scrollWidth - m.clientWidth")
            assert wide <= 1, f"{place} is {wide} px too wide"
            links = page.get_by_role("navigation", name="Pages").get_by_role("link")
            assert all(
                box["x"] >= 0 and box["x"] + box["width"] <= 391
                for box in (link.bounding_box() for link in links.all())
                if box
            )


def test_a_field_is_found_opened_judged_and_left_with_keys_alone(
    chromium: Browser, served: Served
) -> None:
    with watched_page(chromium, served) as (page, _):
        expect(page.get_by_role("grid").get_by_role("row").nth(5)).to_contain_text("sim_00005.mrc")
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.getAttribute('role')") == "grid":
                break
        page.keyboard.press("End")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Enter")
        shown = page.get_by_test_id("shown-field")
        ids = [row[0] for row in served.ask("api/fields?columns=name")["rows"]]
        expect(shown).to_have_text(ids[3])
        page.keyboard.press("x")
        expect(page.get_by_test_id("command")).to_contain_text("reject")
        page.keyboard.press("?")
        expect(page.get_by_role("dialog", name="Keys")).to_contain_text("reject this micrograph")
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        page.keyboard.press("1")
        expect(page.get_by_test_id("n-accepted")).to_have_text("4")


def test_states_have_shapes_and_words_besides_their_colours(
    chromium: Browser, served: Served
) -> None:
    reject_some(served)
    with watched_page(chromium, served) as (page, _):
        session = page.context.new_cdp_session(page)
        session.send("Emulation.setEmulatedVisionDeficiency", {"type": "achromatopsia"})
        rows = page.get_by_role("grid").get_by_role("row")
        expect(rows).to_have_count(6)
        words = [re.findall("accepted|rejected", row.inner_text()) for row in rows.all()[1:]]
        assert all(len(found) >= 1 for found in words)
        assert {found[0] for found in words} == {"accepted", "rejected"}


def test_the_page_goes_on_when_a_killed_server_is_there_again(
    chromium: Browser, served: Served
) -> None:
    with watched_page(chromium, served) as (page, watch):
        watch.may_lose_server = True
        expect(page.get_by_test_id("n-accepted")).to_have_text("5")
        rows = page.get_by_role("grid").get_by_role("row")
        expect(rows).to_have_count(6)

        served.kill()
        connection = page.get_by_test_id("connection")
        expect(connection).to_have_text("waiting for the server")
        served.start()
        reject_some(served)
        expect(connection).to_have_text("live")
        accepted = served.ask("api/limits")["n_accepted"]
        assert accepted < 5
        expect(page.get_by_test_id("n-accepted")).to_have_text(str(accepted))
        expect(rows).to_have_count(6)


def test_a_field_that_lands_is_shown_without_a_reload(chromium: Browser, own_project: Path) -> None:
    picks = next((own_project / "project" / "jobs").glob("*_picks"))
    ledger = picks / "ledger.jsonl"
    lines = ledger.read_text().splitlines()
    ledger.write_text("\n".join(lines[:-1]) + "\n")
    with serving(own_project) as served, watched_page(chromium, served) as (page, _):
        go(page, "#/micrograph")
        gallery = page.get_by_role("listbox", name="Micrographs")
        told = gallery.get_by_text(re.compile(r"\d+ picks"))
        expect(gallery.get_by_role("option")).to_have_count(5)
        expect(told).to_have_count(4)
        with ledger.open("a") as opened:
            opened.write(lines[-1] + "\n")
        expect(told).to_have_count(5)


def test_a_viewer_sees_the_project_and_has_nothing_to_change_it_with(
    chromium: Browser, served: Served
) -> None:
    link = served.ask("api/share", {"hours": 1})["url"]
    context = chromium.new_context()
    page = context.new_page()
    page.goto(served.address + link)
    expect(page.get_by_text("read only")).to_be_visible()
    expect(page.get_by_test_id("n-accepted")).to_have_text("5")
    expect(page.get_by_role("button", name="Save accepted")).to_have_count(0)
    go(page, "#/micrograph/first")
    expect(page.get_by_test_id("shown-field")).not_to_have_text("")
    expect(page.get_by_role("button", name="Brush")).to_have_count(0)
    status = page.evaluate(
        "fetch('api/limits', { method: 'PUT', body: '{\"limits\": {}}', headers:"
        " { 'X-Cryopick': '1', 'Content-Type': 'application/json' } }).then(a => a.status)"
    )
    context.close()
    assert status == 403
