"""The page on micrographs of a microscope: apoferritin, EMPIAR-10146."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from browser_world import Served, find_chromium, go, serving, watched_page
from playwright.sync_api import Browser, expect

from cryopick.execution.parameters import ComputeParameters
from cryopick.pipeline.run import run_project
from cryopick.pipeline.run_parameters import RunParameters

pytest_plugins = ["browser_world"]
pytestmark = [pytest.mark.data, pytest.mark.slow]


@pytest.fixture
def real_project(test_data: Path, tmp_path: Path) -> Path:
    """A folder with a project of three micrographs, picked with the general model."""
    find_chromium()
    images = sorted((test_data / "apoferritin" / "micrographs").iterdir())[:3]
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        run_project(
            [str(image) for image in images],
            Path("project"),
            parameters=RunParameters(
                diameter=130.0,
                picker="general",
                until="picks",
                voltage=300.0,
                spherical_aberration=2.7,
            ),
            compute=ComputeParameters(workers=1, threads=1),
            pixel_size=1.5,
        )
    finally:
        os.chdir(before)
    return tmp_path


def test_real_micrographs_are_shown_with_picks_spectrum_and_counts(
    chromium: Browser, real_project: Path
) -> None:
    with serving(real_project) as served, watched_page(chromium, served) as (page, _):
        expect(page.get_by_test_id("n-accepted")).to_have_text("3")
        go(page, "#/micrograph/first")
        shown = page.get_by_test_id("shown-field")
        expect(shown).not_to_have_text("", timeout=60_000)
        here = served.ask(f"api/sets/{picks_set(served)}/fields/{shown.text_content()}")
        assert here["n"] > 20
        expect(page.get_by_test_id("n-shown")).to_have_text(str(here["n"]))
        spectrum = page.get_by_role("region", name="Spectrum")
        expect(spectrum).to_contain_text("trusted")
        page.keyboard.press("t")
        expect(page.get_by_text("reading …")).to_have_count(0, timeout=60_000)


def picks_set(served: Served) -> str:
    """Id of the set of picks."""
    return str(served.ask("api/sets")["sets"][0]["id"])
