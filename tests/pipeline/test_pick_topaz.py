"""``pick topaz``: the real program where it is installed, and stand-ins that go wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from topaz_world import (
    DIAMETER,
    FIND_ONE,
    ONE_THREAD,
    VERSION,
    noise,
    stand_in,
    write_labels,
)

from cryopick.errors import CryopickError, DataError, FormatError, ParameterError, ProjectError
from cryopick.io.mrc import write_mrc
from cryopick.io.star import read_star
from cryopick.picking.topaz_parameters import (
    TopazComputeParameters,
    TopazPickParameters,
    TopazTrainParameters,
)
from cryopick.pipeline.evaluate import evaluate_pick_files, read_truth
from cryopick.pipeline.labelled_fields import read_labels
from cryopick.pipeline.topaz_pick import pick_with_topaz
from cryopick.pipeline.topaz_program import TopazProgram, TopazRun, find_topaz, telling_line
from cryopick.pipeline.topaz_setup import set_up_topaz
from cryopick.pipeline.topaz_train import train_topaz
from cryopick.tables.micrographs import open_micrographs
from cryopick.tables.pick_scores import LOG_ODDS
from cryopick.tables.relion import picks_of_file, read_picks

pytest_plugins = ("topaz_world",)

_TABLE = "micrographs_ctf.star"
_SENTENCE = re.compile(r".+ must .+; got .+\. .+\.")
_KILLED = "kill -9 $$\n"
_REAL = os.environ.get("CRYOPICK_TOPAZ_EXECUTABLE") or shutil.which("topaz") or ""


@pytest.fixture
def real():
    """Topaz itself."""
    if not _REAL:
        pytest.skip("no Topaz: set CRYOPICK_TOPAZ_EXECUTABLE, or put topaz on the PATH")
    return _REAL


def train(labels="labels.star", out="train", *, compute=ONE_THREAD, **given):
    parameters = TopazTrainParameters(**{"diameter": DIAMETER, "downscale": 2, **given})
    return train_topaz([_TABLE], Path(labels), Path(out), parameters=parameters, compute=compute)


def pick(micrographs=_TABLE, out="pick", *, compute=ONE_THREAD, **given):
    parameters = TopazPickParameters(**{"diameter": DIAMETER, "downscale": 2, **given})
    return pick_with_topaz([micrographs], Path(out), parameters=parameters, compute=compute)


def refusal(kind, function, *words, **given):
    with pytest.raises(kind) as raised:
        function(*words, **given)
    sentence = str(raised.value)
    assert _SENTENCE.fullmatch(sentence), sentence
    assert "\n" not in sentence
    return sentence


def truth():
    return read_truth(Path("truth.json")).rows


# the real program


@pytest.mark.topaz
@pytest.mark.slow
def test_topaz_learns_half_the_particles_of_three_fields_and_finds_those_of_the_fourth(
    topaz_project, real
):
    steps = []
    result = train_topaz(
        [_TABLE],
        Path("three.star"),
        Path("train"),
        parameters=TopazTrainParameters(
            diameter=DIAMETER,
            downscale=2,
            executable=real,
            epochs=2,
            epoch_size=20,
            topaz_args="--minibatch-size 64",
        ),
        compute=ONE_THREAD,
        progress=lambda done, total: steps.append((done, total)),
    )
    found = pick(model=str(result.model), executable=real)
    scores = evaluate_pick_files(Path("pick"), Path("truth.json"))

    assert steps[-1] == (40, 40)
    assert result.auprc == pytest.approx(max(_test_areas("train/curve.txt")))
    assert (result.n_train, result.n_test) == (2, 1)
    assert not Path("train/fields").exists()
    assert found.failed == ()
    fourth = scores.peaks.micrographs[sorted(scores.peaks.micrographs)[-1]]
    assert fourth.average_precision > 0.85
    assert scores.picks.total.recall > 0.8
    assert scores.picks.total.centring_error < 16.0  # A; Topaz gives whole pixels of 8 A
    picks = picks_of_file(Path("pick/micrographs/sim_00001_autopick.star"), "a.mrc")
    assert picks["fom"].is_monotonic_decreasing
    assert picks["fom"].min() >= -3.0
    assert picks["fom"].max() > picks["fom"].min()


def _test_areas(curve):
    rows = pd.read_csv(curve, sep="\t")
    return rows.loc[rows["split"] == "test", "auprc"].astype(float)


@pytest.mark.topaz
@pytest.mark.slow
def test_topaz_expects_the_share_of_particles_that_it_should(topaz_project, real):
    result = train(executable=real, epochs=1, epoch_size=1, particles_per_micrograph=45)
    log = Path("train/topaz.log").read_text()

    prior = float(re.search(r"Setting pi = (\S+)", log).group(1))
    positive, pixels = map(int, re.search(r"# 0\ttrain\t\S+\t(\d+)\t(\d+)", log).groups())
    disc = 13  # px: a radius of 125 / 8 / 8 A
    should_be = (45 - result.labelled) * disc * result.n_train / pixels
    assert result.training_radius == 2
    assert prior - positive / pixels == pytest.approx(should_be, rel=1e-3)


@pytest.mark.topaz
@pytest.mark.slow
def test_what_topaz_itself_objects_to_is_told_in_one_sentence(topaz_project, real):
    said = refusal(ProjectError, train, executable=real, topaz_args="--learning-rate fast")

    assert "`topaz train` must end without an error; got" in said
    assert "invalid float value: 'fast'" in said


@pytest.mark.topaz
@pytest.mark.slow
def test_a_gpu_that_is_not_there_is_told_before_anything_is_computed(topaz_project, real):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    said = refusal(
        ProjectError, pick, executable=real, compute=TopazComputeParameters(device="cuda:0")
    )

    assert "Topaz must find the GPU that --device names" in said


@pytest.mark.topaz
@pytest.mark.slow
def test_the_stand_in_for_torchvision_turns_as_it_says(real, tmp_path):
    stub = Path(real).resolve().parent / "stub"
    if not stub.is_dir():
        pytest.skip("this Topaz was not installed by cryopick pick topaz setup")
    program = (
        "import torch\n"
        "from torchvision.transforms.functional import hflip, rotate, vflip\n"
        "image = torch.rand(1, 7, 7)\n"
        "for quarters in range(4):\n"
        "    turned = torch.rot90(image, quarters, (-2, -1))\n"
        "    assert torch.equal(rotate(image, 90.0 * quarters), turned), quarters\n"
        "assert torch.equal(hflip(vflip(image)), rotate(image, 180))\n"
    )
    subprocess.run(
        [sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONPATH": str(stub)}
    )


# training that goes wrong, and what is refused before


def test_a_missing_program_is_told_with_the_three_places(topaz_project, monkeypatch):
    monkeypatch.setenv("PATH", str(topaz_project))
    said = refusal(ProjectError, train)

    for place in ("--executable", "$CRYOPICK_TOPAZ_EXECUTABLE", "PATH", "pick topaz setup"):
        assert place in said
    assert not Path("train").exists()
    assert "no_such_program" in refusal(ProjectError, pick, executable="no_such_program")


def test_a_program_that_is_not_topaz_is_refused(topaz_project):
    broken = stand_in("", version="echo 'ImportError: no module named torch' >&2; exit 1\n")

    assert "ImportError: no module named torch" in refusal(ProjectError, find_topaz, broken)
    assert "exit code 3" in refusal(ProjectError, find_topaz, stand_in("", version="exit 3\n"))


def test_the_executable_is_found_by_the_variable(topaz_project, monkeypatch):
    monkeypatch.setenv("CRYOPICK_TOPAZ_EXECUTABLE", stand_in(""))

    assert find_topaz().version == "0.3.20"


@pytest.mark.parametrize(
    ("script", "got"),
    [
        ("echo Traceback; echo 'ValueError: no images' >&2; exit 1\n", "got ValueError: no images"),
        (_KILLED, "got a process that was killed, as systems do that run out of memory"),
        ("exit 5\n", "got exit code 5"),
    ],
)
def test_a_training_that_fails_gives_its_own_words_and_no_model(topaz_project, script, got):
    said = refusal(ProjectError, train, executable=stand_in(script))

    assert got in said
    assert "train/topaz.log" in said
    assert not Path("train/model.sav").exists()
    assert not Path("train/fields").exists()


def test_a_training_without_a_model_is_no_success(topaz_project):
    stopped = stand_in("echo old > model_epoch10.sav\n" + _KILLED, name="stopped")
    refusal(ProjectError, train, executable=stopped)
    assert Path("train/model_epoch10.sav").exists()

    said = refusal(ProjectError, train, executable=stand_in("exit 0\n"))

    assert "`topaz train` must write model_epoch10.sav; got no such file" in said


_CURVE = (
    'printf "epoch\\titer\\tsplit\\tloss\\tauprc\\n1\\t1\\ttest\\t1\\t0.4\\n"\n'
    'printf "2\\t2\\ttest\\t1\\t0.6\\n3\\t3\\ttest\\t1\\t0.5\\n"\n'
    "for epoch in 1 2 3; do echo $epoch > model_epoch$epoch.sav; done\n"
)


def test_the_model_of_the_best_epoch_is_taken_or_that_asked_for(topaz_project):
    program = stand_in("echo once >> ../runs\n" + _CURVE)

    best = train(executable=program, epochs=3)
    again = train(executable=program, epochs=3)
    last = train(out="last", executable=program, epochs=3, epoch=3)

    assert (best.epoch, best.auprc, best.model.read_text()) == (2, 0.6, "2\n")
    assert (last.epoch, last.auprc, last.model.read_text()) == (3, 0.5, "3\n")
    assert again == best
    assert Path("runs").read_text() == "once\n" * 2  # the second call found its result
    labels = Path("labels.star").read_text()
    Path("labels.star").unlink()
    Path("labels.star").write_text(labels.replace("1.", "2.", 1))
    assert train(executable=program, epochs=3).epoch == 2
    assert Path("runs").read_text() == "once\n" * 3


def test_a_topaz_that_counts_otherwise_is_told_another_number(topaz_project):
    count = (  # 0.3.99 counts properly: 13 px for each of the 67 or so labels in training
        "labels=$(($(wc -l < fields/train_targets.txt) - 1))\n"
        'printf "# 0\\ttrain\\t0.1\\t$((labels * 13))\\t100000\\n" >&2\n'
    )
    program = stand_in(count + _CURVE, version=VERSION.replace("0.3.20", "0.3.99"))

    result = train(executable=program, epochs=3)
    log = Path("train/topaz.log").read_text()

    told = [float(n) for n in re.findall(r"train -n (\S+)", log)]
    assert result.told == pytest.approx(result.expected)
    assert told == pytest.approx(
        [result.labelled + (result.expected - result.labelled) / 5, result.expected], rel=1e-5
    )


def test_the_lists_hold_the_labels_in_shrunk_pixels(topaz_project):
    train(executable=stand_in("cp -r fields kept\n" + _CURVE), epochs=3)

    targets = pd.concat([_listed("train", "targets"), _listed("test", "targets")])
    images = pd.concat([_listed("train", "images"), _listed("test", "images")])
    labels = read_labels(open_micrographs([_TABLE]), Path("labels.star"), diameter=DIAMETER)
    for number, field in enumerate(labels.fields, start=1):
        rows = targets[targets["image_name"] == f"field{number:06d}"]
        assert np.abs(rows["x_coord"] * 2 - field.x).max() <= 1.0
        assert np.abs(rows["y_coord"] * 2 - field.y).max() <= 1.0
    assert sorted(images["path"]) == [f"fields/field{n:06d}.mrc" for n in range(1, 5)]


def _listed(kind, what):
    return pd.read_csv(f"train/kept/{kind}_{what}.txt", sep="\t")


def test_labels_that_cannot_be_right_are_refused_before_topaz_is_looked_for(topaz_project):
    rows = truth()
    few = write_labels(Path("few.star"), rows.iloc[:30])
    write_labels(Path("far.star"), rows.assign(x=rows["x"] * 2))
    write_labels(Path("one.star"), rows.assign(micrograph=rows["micrograph"][0]))
    write_labels(Path("other.star"), rows.assign(micrograph="else.mrc"))

    assert "hold at least 50 labelled particles; got 30" in refusal(DataError, train, str(few))
    assert "inside the micrographs" in refusal(DataError, train, "far.star")
    assert "at least 2 micrographs" in refusal(DataError, train, "one.star")
    assert "MICROGRAPHS lists; got else.mrc" in refusal(CryopickError, train, "other.star")
    assert "px of 12 A" in refusal(ParameterError, train, diameter=40, downscale=3)
    more = refusal(ParameterError, train, particles_per_micrograph=15)
    assert "particles_per_micrograph must be above the 18.33 that are labelled" in more
    assert not Path("train").exists()


def test_a_few_labels_outside_are_left_out_and_counted(topaz_project):
    rows = truth()
    rows.loc[rows.index[0], "x"] = 600.0

    labels = read_labels(
        open_micrographs([_TABLE]), write_labels(Path("stray.star"), rows), diameter=DIAMETER
    )

    assert labels.n_outside == 1
    assert labels.count == len(rows) - 1


def test_a_missing_micrograph_is_told_before_anything_is_run(topaz_project):
    table = Path(_TABLE).read_text().replace("sim_00002", "sim_00009")
    labels = Path("labels.star").read_text().replace("sim_00002", "sim_00009")
    Path("gone.star").write_text(table)
    Path("gone_labels.star").write_text(labels)

    with pytest.raises(FormatError, match="sim_00009"):
        read_labels(open_micrographs(["gone.star"]), Path("gone_labels.star"), diameter=DIAMETER)


def test_labels_of_particles_are_moved_by_their_origins(topaz_project):
    rows = truth().reset_index(drop=True)
    shift = np.where(np.arange(len(rows)) % 2, 9.0, -13.0)  # A, of 4 A/px
    lines = [
        f"{n + 1}@a.mrcs {r.micrograph} {r.x + s / 4:.3f} {r.y:.3f} {s} 0 1"
        for (n, r), s in zip(rows.iterrows(), shift, strict=True)
    ]
    names = ["ImageName", "MicrographName", "CoordinateX", "CoordinateY", "OriginXAngst"]
    names += ["OriginYAngst", "OpticsGroup"]
    head = "".join(f"_rln{name} #{n + 1}\n" for n, name in enumerate(names))
    optics = "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnImagePixelSize #2\n1 8.0\n\n"
    Path("particles.star").write_text(
        f"{optics}data_particles\n\nloop_\n{head}" + "\n".join(lines) + "\n"
    )

    labels = read_labels(open_micrographs([_TABLE]), Path("particles.star"), diameter=DIAMETER)

    got = np.concatenate([f.x for f in labels.fields])
    want = rows.sort_values("micrograph", kind="stable")["x"].to_numpy(float)
    assert np.abs(got - want).max() <= 0.5 + 1e-3  # moved by whole pixels, as RELION does


# picking, with a program that finds one particle in each field


def test_peaks_are_scaled_back_and_written_as_other_pickers_write_them(topaz_project):
    result = pick(executable=stand_in(FIND_ONE))

    picks = picks_of_file(Path("pick/micrographs/sim_00003_autopick.star"), "a.mrc")
    assert [m.n_picks for m in result.micrographs] == [1] * 4
    assert picks[["x", "y", "fom", "diameter"]].to_numpy().tolist() == [[120, 128, 1.5, DIAMETER]]
    for name in ("autopick.star", "coords_suffix_autopick.star", "summary.star", "scores.png"):
        assert (Path("pick") / name).is_file()
    assert read_picks(Path("pick")).attributes["score"] == LOG_ODDS
    job = json.loads(Path("pick/job.json").read_text())
    assert job["parameters"]["topaz"] == "0.3.20"
    assert not Path("pick/fields").exists()


def test_one_process_picks_all_and_a_second_run_only_what_is_new(topaz_project):
    program = stand_in(FIND_ONE)
    first_two = Path("two.star")
    lines = Path(_TABLE).read_text().splitlines(keepends=True)
    first_two.write_text("".join(x for x in lines if "sim_00003" not in x and "sim_00004" not in x))

    pick("two.star", executable=program)
    pick(executable=program)
    pick(executable=program)

    assert Path("pick/topaz.log").read_text().count("$ ") == 2
    assert len(Path("seen").read_text().split()) == 4
    assert len(read_star(Path("pick/autopick.star"))["coordinate_files"]) == 4


def test_a_killed_topaz_keeps_what_was_finished_and_the_same_command_goes_on(topaz_project):
    early = FIND_ONE.replace("done\n", _KILLED + "done\n")

    said = refusal(ProjectError, pick, executable=stand_in(early))
    assert "`topaz extract` must end without an error; got a process that was killed" in said
    assert Path("pick/micrographs/sim_00001_autopick.star").exists()
    result = pick(executable=stand_in(FIND_ONE, name="good"))

    assert [m.n_picks for m in result.micrographs] == [1] * 4
    assert len(Path("seen").read_text().split()) == 4


def test_fields_without_a_peak_do_not_hold_up_the_others(topaz_project):
    for number in range(40):
        write_mrc(Path(f"empty{number:02d}.mrc"), noise(), pixel_size=8.0)
    nothing = 'while read name; do echo "# Extracted 0 particles from ${name%.mrc}"; done\n'

    result = pick("empty*.mrc", executable=stand_in(nothing), downscale=1)

    assert [m.n_picks for m in result.picked] == [0] * 40
    assert result.to_dict()["n_without_picks"] == 40


def test_a_topaz_that_drops_micrographs_is_found_out(topaz_project):
    one_less = FIND_ONE.replace("read name;", "read name && [ $name != field000002.mrc ];")

    said = refusal(ProjectError, pick, executable=stand_in(one_less))

    assert "an end before" in said
    assert "micrographs were picked" in said


def test_a_broken_micrograph_is_refused_and_the_others_are_picked(topaz_project):
    write_mrc(Path("good.mrc"), noise(), pixel_size=8.0)
    Path("bad.mrc").write_bytes(b"no micrograph")
    write_mrc(Path("flat.mrc"), np.ones((200, 200), np.float32), pixel_size=8.0)
    write_mrc(Path("small.mrc"), noise(12), pixel_size=8.0)

    result = pick("*.mrc", executable=stand_in(FIND_ONE), downscale=1)

    assert [m.micrograph for m in result.picked] == ["good.mrc"]
    assert [Path(m.micrograph).stem for m in result.failed] == ["bad", "flat", "small"]
    assert all(_SENTENCE.fullmatch(m.error) for m in result.failed)
    assert len(read_star(Path("pick/failed.star"))["failed"]) == 3


def test_blanks_in_folders_do_no_harm(topaz_project):
    Path("a b").mkdir()
    write_mrc(Path("a b/c d.mrc"), noise(), pixel_size=8.0)

    result = pick("a b/c d.mrc", "o u t", executable=stand_in(FIND_ONE), downscale=1)

    assert result.micrographs[0].n_picks == 1
    assert Path("o u t/a b/c d_autopick.star").exists()


def test_what_topaz_is_told_is_what_was_asked_for(topaz_project):
    pick(
        executable=stand_in(FIND_ONE),
        model="resnet8_u32",
        threshold=-8.0,
        topaz_args="--batch-size 2",
        compute=TopazComputeParameters(device="cuda:1"),
    )

    command = Path("pick/topaz.log").read_text().splitlines()[0]
    assert command.endswith("extract -r 8 -t -8 -d 1 -m resnet8_u32 -v --batch-size 2")


def test_a_model_is_a_file_or_a_known_name_and_used_at_its_own_scale(topaz_project):
    Path("model.sav").write_text("x")
    Path("result.json").write_text(json.dumps({"pixel_size": 12.0}))

    assert "resnet16_u64" in refusal(ParameterError, pick, model="resnet9")
    said = refusal(ParameterError, pick, model="model.sav", executable=stand_in(FIND_ONE))
    assert "pixel size it was trained at, 12 A; got 8 A" in said
    assert "Add --downscale 3" in said


def test_a_topaz_too_old_to_be_followed_is_refused(topaz_project):
    old = stand_in(FIND_ONE, version=VERSION.replace("0.3.20", "0.2.5"))

    assert "be version 0.3 or later to pick; got 0.2.5" in refusal(
        ProjectError, pick, executable=old
    )


def test_a_process_does_not_outlive_its_run(topaz_project):
    program = TopazProgram(Path(stand_in("sleep 100 & echo $!\nsleep 100\n")), "0.3.20")

    with TopazRun(program, ["train"], folder=topaz_project, log=Path("log")) as run:
        child = int(next(run.lines()))
    end = time.monotonic() + 90  # s; of its own accord it lives for 100
    while "Z" not in _state(child) and time.monotonic() < end:
        time.sleep(0.05)

    assert not Path(f"/proc/{child}").exists() or "Z" in _state(child)


def _state(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_the_last_line_of_a_traceback_tells_more_than_what_follows():
    lines = ["# Loading", "Traceback", "torch.OutOfMemoryError: CUDA out of memory.", "  0%|"]

    assert telling_line(lines) == "torch.OutOfMemoryError: CUDA out of memory"
    assert telling_line([]) == ""


# the installation


def test_topaz_is_not_installed_over_other_files_or_into_too_new_a_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/thesis.txt").write_text("chapter 1")
    newer = stand_in("", name="python", version="echo 3 99\nexit\n")

    assert "be empty or hold an environment" in refusal(CryopickError, set_up_topaz, Path("full"))
    said = refusal(ProjectError, set_up_topaz, Path("new"), python=newer)
    assert "be Python 3.13 or older, for Topaz; got 3.99" in said
    assert not Path("new/environment").exists()


def test_a_step_of_the_installation_that_fails_is_told_in_its_own_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = 'if [ "$1" = -c ]; then echo 3 12; exit; fi\necho "Error: no ensurepip"; exit 1\n'

    said = refusal(
        ProjectError,
        set_up_topaz,
        Path("new"),
        python=stand_in(script, name="python", version=""),
    )
    assert "got Error: no ensurepip" in said
    assert "setup.log" in said
