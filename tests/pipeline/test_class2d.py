"""A 2D classification from a table to RELION's files."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from classification_world import DIAMETER, PIXEL, SIZE, N, classify, make_particles, purity, shapes

from cryopick.alignment.transform import transform_images
from cryopick.errors import ParameterError, ProjectError
from cryopick.io.mrc import read_mrc, write_mrc
from cryopick.tables.model import Particles
from cryopick.tables.relion import read_particles
from cryopick.tables.relion_class2d import read_classification

KINDS = ("classes.mrcs", "data.star", "model.star", "optimiser.star", "sampling.star",
         "unmasked_classes.mrcs")  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def particles(tmp_path_factory) -> Particles:
    return make_particles(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def run(particles, tmp_path_factory):
    """A finished run of six iterations, and what it told; nobody changes it."""
    out = tmp_path_factory.mktemp("run") / "em"
    told: list[str] = []
    result = classify(particles, out, write_every=2, tell=told.append)
    return out, result.values, told


def prefix(values: dict) -> str:
    """Of the last iteration, which may be reached before the one asked for."""
    return f"run_it{values['iteration']:03d}"


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir() if not p.name.startswith(".")}


def test_shapes_come_into_classes_of_their_own(run):
    found = read_particles(Path(run[1]["particles"])).rows

    assert len(found) == N
    assert purity(found) > 0.85


def test_averages_look_like_the_shapes(run, particles):
    _, values, _ = run
    averages = torch.from_numpy(read_mrc(Path(values["averages"])))
    found = read_particles(Path(values["particles"])).rows
    turns = torch.arange(0, 360, 6.0)
    for number, average in enumerate(averages, start=1):
        members = found.loc[found["class_number"] == number, "rlnShape"]
        truth = shapes()[members.mode()[0]].expand(len(turns), -1, -1)
        still = torch.zeros(len(turns))
        turned = transform_images(truth, psi=turns, shift_x=still, shift_y=still).flatten(1)
        own = average.flatten()
        best = max(float(torch.corrcoef(torch.stack([own, t]))[0, 1]) for t in turned)
        assert best > 0.85, number


def test_the_files_are_those_of_relion(run):
    out, values, _ = run
    last = {f"{prefix(values)}_{kind}" for kind in KINDS}
    fourth = {f"run_it002_{kind}" for kind in KINDS}
    own = {"classes.png", "checkpoint.npz", "job.json", "result.json"}
    assert last | fourth | own <= names(out)

    back = read_classification(out)

    assert back.optimiser is not None
    assert (back.optimiser.iteration, back.optimiser.n_iterations) == (values["iteration"], 6)
    assert (back.model.box_size, back.model.pixel_size) == (SIZE, PIXEL)
    assert back.optimiser.particle_diameter == pytest.approx(1.2 * DIAMETER)
    assert back.groups["group_name"].tolist() == ["m0.mrc", "m1.mrc", "m2.mrc", "m3.mrc"]
    assert back.groups["particle_count"].tolist() == [50] * 4
    np.testing.assert_array_equal(back.particles.rows["group_number"], np.arange(N) // 50 + 1)
    hard = back.particles.rows["class_number"].value_counts().sort_index()
    np.testing.assert_array_equal(back.classes["particle_count"], hard)
    assert back.classes["soft_count"].sum() == pytest.approx(N, rel=1e-4)
    assert back.classes["distribution"].sum() == pytest.approx(1, rel=1e-4)
    assert np.isfinite(back.classes["accuracy_rotations"]).any()
    assert (back.classes["entropy"] >= 0).all()
    assert back.classes["estimated_resolution"].between(2 * PIXEL, 60).all()


def test_rows_keep_their_place_and_what_the_table_said(run, particles):
    found = read_particles(Path(run[1]["particles"])).rows

    for column in ("image_index", "micrograph", "defocus_u", "rlnTruePsi"):
        pd.testing.assert_series_equal(found[column], particles.rows[column])


def test_averages_without_a_mask_agree_with_the_others_inside_it(run):
    out, values, _ = run
    masked = read_mrc(out / f"{prefix(values)}_classes.mrcs")
    whole = read_mrc(out / f"{prefix(values)}_unmasked_classes.mrcs")

    y, x = np.indices((SIZE, SIZE)) - SIZE // 2
    radius = np.hypot(x, y) * PIXEL
    inside = radius < 0.6 * DIAMETER
    np.testing.assert_allclose(masked[:, inside], whole[:, inside], atol=1e-5)
    assert (masked[:, radius > 0.6 * DIAMETER + 6 * PIXEL] == 0).all()
    assert (whole[:, radius > 0.6 * DIAMETER + 6 * PIXEL] != 0).any()


def test_the_result_counts_what_the_files_hold(run):
    out, values, told = run
    assert values["n_particles"] == sum(c["n_particles"] for c in values["classes"]) == N
    sizes = [c["n_particles"] for c in values["classes"]]
    assert sizes == sorted(sizes, reverse=True)
    assert values["n_occupied"] == sum(n > 0 for n in sizes)
    assert json.loads((out / "result.json").read_text()) == values
    assert any(sentence.startswith("Memory: ") for sentence in told)


def test_noise_is_written_on_the_scale_of_relion(tmp_path):
    """White noise of variance v has v / (2 M^2), less what the mask takes away."""
    particles = make_particles(tmp_path, noise=3.0)

    result = classify(particles, tmp_path / "em", iterations=4, norm_correction=False)

    noise = read_classification(Path(result.values["particles"])).noise
    y, x = np.indices((SIZE, SIZE)) - SIZE // 2
    outside = ((np.hypot(x, y) - 0.6 * DIAMETER / PIXEL) / 5).clip(0, 1)
    share = ((0.5 + 0.5 * np.cos(np.pi * outside)) ** 2).mean()
    expected = 9 * share / (2 * SIZE**2)
    np.testing.assert_allclose(noise["sigma2"][4:], expected, rtol=0.25)
    assert noise["sigma2"][4:].mean() == pytest.approx(expected, rel=0.08)


def test_a_finished_run_gives_its_result_again(run, particles, tmp_path):
    first = classify(particles, tmp_path / "em", iterations=2)
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "em").glob("run_*")}

    again = classify(particles, tmp_path / "em", iterations=2)

    assert again.values == first.values
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "em").glob("run_*")} == files


def test_threads_do_not_change_the_classes(particles, tmp_path):
    for threads in (1, 2):
        values = classify(particles, tmp_path / "em", iterations=4, threads=threads).values
        (tmp_path / "em").rename(tmp_path / str(threads))

    texts = [(tmp_path / str(t) / f"{prefix(values)}_data.star").read_text() for t in (1, 2)]
    assert texts[0] == texts[1]
    averages = [read_mrc(tmp_path / str(t) / f"{prefix(values)}_classes.mrcs") for t in (1, 2)]
    np.testing.assert_allclose(averages[0], averages[1], atol=1e-5 * np.abs(averages[0]).max())


KILLER = """
import os, sys
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from classification_world import classify
from cryopick.pipeline import class2d_checkpoint
from cryopick.tables.relion import read_particles

