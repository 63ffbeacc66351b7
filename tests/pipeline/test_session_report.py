"""The report of a session is drawn anew while it works, and says what was done by then."""

from __future__ import annotations

import re
from pathlib import Path

from run_world import changed
from session_world import (
    TO_PARTICLES,
    WATCHING,
    bring,
    meanwhile,
    session,
    status_of,
    until,
    wait_for,
)

pytest_plugins = ("run_world",)

DRAWN = changed(WATCHING, idle=0, report=0.005)
FLOW = re.compile(
    r'<th scope="row">([^<]+)</th><td class="bar">.*?</td><td class="number">([\d,]+)</td>'
)
STEPS = ("Given", "CTF estimated", "Searched")


def told():
    """Micrographs at each step, and picks, as the report has them; none before there is one."""
    path = Path("project/report.html")
    found = dict(FLOW.findall(path.read_text())) if path.exists() else {}
    return {name: int(number.replace(",", "")) for name, number in found.items()}


def test_the_report_follows_the_session(run_folder):
    bring(1, 2)
    seen = []

    def drawn(count):
        def look():
            wait_for(lambda _: [told().get(name) for name in STEPS] == [count] * len(STEPS))
            seen.append((told()["Picked"], status_of("project")["counts"]["picks"]))

        return look

    with meanwhile(until(extracted=2), drawn(2), lambda: bring(3), until(extracted=3), drawn(3)):
        session("incoming", parameters=TO_PARTICLES, watching=DRAWN)

    assert seen[0][0] == seen[0][1] < seen[1][0] == seen[1][1]
    assert told()["Extracted"] == status_of("project")["counts"]["particles"]


def test_nothing_is_drawn_before_the_last_pass_where_nobody_asks_for_it(run_folder):
    bring(1)
    there = []

    def look():
        there.append(Path("project/report.html").exists())

    with meanwhile(until(extracted=1), look):
        session("incoming", parameters=TO_PARTICLES, watching=changed(DRAWN, report=0))

    assert there == [False]
    assert told()["Given"] == 1
