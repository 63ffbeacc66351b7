"""Tables of a project name images that their stacks have; else `verify` says which do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from classification_world import make_particles

from cryopick.io.mrc import read_mrc, write_mrc
from cryopick.pipeline.project import Project
from cryopick.pipeline.project_verify import verify_project
from cryopick.pipeline.select_subset import select_subset
from cryopick.selection.subset_parameters import SubsetParameters
from cryopick.tables.relion import read_particles, write_particles


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Folder of a job with two tables of 30 of 60 particles; its project is closed."""
    monkeypatch.chdir(tmp_path)
    make_particles(Path("parts"), n=60)
    with Project.open(Path("project"), create=True) as project:
        number = project.new_job("halves", "identity").number
        folder = project.job_folder(number)
        select_subset(Path("parts/particles.star"), folder, SubsetParameters(n_subsets=2))
        project.finish_job(number)
    assert verify_project(Path("project")) == []
    return folder


def cut_stack(count):
    """Leave so many images in the stack of the particles."""
    (stack,) = Path("parts").glob("*.mrcs")
    write_mrc(stack, read_mrc(stack)[:count], pixel_size=2.0)
    return stack


def test_each_table_with_images_beyond_the_end_of_a_stack_is_told_once(job):
    stack = cut_stack(20)

    first, second = verify_project(Path("project"))

    assert first == f"{job}/particles_split1.star names image 30 of {stack}, which holds 20."
    assert second == f"{job}/particles_split2.star names image 60 of {stack}, which holds 20."
    cut_stack(20).unlink()
    assert verify_project(Path("project")) == []  # it is no file of the project


def test_the_last_image_of_a_stack_is_in_it_and_the_next_is_not(job):
    table = read_particles(job / "particles_split2.star")
    rows = table.rows.assign(image_index=59)
    write_particles(job / "particles_split2.star", replace(table, rows=rows))
    assert verify_project(Path("project")) == []
    write_particles(job / "particles_split2.star", replace(table, rows=rows.assign(image_index=60)))
    (fault,) = verify_project(Path("project"))
    assert "names image 61 of" in fault