class2d_checkpoint._PAUSE = 0.0
particles = read_particles(Path(sys.argv[2]))
out = Path(sys.argv[3])
for point in sys.argv[4:]:
    child = os.fork()
    if not child:
        real, left = os.fsync, [int(point)]
        def fsync(handle):
            real(handle)
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), 9)
        os.fsync = fsync
        classify(particles, out / point)
        os._exit(0)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]), flush=True)
"""


def test_a_killed_run_goes_on_to_the_same_result(run, particles, tmp_path):
    points = ["1", "3", "5", "7", "9"]  # files flushed before the end

    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(Path(__file__).parent), str(particles.source),
         str(tmp_path), *points],
        capture_output=True, text=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip

    assert done.stdout.split() == [str(int(signal.SIGKILL))] * len(points), done.stderr
    expected = read_particles(Path(run[1]["particles"])).rows
    for point in points:
        result = classify(particles, tmp_path / point)
        found = read_particles(Path(result.values["particles"])).rows
        pd.testing.assert_frame_equal(found.drop(columns="image"), expected.drop(columns="image"))
        assert not list((tmp_path / point).glob(".*.tmp"))


def test_more_iterations_go_on_from_a_finished_run(particles, tmp_path):
    out = tmp_path / "em"
    classify(particles, out, iterations=2)
    with pytest.raises(ProjectError, match="iterations 2 instead of 4"):
        classify(particles, out, iterations=4)

    result = classify(particles, out, iterations=4, continues=True)

    assert result.values["iteration"] > 2
    assert {"run_it002_data.star", f"{prefix(result.values)}_data.star"} <= names(out)
    assert json.loads((out / "job.json").read_text())["parameters"]["iterations"] == 4
    with pytest.raises(ParameterError, match=r"must be at least \d, which are done; got 2"):
        classify(particles, out, iterations=2, continues=True)
    assert classify(particles, out, iterations=4).values == result.values


def test_overwrite_leaves_nothing_of_the_run_before(particles, tmp_path):
    out = tmp_path / "em"
    classify(particles, out, iterations=4, write_every=1)

    values = classify(particles, out, iterations=3, seed=5, overwrite=True).values

    assert {n[:9] for n in names(out) if n.startswith("run_")} == {prefix(values)}


def test_particles_are_assigned_to_averages_of_an_earlier_run(run, particles, tmp_path):
    out, values, _ = run
    before = read_particles(Path(values["particles"])).rows["class_number"]
    for name, references in (
        ("a", out / f"{prefix(values)}_model.star"),
        ("b", out / f"{prefix(values)}_classes.mrcs"),
    ):
        result = classify(
            particles, tmp_path / name, iterations=2, update=False, references=references
        )
        after = read_particles(Path(result.values["particles"])).rows["class_number"]
        assert (after == before).mean() > 0.85, name


def test_a_run_begins_from_averages(particles, tmp_path):
    write_mrc(tmp_path / "truth.mrcs", shapes().numpy(), pixel_size=PIXEL)

    result = classify(particles, tmp_path / "em", iterations=3, references=tmp_path / "truth.mrcs")

    found = read_particles(Path(result.values["particles"])).rows
    assert (found["class_number"] == found["rlnShape"] + 1).mean() > 0.9


def test_poses_of_the_table_are_kept_without_alignment(run, particles, tmp_path):
    out, values, _ = run
    given = read_particles(Path(values["particles"]))

    result = classify(
        given, tmp_path / "em", iterations=2, align=False, update=False,
        references=out / f"{prefix(values)}_model.star",
    )  # fmt: skip

    kept = read_particles(Path(result.values["particles"])).rows
    for column in ("psi", "shift_x", "shift_y"):
        np.testing.assert_allclose(kept[column], given.rows[column], atol=1e-3)


def test_classes_are_found_at_the_poses_of_the_table(particles, tmp_path):
    rows = particles.rows.assign(psi=particles.rows["rlnTruePsi"], shift_x=0.0, shift_y=0.0)

    result = classify(
        dataclasses.replace(particles, rows=rows), tmp_path / "em", align=False, iterations=10
    )

    found = read_particles(Path(result.values["particles"])).rows
    np.testing.assert_allclose(found["psi"], rows["psi"], atol=1e-3)
    assert purity(found) > 0.9


def test_images_of_no_use_are_left_out_and_told(particles, tmp_path):
    broken = make_particles(tmp_path)
    stack = tmp_path / "stack.mrcs"
    images = np.array(read_mrc(stack))
    images[7], images[9] = 4.0, np.nan
    write_mrc(stack, images, pixel_size=PIXEL)
    told: list[str] = []

    result = classify(broken, tmp_path / "em", iterations=3, tell=told.append)

    assert (result.values["n_particles"], result.values["n_left_out"]) == (N - 2, 2)
    (sentence,) = [t for t in told if "image 8 of" in t]
    assert "must hold different numbers; got 4 in every pixel" in sentence
    assert "1 more images" in sentence
    found = read_classification(tmp_path / "em").particles.rows
    assert len(found) == N
    assert (found["class_number"] == 0).to_numpy().nonzero()[0].tolist() == [7, 9]


def test_few_particles_are_warned_of(tmp_path):
    particles = make_particles(tmp_path, n=60)
    rows = particles.rows.assign(micrograph=[f"m{k // 5}.mrc" for k in range(60)])
    told: list[str] = []

    classify(
        dataclasses.replace(particles, rows=rows), tmp_path / "em", iterations=2, tell=told.append
    )

    warnings = [t for t in told if t.startswith("Warning:")]
    assert len(warnings) == 3
    assert "15 particles per class are few" in warnings[0]
    assert "2 iterations are too few" in warnings[1]
    assert "12 of 12 micrographs have fewer than 10 particles" in warnings[2]


def test_an_image_far_brighter_than_the_others_is_left_out(tmp_path):
    particles = make_particles(tmp_path)
    stack = particles.source.parent / "stack.mrcs"
    images = read_mrc(stack).copy()
    images[5] *= 1000
    write_mrc(stack, images, pixel_size=PIXEL)
    told: list[str] = []

    classify(particles, tmp_path / "em", iterations=2, tell=told.append)

    assert any("1 images are more than 20 times as bright" in t for t in told)
    found = read_classification(tmp_path / "em").particles.rows
    assert found["class_number"].iloc[5] == 0


def test_scratch_and_progress_do_not_change_the_result(run, particles, tmp_path):
    steps = []

    result = classify(particles, tmp_path / "em", scratch=tmp_path / "fast", progress=steps.append)

    assert result.values["classes"] == run[1]["classes"]
    assert not list((tmp_path / "fast").iterdir())  # the copy goes when the run is finished
    assert {s.step for s in steps} == {"Looking at images", "Classifying", "Averaging"}
    last = [s for s in steps if s.step == "Classifying"][-1]
    assert (last.n_iterations, last.done, last.total) == (6, N, N)
    assert last.resolution is not None
