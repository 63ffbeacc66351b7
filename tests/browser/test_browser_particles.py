"""Particles, tomograms, jobs, exports: each change is that of the command which is shown."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from browser_world import SLOW, Served, go, serving, watched_page
from playwright.sync_api import Browser, expect

from cryopick.io.star import read_star

pytest_plugins = ["browser_world"]


def test_particles_that_are_disabled_are_left_out_of_the_table_that_is_saved(
    chromium: Browser, served: Served
) -> None:
    with watched_page(chromium, served) as (page, _):
        go(page, "#/particles")
        cards = page.get_by_role("listbox", name="Particles").get_by_role("option")
        expect(cards.nth(4)).to_contain_text("Particle 5")
        cards.nth(1).click()
        cards.nth(3).click(modifiers=["Shift"])
        expect(page.get_by_test_id("n-marked")).to_have_text("3 particles")
        page.get_by_role("button", name="Disable", exact=True).click()
        expect(page.get_by_text("3 particles disabled in all")).to_be_visible()
        expect(cards.nth(2)).to_contain_text("Particle 3, disabled")
        page.get_by_role("button", name="of all enabled").click()
        expect(page.get_by_role("img", name="Average")).to_be_visible(timeout=SLOW)
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.get_by_text("selections/subset: particles.star")).to_be_visible(timeout=SLOW)
        expect(page.get_by_test_id("command")).to_contain_text("subset")

    before = read_star(served.project / "selection" / "particles.star")["particles"]
    after = read_star(served.project / "selections" / "subset" / "particles.star")["particles"]
    kept = [name for i, name in enumerate(before["rlnImageName"]) if i not in (1, 2, 3)]
    assert list(after["rlnImageName"]) == kept


def test_a_job_is_started_from_its_form_and_can_be_watched(
    chromium: Browser, served: Served
) -> None:
    with watched_page(chromium, served) as (page, _):
        go(page, "#/jobs/new/pick-log")
        page.get_by_label("Micrographs").select_option("all")
        page.get_by_label("Min diameter").fill("150")
        page.get_by_label("Min diameter").blur()
        page.get_by_label("Max diameter").fill("200")
        page.get_by_label("Max diameter").blur()
        form = page.get_by_role("form")
        expect(form.locator("code")).to_contain_text("--max-diameter")
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_test_id("job-state")).to_have_text("done", timeout=SLOW)
        expect(page.get_by_test_id("command")).to_contain_text("cryopick pick log")

        (field,) = (row[0] for row in served.ask("api/fields?columns=name&limit=1")["rows"])
        go(page, f"#/micrograph/{field}?set=t1")
        expect(page.get_by_test_id("shown-field")).to_have_text(field)
        slider = page.get_by_role("slider", name="Threshold")
        peaks = served.ask(f"api/sets/t1/fields/{field}?source=peaks")["columns"]["score"]
        middle = sorted(peaks)[len(peaks) // 2] - 1e-6
        slider.evaluate(
            "(s, v) => { s.step = 'any'; s.value = v;"
            " s.dispatchEvent(new Event('input', { bubbles: true })); }",
            middle,
        )
        n_above = sum(score >= middle for score in peaks)
        expect(page.get_by_test_id("n-shown")).to_have_text(str(n_above))

    found = [one for one in served.ask("api/sets")["sets"] if "t1" in str(one["job"])]
    assert found
    assert found[0]["n_picks"] > 0
    assert 0 < n_above < len(peaks)


def test_the_form_says_what_the_command_line_would_refuse(
    chromium: Browser, shared: Served
) -> None:
    with watched_page(chromium, shared) as (page, _):
        go(page, "#/jobs/new/extract")
        page.get_by_label("Box size *").fill("127")
        page.get_by_label("Box size *").blur()
        form = page.get_by_role("form")
        expect(form.get_by_role("alert")).to_contain_text("127")
        expect(page.get_by_role("button", name="Start")).to_be_disabled()


def test_a_change_of_the_threshold_does_again_what_depends_on_it_and_no_more(
    chromium: Browser, shared: Served
) -> None:
    with watched_page(chromium, shared) as (page, _):
        go(page, "#/jobs/plan")
        plan = page.get_by_role("region", name="What would change")
        expect(plan.get_by_text("kept").first).to_be_visible(timeout=SLOW)
        n_kept = plan.get_by_text("kept", exact=True).count()
        threshold = page.get_by_label("Threshold", exact=True)
        threshold.fill("0.9")
        threshold.blur()
        expect(plan.get_by_text("kept", exact=True)).not_to_have_count(n_kept, timeout=SLOW)
        steps = plan.get_by_role("listitem").all_inner_texts()

    fates = {text.split("\n")[1]: text.split("\n")[0] for text in steps}
    assert fates["Picks"] == "kept"
    assert fates["Particles"] != "kept"


def test_a_run_from_the_plan_does_again_what_the_plan_said(
    chromium: Browser, own_project: Path
) -> None:
    with serving(own_project) as served, watched_page(chromium, served) as (page, _):
        before = json.loads((served.project / "aliases.json").read_bytes())
        go(page, "#/jobs/plan")
        page.get_by_label("Minimum score", exact=True).fill("0.2")
        page.get_by_label("Minimum score", exact=True).blur()
        plan = page.get_by_role("region", name="What would change")
        expect(plan.get_by_text("done again", exact=True)).to_have_count(1, timeout=SLOW)
        page.get_by_role("button", name="Run", exact=True).click()
        expect(page.get_by_test_id("job-state")).to_have_text("done", timeout=SLOW)

    after = json.loads((served.project / "aliases.json").read_bytes())
    assert after.pop("selection") != before.pop("selection")
    assert after == before


def test_a_project_is_exported_for_relion_and_shared(chromium: Browser, served: Served) -> None:
    with watched_page(chromium, served) as (page, _):
        go(page, "#/export")
        page.get_by_role("button", name="Export", exact=True).click()
        expect(page.get_by_text("Written to")).to_be_visible(timeout=SLOW)
        expect(page.get_by_test_id("command")).to_contain_text("--layout relion")
        page.get_by_role("button", name="Make a link").click()
        link = page.get_by_test_id("share-link").input_value()
        with page.expect_download() as download:
            page.get_by_role("link", name="accepted micrographs").click()
        fields = read_star(Path(download.value.path()))["micrographs"]

    assert link.startswith(served.address + "?share=")
    assert (served.project / "exports" / "for_relion" / "default_pipeline.star").is_file()
    assert len(fields) == 5


@pytest.fixture
def with_tomogram(own_project: Path) -> Path:
    """The project with a small simulated tomogram and a job that picked in it."""
    from typer.testing import CliRunner

    from cryopick.cli.app import app

    def run(*words: str) -> None:
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code == 0, result.output

    folder, alone = own_project / "tomogram", ("--workers", "1", "--threads", "1")
    run(
        "simulate", "tomogram", "--particles", "4", "--width", "96", "--height", "96",
        "--depth", "48", "--voxel-size", "12", "--snr", "1", "--out", str(folder), *alone,
    )  # fmt: skip
    task = own_project / "project" / "tasks" / "0001_tomo_pick"
    run("tomo", "pick", str(folder / "tomograms" / "sim_00001.mrc"), "--out", str(task), *alone)
    return own_project


def test_slices_go_to_the_picks_of_a_tomogram(chromium: Browser, with_tomogram: Path) -> None:
    with serving(with_tomogram) as served, watched_page(chromium, served) as (page, _):
        go(page, "#/tomograms")
        one = served.ask("api/tomograms")["tomograms"][0]
        picks = served.ask(f"api/tomograms/{one['id']}/picks")
        assert picks["n"] > 0
        expect(page.get_by_role("img", name="Slice z = 24")).to_be_visible()
        expect(page.get_by_text("step through the picks")).to_be_visible()
        page.keyboard.press("n")
        expect(page.get_by_text(f"pick 1 of {picks['n']}")).to_be_visible()
        z = math.floor(picks["columns"]["z"][0] + 0.5)
        expect(page.get_by_role("img", name=f"Slice z = {z}:")).to_be_visible()
        page.keyboard.press("]")
        expect(page.get_by_role("img", name=f"Slice z = {z + 1}:")).to_be_visible()
        for axis in "xyz":
            expect(page.get_by_role("slider", name=axis, exact=True)).to_be_visible()
