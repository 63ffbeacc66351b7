"""A stable classification that is killed, restarted or limited ends like one that was not."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from run_faults import CommandLine, Fault, Faults
from stable_world import CHOSEN, DIAMETER, files_of, make_views, stable

from cryopick.class2d.stable_state import StableState
from cryopick.errors import ParameterError
from cryopick.pipeline.class2d_stable_checkpoint import StateKeeper
from cryopick.tables.model import Particles

SMALL: dict[str, Any] = {"img_per_grp": 40, "init_iter": 1, "maxit": 4, "stab_ali": 2}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Particles:
    return make_views(tmp_path_factory.mktemp("few"), n=160, noise=0.3)


@pytest.fixture(scope="module")
def made(few: Particles, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of a run on these that nothing has befallen."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert stable(few, "out", **SMALL)["n_classes"] > 1
    return files_of(folder / "out")


def check_same(out: Path, made: dict[str, bytes]) -> None:
    found = files_of(out)
    assert set(found) == set(made)
    differing = [name for name in made if found[name] != made[name]]
    assert differing == []


def test_killed_after_every_state_it_ends_with_the_same_results(
    few: Particles, made: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written: list[bytes] = []
    offer = StateKeeper.offer

    def killing(keeper: StateKeeper, state: StableState) -> None:
        keeper._next = 0.0  # write every state
        offer(keeper, state)
        now = Path("out/checkpoint.npz").read_bytes()
        if now not in written:
            written.append(now)
            raise Fault

    monkeypatch.setattr(StateKeeper, "offer", killing)
    while True:
        try:
            stable(few, "out", **SMALL)
        except Fault:
            continue
        break
    assert len(written) > 10
    assert sum(b"refinement.iteration" in state for state in written) > 1
    check_same(tmp_path / "out", made)


@pytest.mark.long
def test_after_a_fault_at_each_change_of_the_disk_the_results_are_the_same(
    few: Particles, made: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    faults = Faults(monkeypatch)
    while True:
        faults.begin()
        try:
            stable(few, "out", **SMALL)
        except Fault:
            continue
        break
    assert len(faults.raised) > 30
    check_same(tmp_path / "out", made)


def test_three_kills_change_nothing(
    few: Particles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [f"--{name.replace('_', '-')} {value}" for name, value in (CHOSEN | SMALL).items()]
    given = f"class2d stable {few.source} --diameter {DIAMETER} --threads 1 --out out"
    chance, killed = random.Random(5), 0
    with CommandLine(*given.split(), *" ".join(words).split()) as line:
        assert line.run() == 0, line.said
        made = files_of(tmp_path / "out")
        shutil.rmtree("out")
        begun = time.monotonic()
        assert line.run() == 0, line.said
        seconds = time.monotonic() - begun
        while killed < 3:
            shutil.rmtree("out")  # of one that came to its end
            while killed < 3 and (
                code := line.run(kill_after=chance.uniform(seconds / 10, seconds / 2))
            ):
                assert code == -signal.SIGKILL, line.said
                killed += 1
        assert line.run() == 0, line.said
    check_same(tmp_path / "out", made)


def test_a_run_goes_on_to_more_main_iterations_and_begins_again_after_one(tmp_path: Path) -> None:
    junk = make_views(tmp_path / "junk", n=220, n_noise=90, noise=0.3)  # noise is left at the end
    out = tmp_path / "out"

    first = stable(junk, out, **SMALL | {"main_iter_limit": 1})
    assert not first["is_exhausted"]
    assert not (out / "mains" / "main002").exists()

    endless = SMALL | {"main_iter_limit": -1}
    whole = stable(junk, out, **endless)
    assert whole["is_exhausted"]
    assert whole["n_mains"] == 2
    # the noise is measured again in each partition, so pixel errors differ in their last digits
    for mine, theirs in zip(whole["classes"], first["classes"], strict=True):
        assert mine == theirs | {"pixel_error": pytest.approx(theirs["pixel_error"], rel=0.05)}
    made = files_of(out)

    (out / "mains" / "main002" / "generation007").mkdir(parents=True)  # of no run
    assert stable(junk, out, restart=1, **endless)["classes"] == whole["classes"]
    check_same(out, made)

    with pytest.raises(ParameterError, match=r"restart must be a main iteration that is finished"):
        stable(junk, out, restart=3, **endless)
    with pytest.raises(ParameterError, match=r"be at least 2, which are done; got 1"):
        stable(junk, out, **SMALL | {"main_iter_limit": 1})


def test_restart_0_takes_up_the_main_iteration_that_was_not_finished(
    few: Particles, made: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stable(few, "out", **SMALL)
    shutil.rmtree("out/mains")
    stable(few, "out", restart=0, **SMALL)
    check_same(tmp_path / "out", made)
