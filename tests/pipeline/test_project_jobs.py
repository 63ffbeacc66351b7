"""The folders of a project hold the jobs of every command, with the record of the step in them."""

from __future__ import annotations

from pathlib import Path

import network_world
import pytest
import selection_world
from classification_world import classify, make_particles
from network_world import DIAMETER, TABLE

from cryopick.errors import ParameterError
from cryopick.pipeline.project import Project
from cryopick.pipeline.project_verify import verify_project
from cryopick.pipeline.select_subset import select_subset
from cryopick.selection.subset_parameters import SubsetParameters
from cryopick.tables.relion import read_particles

pytest_plugins = ("network_world", "topaz_world")


def names(folder):
    """Names of all files that a job made."""
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    return found - {"step.json"}


def subset(out):
    select_subset(Path("parts/particles.star"), out, SubsetParameters(n_subsets=2))


def classes(out):
    classify(read_particles(Path("parts/particles.star")), out, iterations=2)


def selection(out):
    selection_world.select(str(out), "run", minimum_score=0.0)


def training(out):
    network_world.train("labels.star", out, micrographs=(TABLE,), steps=2)


def picks(out):
    words = ("pick", "network", TABLE, "--diameter", DIAMETER, "--workers", 1, "--threads", 1)
    ended = network_world.run(*words, "--model", "model.npz", "--out", out)
    assert ended.exit_code == 0, ended.output


JOBS = {"subset": subset, "classes": classes, "selection": selection, "training": training}
JOBS |= {"pick": picks}


@pytest.fixture
def files(network_project):
    """Everything that the jobs are made from, in the working folder."""
    make_particles(Path("parts"), n=60)
    selection_world.make_run(Path("run"))
    selection_world.make_weights(Path("weights.npz"))
    three = Path("three.star").read_bytes()
    Path("labels.star").unlink()  # a link to what other tests share
    Path("labels.star").write_bytes(three)
    return network_project


@pytest.mark.parametrize("step", JOBS)
def test_a_job_makes_the_same_files_in_a_project_as_elsewhere_and_goes_on_there(files, step):
    JOBS[step](Path("alone"))

    with Project.open(Path("project"), create=True) as project:
        record = project.new_job(step, "identity")
        folder = project.job_folder(record.number)
        JOBS[step](folder)
        before = {p: p.read_bytes()[1024:] for p in folder.rglob("*.mrc*")}
        JOBS[step](folder)  # killed after its last file, before it was said to be done
        finished = project.finish_job(record.number)

    assert names(folder) == names(Path("alone"))
    assert {p: p.read_bytes()[1024:] for p in folder.rglob("*.mrc*")} == before
    assert project.job(record.number) == finished
    assert finished.is_done
    assert all((folder / name).stat().st_size == size for name, size in finished.files.items())
    assert verify_project(project.folder) == []


def test_a_job_that_is_refused_leaves_its_record_and_takes_other_inputs(files):
    with Project.open(Path("project"), create=True) as project:
        record = project.new_job("classes", "identity")
        folder = project.job_folder(record.number)
        empty = make_particles(Path("few"), n=2)
        with pytest.raises(ParameterError):
            classify(empty, folder, iterations=2)
        assert project.job(record.number) == record
        classes(folder)

    assert (folder / "classes.png").exists()
