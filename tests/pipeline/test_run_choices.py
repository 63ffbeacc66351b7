"""What a user may choose of a run: pickers, diameter, CTF; and where it cannot go on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from run_world import DIAMETER, GENERAL, QUICK, TABLE, changed, new_steps, run, write_table
from topaz_world import VERSION, stand_in

from cryopick.errors import DataError, ParameterError
from cryopick.io.mrc import write_mrc
from cryopick.pipeline.evaluate import evaluate_pick_files
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.tables.relion import read_micrographs

pytest_plugins = ("run_world",)

UNTIL_PICKS = changed(GENERAL, until="picks")


def scores(folder):
    return evaluate_pick_files(Path(folder), Path("data/truth.json")).picks.total


def test_the_network_is_not_trained_where_nobody_wants_that(run_folder):
    general = run(parameters=UNTIL_PICKS, out="general")
    untrained = run(
        parameters=changed(UNTIL_PICKS, picker="network", training=False), out="network"
    )

    assert new_steps(general) == new_steps(untrained) == ["picks"]
    one, other = (sorted(Path(p, "picks").rglob("sim_*.star")) for p in ("general", "network"))
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in other]
    assert scores("general/picks").recall > 0.95


def test_the_diameter_is_estimated_where_nobody_tells_it(run_folder):
    result = run(write_table("two.star", [0, 1]), parameters=changed(UNTIL_PICKS, diameter=None))

    assert new_steps(result) == ["diameter", "picks"]
    estimate = json.loads(Path("project/diameter/diameter.json").read_text())["diameter"]
    assert abs(estimate - DIAMETER) < 0.2 * DIAMETER
    assert result.steps[1].facts["n_picks"] > 60
    told = run("two.star", parameters=UNTIL_PICKS)
    assert new_steps(told) == ["picks"]


def test_a_ctf_that_the_table_lacks_is_estimated(run_folder):
    lacking = write_table("lacking.star", [0, 1], without=("defocus_u", "defocus_v"))

    result = run(lacking, parameters=UNTIL_PICKS)

    assert new_steps(result) == ["ctf", "picks"]
    found = read_micrographs(Path("project/ctf/micrographs_ctf.star")).rows
    true = read_micrographs(Path(TABLE)).rows.iloc[:2]
    assert np.abs(found["defocus_u"].to_numpy() - true["defocus_u"].to_numpy()).max() < 400


def test_images_without_a_table_need_voltage_and_aberration_for_their_ctf(run_folder):
    fields = "data/micrographs/sim_0000[12].mrc"
    with_lens = changed(UNTIL_PICKS, until="ctf", voltage=300.0, spherical_aberration=2.7)

    assert new_steps(run(fields, parameters=with_lens, pixel_size=4.0)) == ["ctf"]
    halted = run(fields, parameters=changed(UNTIL_PICKS, until="ctf"), out="other").halted
    assert halted is not None
    assert "voltage" in str(halted.error)
    ignoring = changed(UNTIL_PICKS, ctf="ignore")
    assert new_steps(run(fields, parameters=ignoring, out="ignoring")) == ["picks"]


def test_without_a_ctf_particles_have_none(run_folder):
    lacking = write_table("lacking.star", [0, 1], without=("defocus_u", "defocus_v"))
    parameters = RunParameters(diameter=DIAMETER, ctf="ignore", **QUICK)

    result = run(lacking, parameters=changed(parameters, until="first_selection"))

    assert result.halted is None
    assert new_steps(result)[0] == "first_picks"
    optimiser = next(Path("project/first_classes").glob("run_it*_optimiser.star")).read_text()
    assert "_rlnDoCorrectCtf" in optimiser
    line = next(t for t in optimiser.splitlines() if t.startswith("_rlnDoCorrectCtf "))
    assert line.split()[1] == "0"


_TRAIN_AND_FIND = """
if [ "$1" = train ]; then
  printf "epoch\\titer\\tsplit\\tloss\\tauprc\\n1\\t1\\ttest\\t1\\t0.4\\n"
  for k in 1 2 3 4 5 6 7 8 9 10; do echo model > model_epoch$k.sav; done
  exit
