"""What a 2D classification cannot be done with is said in one sentence."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from classification_world import PIXEL, SIZE, classify, make_particles, shapes

from cryopick.errors import CryopickError, DataError, FormatError, ProjectError, TableError
from cryopick.io.mrc import read_mrc, write_mrc
from cryopick.tables.model import Particles


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def particles(tmp_path) -> Particles:
    return make_particles(tmp_path, n=40)


def refusal(particles: Particles, kind: type[CryopickError] = CryopickError, **changes) -> str:
    """The sentence; nothing is left behind that would bind the folder."""
    assert particles.source is not None
    out = particles.source.parent / "em"
    with pytest.raises(kind) as caught:
        classify(particles, out, iterations=2, **changes)
    left = {p.name for p in out.iterdir()} if out.exists() else set()
    assert left <= {".lock"}
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"classes": 41}, "classes must be at most the number of particles, 40; got 41"),
        ({"mask_diameter": 200.0}, "mask_diameter must fit in the box of 192 A; got 200 A"),
        ({"resolution_limit": 8.0}, "resolution_limit must be at least twice the pixel size"),
        ({"update": False}, "--no-update must come with averages to assign particles to"),
        ({"align": False}, "must have a column rlnAnglePsi for psi"),
        ({"memory": 0.1}, "memory must be at least"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_parameters_that_do_not_fit_are_refused(particles, changes, sentence):
    assert sentence in refusal(particles, **changes)


@pytest.mark.parametrize(
    ("averages", "sentence"),
    [
        (shapes()[:3].numpy(), "must hold 4 averages, as --classes says; got 3. Give --classes 3"),
        (np.ones((4, 16, 16)), "must have the box of the particles, 32 px; got 16 x 16 px"),
        (np.zeros((4, SIZE, SIZE)), "must hold densities; got 0 everywhere"),
    ],
    ids=["number", "box", "nothing"],
)
def test_references_that_do_not_fit_are_refused(particles, tmp_path, averages, sentence):
    path = tmp_path / "averages.mrcs"
    write_mrc(path, averages.astype(np.float32), pixel_size=PIXEL)

    assert sentence in refusal(particles, references=path)


def test_references_of_another_pixel_size_are_refused(particles, tmp_path):
    path = tmp_path / "averages.mrcs"
    write_mrc(path, shapes().numpy(), pixel_size=2 * PIXEL)

    text = refusal(particles, references=path)

    assert "must have the pixel size of the particles, 6 A; got 12 A" in text


def test_references_that_are_missing_are_refused(particles, tmp_path):
    for name in ("averages.mrcs", "run_it025_model.star"):
        assert name in refusal(particles, references=tmp_path / name)


def test_a_ctf_that_is_missing_is_only_needed_for_its_correction(particles, tmp_path):
    rows = particles.rows.drop(columns="defocus_u")
    without = dataclasses.replace(particles, rows=rows)

    text = refusal(without, TableError)

    assert "must have a column rlnDefocusU for defocus_u (A, underfocus positive)" in text
    assert text.endswith("or add --ctf none.")
    classify(without, tmp_path / "other", iterations=2, ctf="none")


def test_poses_that_are_missing_are_only_needed_without_alignment(particles):
    text = refusal(particles, TableError, align=False)

    assert "rlnDefocusU" in text
    assert "image_index" not in text  # a part of rlnImageName, which is no column of the file
    assert text.endswith(". Leave out --no-align, or give a table of particles with poses.")


def test_a_stack_that_is_missing_is_named_with_its_table_and_where_it_was_sought(
    particles, tmp_path, monkeypatch
):
    (tmp_path / "stack.mrcs").unlink()
    here = tmp_path / "elsewhere"
    here.mkdir()
    monkeypatch.chdir(here)

    assert refusal(particles, FormatError) == (
        f"stack.mrcs, which {particles.source} lists, must be there; got no such file in {here}, "
        f"{tmp_path} or a folder above the latter. Start in the folder that the names in the table "
        "begin from."
    )


def test_a_stack_that_is_missing_at_a_full_path_was_sought_nowhere_else(particles, tmp_path):
    gone = dataclasses.replace(
        particles, rows=particles.rows.assign(image=str(tmp_path / "gone" / "stack.mrcs"))
    )

    text = refusal(gone, FormatError)

    assert "must be there; got no such file. Put the stacks where the table says." in text


def test_a_file_as_scratch_folder_is_refused_as_such(particles, tmp_path):
    (tmp_path / "scratch").write_text("not a folder")

    text = refusal(particles, scratch=tmp_path / "scratch")

    assert text == f"{tmp_path}/scratch must be a folder; got a file. Choose another --scratch."


def test_boxes_of_two_sizes_are_refused(particles, tmp_path):
    write_mrc(tmp_path / "b.mrcs", np.ones((40, 16, 16), np.float32), pixel_size=PIXEL)
    names = np.where(np.arange(40) < 20, "stack.mrcs", "b.mrcs")
    mixed = dataclasses.replace(particles, rows=particles.rows.assign(image=names))

    assert "must hold images of 32 x 32 px" in refusal(mixed, FormatError)


def test_images_that_are_all_constant_stop_the_run(particles, tmp_path):
    images = np.ones_like(read_mrc(tmp_path / "stack.mrcs"))
    write_mrc(tmp_path / "stack.mrcs", images, pixel_size=PIXEL)

    text = refusal(particles, DataError)

    assert "must name images that hold different numbers; got 40 images" in text


def test_a_run_of_another_program_is_left_alone(particles, tmp_path):
    (tmp_path / "em").mkdir()
    theirs = tmp_path / "em" / "run_it025_model.star"
    theirs.write_text("theirs")
    for overwrite in (False, True):
        with pytest.raises(ProjectError, match="no run of another program; got run_it025_model"):
            classify(particles, tmp_path / "em", overwrite=overwrite)
    assert theirs.read_text() == "theirs"


def test_there_must_be_a_run_to_continue(particles):
    assert "must hold a run to continue; got no job.json" in refusal(particles, continues=True)


def test_other_particles_need_another_folder(particles, tmp_path):
    out = tmp_path / "em"
    classify(particles, out, iterations=2)
    changed = particles.rows.assign(defocus_u=particles.rows["defocus_u"] + 100)

    with pytest.raises(ProjectError, match="particles 40 rows"):
        classify(dataclasses.replace(particles, rows=changed), out, iterations=2)


def test_a_broken_checkpoint_is_named(particles, tmp_path):
    out = tmp_path / "em"
    classify(particles, out, iterations=2)
    (out / "result.json").unlink()
    (out / "checkpoint.npz").write_bytes(b"PK\x03\x04 nothing")

    with pytest.raises(FormatError, match=r"checkpoint\.npz must be a checkpoint"):
        classify(particles, out, iterations=2)
    Path(out / "checkpoint.npz").unlink()
    classify(particles, out, iterations=2)
