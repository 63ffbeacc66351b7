"""One micrograph: threshold, edits, jumps; what the page says is what the commands do."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from browser_world import SLOW, Served, go, watched_page
from playwright.sync_api import Browser, Page, expect

from cryopick.io.star import read_star

pytest_plugins = ["browser_world"]


def run_command(command: str, folder: Path) -> None:
    """Run a command line that the page has shown."""
    words = shlex.split(command)
    assert words[0] == "cryopick"
    program = [sys.executable, "-c", "from cryopick.cli.app import main; main()"]
    subprocess.run([*program, *words[1:]], cwd=folder, check=True, capture_output=True)


def count_picks(folder: Path) -> int:
    """Number of picks in the coordinate files that a list in a folder names."""
    files = [path for path in folder.rglob("*.star") if path.name != "autopick.star"]
    tables = [table for path in files for table in read_star(path).values()]
    return sum(len(table) for table in tables if "rlnCoordinateX" in table)


def open_first(page: Page) -> str:
    """Show the first micrograph, and give its id."""
    go(page, "#/micrograph/first")
    shown = page.get_by_test_id("shown-field")
    expect(shown).not_to_have_text("")
    return shown.text_content() or ""


def view_box(page: Page) -> dict[str, float]:
    """Place of the picture on the screen: scale, and where the first pixel is."""
    box = page.locator(".canvas-view").bounding_box()
    assert box is not None
    side = min(box["width"], box["height"])
    return {
        "scale": side / 640,
        "x": box["x"] + (box["width"] - side) / 2,
        "y": box["y"] + (box["height"] - side) / 2,
    }


def at(page: Page, x: float, y: float) -> tuple[float, float]:
    """Point of the screen at which a point of the whole micrograph is shown."""
    box = view_box(page)
    return box["x"] + (x + 0.5) * box["scale"], box["y"] + (y + 0.5) * box["scale"]


def take_tool(page: Page, key: str) -> None:
    """Take up a tool for picks with its key."""
    page.get_by_role("button", name="Undo").wait_for()
    page.keyboard.press(key)
    expect(page.locator(".canvas-view")).to_have_css("cursor", "crosshair")


def empty_place(served: Served, field: str) -> tuple[float, float]:
    """A point that is far from all peaks."""
    peaks = served.ask(f"api/sets/2/fields/{field}?source=peaks")["columns"]
    places = [(x, y) for x in range(60, 600, 20) for y in range(60, 600, 20)]

    def room(place: tuple[int, int]) -> float:
        return min(
            (place[0] - x) ** 2 + (place[1] - y) ** 2
            for x, y in zip(peaks["x"], peaks["y"], strict=True)
        )

    return max(places, key=room)


def changed(page: Page, expression: str, before: float) -> float:
    """Wait until an expression has another value, and give it."""
    for _ in range(SLOW // 100):
        now = float(page.evaluate(expression))
        if abs(now - before) > 1e-3:
            return now
        page.wait_for_timeout(100)
    raise AssertionError(f"The value stays {before}.")


def picks_of(served: Served) -> str:
    """Id of the set of the final picks."""
    sets = served.ask("api/sets")["sets"]
    return str(next(one["id"] for one in sets if "picks" in one["aliases"]))


def test_a_threshold_keeps_as_many_picks_as_the_command_that_is_shown(
    chromium: Browser, served: Served
) -> None:
    with watched_page(chromium, served) as (page, _):
        open_first(page)
        slider = page.get_by_role("slider", name="Threshold")
        slider.evaluate(
            "s => { s.value = 0.9; s.dispatchEvent(new Event('input', { bubbles: true }));"
            " s.dispatchEvent(new Event('change', { bubbles: true })); }"
        )
        expect(page.get_by_test_id("command")).to_contain_text("select subset")
        expect(page.get_by_test_id("n-all-shown")).not_to_have_text("…")
        said = int((page.get_by_test_id("n-all-shown").text_content() or "").replace(",", ""))
        command = (page.get_by_test_id("command").text_content() or "").removeprefix("$ ")
        here = int(page.get_by_test_id("n-shown").text_content() or "")

    before = served.ask("api/sets")["sets"][0]["n_picks"]
    words = shlex.split(command)
    out = served.folder / words[words.index("--out") + 1]
    run_command(command, served.folder)
    assert 0 < said < before
    assert 0 < here <= said
    assert count_picks(out) == said


def test_picks_added_and_removed_by_hand_are_there_after_a_reload_and_are_extracted(
    chromium: Browser, served: Served
) -> None:
    with watched_page(chromium, served) as (page, _):
        field = open_first(page)
        x, y = empty_place(served, field)
        before = int(page.get_by_test_id("n-shown").text_content() or "")
        take_tool(page, "p")
        page.mouse.click(*at(page, x, y))
        expect(page.get_by_test_id("n-shown")).to_have_text(str(before + 1))
        expect(page.get_by_test_id("command")).to_contain_text("--add")  # its bar takes some room
        picks = served.ask(f"api/sets/{picks_of(served)}/fields/{field}")["columns"]
        page.mouse.click(*at(page, picks["x"][0], picks["y"][0]), button="right")
        expect(page.get_by_test_id("n-shown")).to_have_text(str(before))
        page.mouse.click(*at(page, picks["x"][1], picks["y"][1]), button="right")
        expect(page.get_by_test_id("n-shown")).to_have_text(str(before - 1))
        page.keyboard.press("Control+z")
        expect(page.get_by_test_id("n-shown")).to_have_text(str(before))
        expect(page.get_by_test_id("command")).to_contain_text("cryopick")

        page.reload()
        expect(page.get_by_test_id("n-shown")).to_have_text(str(before))
        page.get_by_role("button", name="Save picks").click()
        page.get_by_label("Name", exact=True).fill("cleaned")
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.get_by_text("picks of 5 micrographs in")).to_be_visible()

    edited = served.ask(f"api/sets/{picks_of(served)}/fields/{field}?source=edited")
    places = list(zip(edited["columns"]["x"], edited["columns"]["y"], strict=True))
    added = [place for place, is_new in zip(places, edited["origin"], strict=True) if is_new]
    assert len(added) == 1
    assert abs(added[0][0] - x) < 1
    assert abs(added[0][1] - y) < 1
    assert (picks["x"][0], picks["y"][0]) not in places
    assert (picks["x"][1], picks["y"][1]) in places

    saved = served.project / "picks_by_hand" / "cleaned"
    command = (
        f"cryopick extract data/micrographs_ctf.star {saved / 'autopick.star'}"
        " --box-size 48 --out extracted"
    )
    run_command(command, served.folder)
    particles = read_star(served.folder / "extracted" / "particles.star")["particles"]
    found = {
        (round(float(a), 2), round(float(b), 2))
        for a, b in zip(particles["rlnCoordinateX"], particles["rlnCoordinateY"], strict=True)
    }
    assert (round(added[0][0], 2), round(added[0][1], 2)) in found


def test_a_lasso_removes_what_lies_inside_and_undo_brings_it_back(
    chromium: Browser, served: Served
) -> None:
    with watched_page(chromium, served) as (page, _):
        field = open_first(page)
        picks = served.ask(f"api/sets/{picks_of(served)}/fields/{field}")["columns"]
        inside = sum(
            100 < x < 540 and 100 < y < 540 for x, y in zip(picks["x"], picks["y"], strict=True)
        )
        n = len(picks["x"])
        take_tool(page, "l")
        page.mouse.move(*at(page, 100, 100))
        page.mouse.down()
        for corner in [(540, 100), (540, 540), (100, 540), (100, 100)]:
            page.mouse.move(*at(page, *corner), steps=8)
        page.mouse.up()
        expect(page.get_by_test_id("n-shown")).to_have_text(str(n - inside))
        page.get_by_role("button", name="Undo").click()
        expect(page.get_by_test_id("n-shown")).to_have_text(str(n))
        page.get_by_role("button", name="Redo").click()
        expect(page.get_by_test_id("n-shown")).to_have_text(str(n - inside))

    assert 0 < inside < n


def test_keys_go_to_the_fullest_and_the_emptiest_field_and_onwards(
    chromium: Browser, shared: Served
) -> None:
    rows = shared.ask("api/fields?sort=picks&columns=name,picks")["rows"]
    ids = [row[0] for row in shared.ask("api/fields?columns=name")["rows"]]
    with watched_page(chromium, shared) as (page, _):
        shown = page.get_by_test_id("shown-field")
        open_first(page)
        page.keyboard.press("f")
        expect(shown).to_have_text(rows[-1][0])
        page.keyboard.press("e")
        expect(shown).to_have_text(rows[0][0])
        go(page, f"#/micrograph/{ids[0]}")
        expect(shown).to_have_text(ids[0])
        for i in ids[1:3]:
            page.keyboard.press("ArrowRight")
            expect(shown).to_have_text(i)
        page.keyboard.press("ArrowLeft")
        expect(shown).to_have_text(ids[1])


def test_contrast_and_views_change_the_picture_at_once(chromium: Browser, shared: Served) -> None:
    # Copied to another canvas: reading the page's own would change how Chromium keeps it.
    grey = (
        "() => { const c = document.querySelector('.canvas-view canvas');"
        " const o = new OffscreenCanvas(40, 40); const g = o.getContext('2d');"
        " g.drawImage(c, c.width / 2, c.height / 2, 40, 40, 0, 0, 40, 40);"
        " const d = g.getImageData(0, 0, 40, 40).data;"
        " let s = 0; for (let i = 0; i < d.length; i += 4) s += d[i]; return s / (d.length / 4); }"
    )
    with watched_page(chromium, shared) as (page, _):
        open_first(page)
        plain = changed(page, grey, 0.0)
        page.keyboard.press("i")
        inverted = changed(page, grey, plain)
        assert abs(inverted - (255 - plain)) < 12
        for key in ("s", "t"):
            before = page.evaluate(grey)
            page.keyboard.press(key)
            changed(page, grey, before)