fi
while read name; do
  stem=${name%.mrc}
  echo "# Extracted 1 particles from $stem" >&2
  printf "$stem\\t40\\t44\\t1.5\\n"
done
"""


def test_topaz_picks_with_its_own_model_where_nobody_trains_it(run_folder, monkeypatch):
    monkeypatch.setenv("CRYOPICK_TOPAZ_EXECUTABLE", stand_in(_TRAIN_AND_FIND, version=VERSION))
    parameters = changed(UNTIL_PICKS, picker="topaz", training=False)

    result = run(write_table("two.star", [0, 1]), parameters=parameters)

    assert new_steps(result) == ["picks"]
    assert result.steps[0].facts["n_picks"] == 2


@pytest.mark.slow
def test_topaz_is_trained_on_good_classes_and_picks(run_folder, monkeypatch):
    program = stand_in(_TRAIN_AND_FIND, version=VERSION)
    monkeypatch.setenv("CRYOPICK_TOPAZ_EXECUTABLE", program)
    parameters = RunParameters(diameter=DIAMETER, picker="topaz", until="picks", **QUICK)

    result = run(write_table("three.star", [0, 1, 2]), parameters=parameters)

    assert result.halted is None, result.halted
    assert new_steps(result)[-2:] == ["training", "picks"]
    assert result.steps[-1].facts["n_picks"] == 3


def test_topaz_that_is_not_there_halts_the_run_with_the_way_to_get_it(run_folder, monkeypatch):
    monkeypatch.setenv("CRYOPICK_TOPAZ_EXECUTABLE", str(run_folder / "nowhere"))
    parameters = changed(UNTIL_PICKS, picker="topaz", training=False)

    said = [str(run(parameters=parameters).halted.error) for _ in range(2)]

    assert "nowhere" in said[0]
    assert said[0] == said[1]


def test_where_no_class_is_good_the_run_halts_with_the_gallery(run_folder):
    parameters = changed(GENERAL, minimum_score=1.0)

    result = run(parameters=parameters)

    assert result.halted is not None
    assert result.halted.step == "selection"
    assert isinstance(result.halted.error, DataError)
    assert "Look at project/jobs/0004_selection/class_scores.png; lower" in str(result.halted.error)
    assert "--overwrite" not in str(result.halted.error)
    assert Path("project/selection/class_scores.png").stat().st_size > 10_000
    assert result.report.exists()
    again = run(parameters=parameters)
    assert str(again.halted.error) == str(result.halted.error)
    lower = run(parameters=GENERAL)
    assert lower.halted is None
    assert new_steps(lower) == ["selection"]


def test_fields_of_noise_halt_the_run_with_a_sentence(run_folder):
    rng = np.random.default_rng(3)
    Path("noise").mkdir()
    for k in range(3):
        pixels = rng.normal(size=(400, 400)).astype(np.float32)
        write_mrc(Path(f"noise/n{k}.mrc"), pixels, pixel_size=4.0)
    parameters = RunParameters(diameter=DIAMETER, ctf="ignore")

    result = run("noise", parameters=parameters)

    assert result.halted is not None
    assert result.halted.step in ("first_particles", "first_classes")
    assert result.report.exists()
    assert str(run("noise", parameters=parameters).halted.error) == str(result.halted.error)


def test_parameters_that_contradict_each_other_are_refused_before_anything_is_made(run_folder):
    with pytest.raises(ParameterError, match="must be given together"):
        RunParameters(min_diameter=100)
    with pytest.raises(ParameterError, match="not be given with min_diameter"):
        RunParameters(diameter=150, min_diameter=100, max_diameter=200)
    with pytest.raises(ParameterError, match="min_diameter must be at most max_diameter"):
        RunParameters(min_diameter=200, max_diameter=100)
    with pytest.raises(ParameterError, match="rescale must be at most the box size"):
        RunParameters(box_size=64, rescale=128)
    with pytest.raises(ParameterError, match="name a step of this run, one of picks, particles"):
        run(parameters=changed(GENERAL, until="training"))
    assert not Path("project").exists()
