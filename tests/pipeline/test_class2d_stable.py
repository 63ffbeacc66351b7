"""What `class2d stable` leaves in its folder, held against the truth of simulated views."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from classification_world import PIXEL as PLAIN_PIXEL
from classification_world import make_particles
from stable_world import DIAMETER, LENS, PIXEL, SIZE, N, files_of, make_views, stable

from cryopick.class2d.stable_state import StableClasses
from cryopick.errors import ProjectError
from cryopick.io.eman_hdf import EmanStack
from cryopick.io.eman_hdf_write import write_eman_stack
from cryopick.io.mrc import read_mrc
from cryopick.pipeline.class2d_stable_report import generation_rows
from cryopick.pipeline.class2d_stable_source import read_stable_particles
from cryopick.tables.classification import Classification
from cryopick.tables.model import Particles
from cryopick.tables.relion import read_particles
from cryopick.tables.relion_class2d import read_classification


class Done:
    """One run on 280 images of four views and 40 of noise."""

    def __init__(self, folder: Path) -> None:
        self.particles = make_views(folder / "in", n_noise=40)
        self.out = folder / "out"
        self.values = stable(self.particles, self.out)
        self.data = read_particles(self.out / "run_data.star").rows
        self.view = self.data["rlnView"].to_numpy(np.int64)
        self.found = self.data["class_number"].to_numpy(np.int64)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return Done(tmp_path_factory.mktemp("stable"))


def headers(path: Path) -> list[dict[str, Any]]:
    with EmanStack(path) as stack:
        return stack.all_attributes()


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def test_each_view_is_a_class_and_noise_is_in_none(done: Done) -> None:
    assert done.values["n_classes"] == 4
    for number in range(1, 5):
        counts = np.bincount(done.view[done.found == number] + 1, minlength=5)
        assert counts.max() == counts.sum() > 40
    assert (done.found[done.view >= 0] > 0).mean() > 0.9
    assert (done.found[done.view < 0] > 0).mean() < 0.06
    assert done.values["accounted"] == pytest.approx((done.found > 0).mean(), abs=1e-4)


def test_poses_turn_the_members_of_a_class_alike(done: Done) -> None:
    mirrored = done.data["cryopickIsMirrored"].to_numpy(bool)
    psi, truth = (np.deg2rad(done.data[n].to_numpy(float)) for n in ("psi", "rlnTruePsi"))
    for number in range(1, 5):
        mine = done.found == number
        assert len(set(mirrored[mine])) == 1
        sign = -1 if mirrored[mine][0] else 1
        off = sign * (psi[mine] - truth[mine])
        free = np.angle(np.exp(1j * off).mean())
        assert np.median(np.abs(np.angle(np.exp(1j * (off - free))))) < np.deg2rad(5)


def test_the_averages_for_sphire_name_their_members(done: Done) -> None:
    named = headers(done.out / "class_averages.hdf")
    for number, header in enumerate(named, start=1):
        assert header["members"].tolist() == np.flatnonzero(done.found == number).tolist()
        assert header["n_objects"] == len(header["members"])
        assert header["apix_x"] == pytest.approx(PIXEL)
    with h5py.File(done.out / "class_averages.hdf") as file:
        members = file["MDF/images/0"].attrs.get_id("EMAN.members")
        assert members.dtype == np.dtype("<i4")
    ordered = headers(done.out / "ordered_class_averages.hdf")
    assert sorted(h["source_n"] for h in ordered) == [0, 1, 2, 3]
    for header in ordered:
        assert header["members"].tolist() == named[header["source_n"]]["members"].tolist()


def test_full_averages_look_like_those_of_the_run(done: Done) -> None:
    small = read_mrc(done.out / "class_averages.mrcs")
    full = read_mrc(done.out / "run_unmasked_classes.mrcs")
    assert small.shape == full.shape == (4, SIZE, SIZE)  # here the particle is not resized
    y, x = np.indices((SIZE, SIZE)) - SIZE // 2
    inside = np.hypot(y, x) < 9
    for one, other in zip(small, full, strict=True):
        assert correlation(one[inside], other[inside]) > 0.8
    with EmanStack(done.out / "full_class_averages.hdf") as stack:
        np.testing.assert_array_equal(stack.read(), read_mrc(done.out / "run_classes.mrcs"))


def test_relion_s_files_are_a_classification(done: Done) -> None:
    run: Classification = read_classification(done.out / "run_model.star")
    counts = [int((done.found == number).sum()) for number in range(1, 5)]
    assert run.member_counts.tolist() == counts
    assert run.model.pixel_size == PIXEL
    assert np.isfinite(run.noise["sigma2"]).all()


def test_lists_part_the_images(done: Done) -> None:
    processed = np.loadtxt(done.out / "processed_images.txt", dtype=int)
    others = np.loadtxt(done.out / "not_processed_images.txt", dtype=int)
    assert processed.tolist() == np.flatnonzero(done.found > 0).tolist()
    assert sorted([*processed, *others]) == list(range(N))
    kept = read_particles(done.out / "processed_particles.star").rows
    left = read_particles(done.out / "not_processed_particles.star").rows
    assert kept["image_index"].tolist() == processed.tolist()
    assert left["image_index"].tolist() == others.tolist()


def test_sphire_s_poses_move_points_as_ours_do(done: Done) -> None:
    alpha, sx, sy, mirror = np.loadtxt(done.out / "all_parameters.txt").T
    zero, px, py, none = np.loadtxt(done.out / "2dalignment" / "initial2Dparams.txt").T
    assert not zero.any()
    assert not none.any()
    assert (mirror == -1).tolist() == (done.found == 0).tolist()
    point = np.array([3.0, 5.0])
    for row in np.flatnonzero(done.found > 0)[:40]:
        mine = done.data.iloc[row]
        x, y = point + mine[["shift_x", "shift_y"]].to_numpy(float) / PIXEL
        angle = np.deg2rad(mine["psi"])
        ours = np.array([np.cos(angle) * x - np.sin(angle) * y,
                         np.sin(angle) * x + np.cos(angle) * y])  # fmt: skip
        ours[0] *= -1 if mine["cryopickIsMirrored"] else 1
        a = np.deg2rad(alpha[row])
        turn = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])  # EMAN2's rotation
        theirs = turn @ (point + np.array([px[row], py[row]])) + np.array([sx[row], sy[row]])
        theirs[0] *= -1 if mirror[row] else 1
        np.testing.assert_allclose(theirs, ours, atol=1e-3)


def test_shrink_ratio_is_where_sphire_s_programs_look(tmp_path: Path) -> None:
    small = make_particles(tmp_path / "in", n=120)
    stable(small, tmp_path / "out", img_per_grp=60, target_radius=8, target_nx=24)
    lines = (tmp_path / "out" / "README_shrink_ratio.txt").read_text().splitlines()
    radius = DIAMETER / 2 / PLAIN_PIXEL
    assert float(lines[5]) == pytest.approx(8 / radius, abs=0.02)
    assert float(lines[6]) == pytest.approx(radius, abs=1e-4)
    chosen = json.loads((tmp_path / "out" / "parameters.json").read_text())
    assert chosen["working_pixel_size"] == pytest.approx(PLAIN_PIXEL / float(lines[5]), rel=1e-4)
    assert chosen["working_size"] == 24


def test_generations_keep_candidates_and_those_accepted(done: Done) -> None:
    first = done.out / "mains" / "main001" / "generation001"
    candidates = headers(first / "original_class_averages.hdf")
    good = headers(first / "good_class_averages.hdf")
    assert sum(h["is_accepted"] for h in candidates) == len(good)
    final = [set(h["members"]) for h in headers(done.out / "class_averages.hdf")]
    for members in (set(h["members"]) for h in good):  # the refinement chooses them again
        assert max(len(members & f) / len(members | f) for f in final) > 0.6


def test_the_report_shows_every_class_and_generation(done: Done) -> None:
    page = (done.out / "report.html").read_text()
    assert page.count('<figure class="class"') == 4
    for title in ("Generations", "Centring", "Command"):
        assert f"<h2>{title}</h2>" in page
    shares = done.values["accounted_by_generation"]
    assert f"{100 * shares[-1]:.1f} %" in page


def test_a_finished_run_gives_its_result_again(done: Done) -> None:
    before = files_of(done.out)
    again = stable(done.particles, done.out)
    assert again == done.values
    assert files_of(done.out) == before


def as_hdf(particles: Particles, path: Path) -> Path:
    """Write the images as an HDF stack, the CTF as SPHIRE writes it."""
    stack = particles.source.parent / "stack.mrcs"  # type: ignore[union-attr]
    images = read_mrc(stack)
    lens = [LENS[name] for name in ("voltage", "spherical_aberration")]
    attributes = []
    for row in particles.rows.to_dict("records"):
        u, v, angle = (float(row[f"defocus_{n}"]) for n in ("u", "v", "angle"))
        contrast = 100 * LENS["amplitude_contrast"]
        numbers = [(u + v) / 2e4, (u - v) / 1e4, 135 - angle, 0, contrast, *lens, PIXEL, 0, 0, 0, 0]
        attributes.append({"ctf": "E" + " ".join(f"{n:.10g}" for n in numbers), "ctf_applied": 0,
                           "ptcl_source_image": row["micrograph"]})  # fmt: skip
    write_eman_stack(path, images, pixel_size=1.0, attributes=attributes)
    return path


def test_an_hdf_stack_gives_the_classes_of_its_star_file(done: Done, tmp_path: Path) -> None:
    particles = read_stable_particles(as_hdf(done.particles, tmp_path / "stack.hdf"))
    assert particles.optics["pixel_size"].tolist() == [PIXEL]  # of the CTF; apix_x is 1
    stable(particles, tmp_path / "out")
    table = read_particles(tmp_path / "out" / "run_data.star").rows
    assert table["class_number"].tolist() == done.found.tolist()
    # the CTF is text with ten digits there, so poses differ in their last digits
    one, other = (np.loadtxt(f / "all_parameters.txt") for f in (tmp_path / "out", done.out))
    assert np.cos(np.deg2rad(one[:, 0] - other[:, 0])).min() > 1 - 1e-6
    np.testing.assert_allclose(one[:, 1:], other[:, 1:], rtol=0, atol=3e-3)
    averages = (read_mrc(f / "class_averages.mrcs") for f in (tmp_path / "out", done.out))
    np.testing.assert_allclose(*averages, rtol=0, atol=1e-3)


def test_overwriting_leaves_no_old_file(done: Done, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(done.out, out)
    (out / "mains" / "main001" / "old").touch()
    few = make_views(tmp_path / "few", n=160, noise=0.3)
    with pytest.raises(ProjectError, match="must be empty or hold `class2d stable`"):
        stable(few, out)
    quick = {"img_per_grp": 40, "init_iter": 1, "maxit": 4, "stab_ali": 2}
    stable(few, out, skip_ordering=True, skip_prealignment=True, overwrite=True, **quick)
    assert not (out / "mains" / "main001" / "old").exists()
    assert not (out / "ordered_class_averages.hdf").exists()
    assert not (out / "2dalignment" / "aqfinal.hdf").exists()
    assert not np.loadtxt(out / "2dalignment" / "initial2Dparams.txt").any()


def test_generations_are_told_apart_from_what_was_accepted() -> None:
    class Course:
        """1.1 accepts one of two, 1.2 none of one, 2.1 has no candidate."""

        accounted = np.array([0.4, 0.4, 0.4], np.float32)
        classes = StableClasses(
            main=np.array([1, 1, 1]), generation=np.array([1, 1, 2]),
            is_accepted=np.array([True, False, False]), n_core=np.array([9, 9, 9]),
            n_members=np.array([40, 3, 2]), pixel_error=np.zeros(3, np.float32),
            stable_share=np.ones(3, np.float32), reproducibility=np.ones(3, np.float32),
            averages=np.zeros((3, 4, 4), np.float32),
        )  # fmt: skip

    rows = generation_rows(Course())  # type: ignore[arg-type]
    assert rows["Main iteration"].tolist() == [1, 1, 2]
    assert rows["Generation"].tolist() == [1, 2, 1]
    assert rows["Candidates"].tolist() == [2, 1, 0]
    assert rows["Images"].tolist() == [40, 0, 0]
