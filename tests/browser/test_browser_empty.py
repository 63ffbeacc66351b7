"""Projects with nothing in them, and with nothing that could be read: the page says what to do."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from browser_world import find_chromium, go, serving, watched_page
from playwright.sync_api import Browser, expect

from cryopick.execution.parameters import ComputeParameters
from cryopick.io.mrc import write_mrc
from cryopick.pipeline.project import Project
from cryopick.pipeline.run import run_project
from cryopick.pipeline.run_parameters import RunParameters

pytest_plugins = ["browser_world"]

PLACES = ("overview", "micrograph", "classes", "particles", "tomograms", "jobs/new/run", "export")


@pytest.fixture
def cut_short(tmp_path: Path) -> Path:
    """A folder with a project of three micrographs whose files end too early."""
    find_chromium()
    (tmp_path / "data").mkdir()
    for number in (1, 2, 3):
        path = tmp_path / "data" / f"cut_{number}.mrc"
        write_mrc(path, np.zeros((64, 64), np.float32), pixel_size=2.0)
        os.truncate(path, 5000)
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        result = run_project(
            ["data"],
            Path("project"),
            parameters=RunParameters(
                diameter=180.0, picker="general", voltage=300.0, spherical_aberration=2.7
            ),
            compute=ComputeParameters(workers=1, threads=1),
            pixel_size=2.0,
        )
    finally:
        os.chdir(before)
    assert result.halted is not None
    return tmp_path


def test_an_empty_project_says_how_to_begin(chromium: Browser, tmp_path: Path) -> None:
    Project.open(tmp_path / "project", create=True).close()
    with serving(tmp_path) as served, watched_page(chromium, served) as (page, _):
        steps = page.get_by_role("region", name="First steps")
        expect(steps).to_contain_text(f"cryopick run MICROGRAPHS --out {served.project.resolve()}")
        expect(steps).to_contain_text("cryopick session start")
        for place in PLACES:
            go(page, f"#/{place}")
            expect(page.locator("[aria-busy=true]")).to_have_count(0)
            expect(page.locator("main")).not_to_be_empty()
        go(page, "#/jobs/plan")
        expect(page.get_by_role("button", name="Run", exact=True)).to_be_disabled()


def test_micrographs_that_cannot_be_read_are_there_with_the_reason(
    chromium: Browser, cut_short: Path
) -> None:
    with serving(cut_short) as served, watched_page(chromium, served) as (page, _):
        expect(page.get_by_role("alert")).to_contain_text("CTF has stopped")
        expect(page.get_by_role("grid").get_by_text("failed")).to_have_count(3)
        go(page, "#/micrograph")
        reasons = page.get_by_role("listbox").get_by_text("must hold")
        expect(reasons).to_have_count(3)
        reasons.first.click()
        expect(page.get_by_role("heading", name="cut_1.mrc")).to_be_visible()
        expect(page.get_by_role("alert")).to_contain_text("must hold")
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("heading", name="cut_2.mrc")).to_be_visible()
