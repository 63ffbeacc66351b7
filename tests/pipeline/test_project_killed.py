from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

KILLING = Path(__file__).with_name("project_killing.py")


@pytest.mark.parametrize(("what", "fewest"), [("run", 80), ("migrate", 15)])
def test_killed_between_any_two_changes_a_project_is_whole_and_ends_the_same(
    tmp_path, what, fewest
):
    ended = subprocess.run(
        [sys.executable, str(KILLING), str(tmp_path), what], capture_output=True, text=True
    )

    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > fewest
