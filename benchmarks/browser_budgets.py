"""Measure what users wait for in the browser, and print it beside its budget.

    python benchmarks/browser_budgets.py small WORK      first paint, next micrograph, slider
    python benchmarks/browser_budgets.py large WORK      50,000 fields: table, gallery, memory

`WORK/small` holds `data/micrographs` and the `project` that a run made of them (at least to the
picks); fields of 4096 px are what users have. The large project is made of it by links.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page

from browser_pages import Served, opened, serving
from browser_sets import make_large_project

N_LARGE, N_PEAKS = 50_000, 4000
IDLE = 120  # s
SLIDER = """
async () => {
  const slider = document.querySelector('.score-histogram input');
  const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set;
  const low = Number(slider.min), high = Number(slider.max), n = 120;
  const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
  await frame();
  const times = [performance.now()];
  for (let i = 0; i < n; i += 1) {
    set.call(slider, low + (high - low) * (0.5 - 0.5 * Math.cos((i / n) * 4 * Math.PI)));
    slider.dispatchEvent(new Event('input', { bubbles: true }));
    await frame();
    times.push(performance.now());
  }
  return times;
}"""
SCROLL = """
async () => {
  const box = document.querySelector('.virtual-grid, .table');
  const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
  const times = [performance.now()];
  for (let i = 1; i <= 120; i += 1) {
    box.scrollTop = (box.scrollHeight - box.clientHeight) * (i / 120);
    await frame();
    times.push(performance.now());
  }
  return times;
}"""


def say(what: str, value: float, unit: str, budget: str, *, is_kept: bool) -> None:
    """Print one line of the table."""
    print(f"| {what} | {value:.0f} {unit} | {budget} | {'kept' if is_kept else 'MISSED'} |")


def family(pid: int) -> list[int]:
    """List a process and its children."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True)
    rows = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()[1:]]
    found = [pid]
    for _ in range(4):
        found += [p for p, parent in rows if parent in found and p not in found]
    return found


def memory_of(pid: int, kind: str) -> float:
    """Memory of a process, MB: Rss, or Pss, in which shared pages count in parts."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has just ended
        return 0.0
    (line,) = [line for line in text.splitlines() if line.startswith(f"{kind}:")]
    return int(line.split()[1]) / 1024


def say_memory(pid: int, what: str) -> None:
    """Print the memory of the server, and of it with the processes that compute for it."""
    own = memory_of(pid, "Rss")
    whole = sum(memory_of(one, "Pss") for one in family(pid))
    say(f"server, {what}", own, "MB", "500 MB", is_kept=own <= 500)
    say("the same with its helpers", whole, "MB", "500 MB", is_kept=whole <= 500)


def rates(times: list[float]) -> tuple[float, float]:
    """Frames per second: over all, and of the slowest tenth of the frames."""
    steps = [b - a for a, b in itertools.pairwise(times)]
    slow = sorted(steps)[-max(1, len(steps) // 10) :]
    return 1000 * len(steps) / sum(steps), 1000 / statistics.mean(slow)


def first_paint(page: Page) -> float:
    """Milliseconds from the request of the page to its first content, cookie in hand."""
    page.reload()
    page.get_by_test_id("n-accepted").wait_for()
    return float(
        page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    )


def next_times(page: Page, number: int, *, pause: float) -> list[float]:
    """Milliseconds from the key to the next micrograph with its picks on the screen."""
    times = []
    shown = page.get_by_test_id("shown-field")
    for _ in range(number):
        before = shown.text_content()
        time.sleep(pause)
        times.append(
            page.evaluate(
                """(before) => new Promise((resolve) => {
                  const start = performance.now();
                  const look = () => {
                    const now = document.querySelector('[data-testid=shown-field]').textContent;
                    const done = () => resolve(performance.now() - start);
                    requestAnimationFrame(now && now !== before ? done : look);
                  };
                  dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight', bubbles: true }));
                  look();
                })""",
                before,
            )
        )
    return times


@contextmanager
def page_of(folder: Path) -> Iterator[tuple[Served, Page]]:
    """Serve a project and open it."""
    with serving(folder) as served, opened(served) as page:
        yield served, page


def measure_small(work: Path) -> None:
    """Measure with few fields, as large as microscopes make them."""
    dense = make_large_project(work / "small", work / "dense", number=60, peaks=N_PEAKS)
    with page_of(dense) as (served, page):
        paint = statistics.median(first_paint(page) for _ in range(5))
        say("first paint", paint, "ms", "1000 ms", is_kept=paint <= 1000)
        page.evaluate("location.hash = '#/micrograph/first'")
        page.get_by_test_id("shown-field").filter(has_text="a").or_(
            page.get_by_test_id("shown-field").filter(has_text="0")
        ).first.wait_for(state="attached")
        time.sleep(4)
        ahead = statistics.median(next_times(page, 10, pause=2.0))
        say("next micrograph, after 2 s", ahead, "ms", "150 ms", is_kept=ahead <= 150)
        hasty = statistics.median(next_times(page, 10, pause=0.0))
        say("next micrograph, without a pause", hasty, "ms", "-", is_kept=True)
        every, slow = rates(page.evaluate(SLIDER))
        say(f"threshold, {N_PEAKS} picks", every, "frames/s", "30 frames/s", is_kept=every >= 30)
        say("the same, slowest tenth", slow, "frames/s", "-", is_kept=True)
        time.sleep(20)
        say_memory(served.pid, "after 20 fields of 4096 px")
        time.sleep(IDLE)
        say_memory(served.pid, "when nobody has looked for two minutes")


def measure_large(work: Path) -> None:
    """Measure with 50,000 fields."""
    many = make_large_project(work / "small", work / "many", number=N_LARGE, peaks=400)
    with page_of(many) as (served, page):
        page.get_by_test_id("n-accepted").wait_for(timeout=120_000)
        paint = statistics.median(first_paint(page) for _ in range(5))
        say(f"first paint, {N_LARGE} fields", paint, "ms", "1000 ms", is_kept=paint <= 1000)
        page.get_by_role("grid").wait_for()
        every, slow = rates(page.evaluate(SCROLL))
        say(f"table of {N_LARGE} scrolls", every, "frames/s", "30 frames/s", is_kept=every >= 30)
        say("the same, slowest tenth", slow, "frames/s", "-", is_kept=True)
        page.evaluate("location.hash = '#/micrograph'")
        page.get_by_role("listbox").get_by_role("option").first.wait_for()
        every, slow = rates(page.evaluate(SCROLL))
        say(f"gallery of {N_LARGE} scrolls", every, "frames/s", "30 frames/s", is_kept=every >= 30)
        say("the same, slowest tenth", slow, "frames/s", "-", is_kept=True)
        time.sleep(5)
        say_memory(served.pid, f"{N_LARGE} fields")


def main() -> None:
    """Measure what is named."""
    if len(sys.argv) != 3 or sys.argv[1] not in ("small", "large"):
        sys.exit(__doc__)
    print("| what | measured | budget | |\n|---|---|---|---|")
    {"small": measure_small, "large": measure_large}[sys.argv[1]](Path(sys.argv[2]))


if __name__ == "__main__":
    main()
