r"""Draw the pictures of the browser in docs/images.

    python benchmarks/browser_pictures.py WORK [OUT]

`WORK` holds `data` and `project`, made by

    cryopick simulate micrographs --out data --number 24 --width 1024 --height 1024 \
        --pixel-size 2.5 --particles 70 --carbon-fraction 0.2 --ice-blobs 1
    cryopick run data/micrographs --pixel-size 2.5 --voltage 300 --spherical-aberration 2.7 \
        --picker general --diameter 182 --classes 16 --rescale 64 --out project
    cryopick simulate tomogram --particles 12 --width 160 --height 160 --depth 64 \
        --voxel-size 10 --snr 0.2 --out tomogram
    cryopick tomo pick tomogram/tomograms/sim_00001.mrc --out project/tasks/0001_tomo_pick
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from browser_pages import opened, serving

WIDTH, HEIGHT = 1280, 800
FLAT, COLOURS = 40, 96  # of a picture; few enough for small files, enough for greys


def save(page: Page, path: Path) -> None:
    """Save what is on the screen as a small PNG."""
    page.wait_for_timeout(600)
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    small = shot.quantize(palette=palette_of(shot), dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def palette_of(shot: Image.Image) -> Image.Image:
    """Choose colours: those of the page as they are, and some that cover the pictures in it."""
    counted = sorted(shot.getcolors(1 << 24) or (), key=lambda found: -found[0])
    flat = [value for _, colour in counted[:FLAT] for value in colour]
    cover = shot.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE).getpalette() or []
    chosen = Image.new("P", (1, 1))
    chosen.putpalette((flat + cover[: 3 * COLOURS])[: 3 * 256])
    return chosen


def go(page: Page, place: str) -> None:
    """Go to a page by its address after `#`."""
    page.evaluate("place => { location.hash = place; }", place)
    page.wait_for_timeout(2500)


def overview(page: Page) -> None:
    """Set a limit that rejects some fields."""
    handle = page.get_by_role("slider", name="Least Picks accepted")
    for _ in range(3):
        handle.press("PageUp")
    handle.blur()


def micrograph(page: Page) -> None:
    """Show a denoised micrograph with picks by score."""
    go(page, "#/micrograph")
    page.get_by_role("listbox").get_by_role("option").nth(6).click()
    page.keyboard.press("t")
    page.locator("[data-testid=shown-field]:not(:empty)").wait_for(state="attached")
    page.get_by_text("reading …").wait_for(state="detached")


def classes(page: Page) -> None:
    """Show the averages, with those selected that the score keeps."""
    go(page, "#/classes")


def particles(page: Page) -> None:
    """Show particles by the probability of their class, filtered."""
    go(page, "#/particles?sort=max_probability&colour=max_probability&low_pass=20")
    page.get_by_role("button", name="of all enabled").click()
    page.get_by_test_id("average-of").wait_for()


def tomogram(page: Page) -> None:
    """Show three slices through a pick."""
    go(page, "#/tomograms")
    page.keyboard.press("n")
    page.keyboard.press("s")


def jobs(page: Page) -> None:
    """Show a new job, from the parameters of its command."""
    go(page, "#/jobs/new/pick-blob")


PICTURES: dict[str, tuple[Callable[[Page], None], str]] = {
    "overview": (overview, "light"),
    "micrograph": (micrograph, "dark"),
    "classes": (classes, "light"),
    "particles": (particles, "dark"),
    "tomogram": (tomogram, "dark"),
    "jobs": (jobs, "light"),
}


def main() -> None:
    """Draw all pictures, or those that are named."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("docs/images")
    with serving(Path(sys.argv[1])) as served:
        for name, (show, scheme) in PICTURES.items():
            size = {"width": WIDTH, "height": HEIGHT}
            with opened(served, viewport=size, color_scheme=scheme) as page:
                page.get_by_role("grid").wait_for()
                show(page)
                save(page, out / f"browser_{name}.png")
                if name == "overview":
                    page.get_by_role("button", name="Clear limits").click()
                    page.wait_for_timeout(500)
        with opened(served, viewport={"width": 390, "height": 780}) as page:
            go(page, "#/classes")
            save(page, out / "browser_phone.png")


if __name__ == "__main__":
    main()
