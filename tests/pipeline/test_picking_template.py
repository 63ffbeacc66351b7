"""The file work of ``pick template``: numbers, angles, files, and what makes a job another one."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cryopick.alignment.transform import transform_images
from cryopick.errors import DataError, ProjectError
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.mrc import read_mrc, write_mrc
from cryopick.io.star import write_star
from cryopick.picking.template_parameters import TemplateParameters
from cryopick.pipeline.evaluate import evaluate_pick_files
from cryopick.pipeline.pickers import make_template_picker
from cryopick.pipeline.picking import pick_micrographs
from cryopick.pipeline.picking_ctf_parameters import PickingCtfParameters
from cryopick.pipeline.simulate import simulate_micrographs
from cryopick.simulation.orientations import draw_angles, euler_matrices
from cryopick.simulation.parameters import (
    MicrographSimulationParameters,
    MicroscopeParameters,
    SpecimenParameters,
)
from cryopick.simulation.phantoms import make_phantom
from cryopick.simulation.projection import project
from cryopick.tables.relion import picks_of_file

_SERIAL = ComputeParameters(workers=1, threads=1)
_BARREL = TemplateParameters(diameter=190)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Two fields of 15 barrels of 182 A, and three views of the barrel after a blank image."""
    folder = tmp_path_factory.mktemp("simulated")
    simulate_micrographs(
        folder,
        specimen=SpecimenParameters(),
        microscope=MicroscopeParameters(min_defocus=12000.0),
        parameters=MicrographSimulationParameters(
            number=2, width=800, height=800, particles=15, ice_blobs=0, carbon_fraction=0
        ),
        compute=_SERIAL,
    )
    angles = draw_angles(3, generator=np.random.default_rng(2))
    views = project(
        make_phantom("barrel"), euler_matrices(angles), box_size=72, pixel_size=4.0
    ).numpy()
    stack = np.concatenate([np.zeros_like(views[:1]), views])
    write_mrc(folder / "views.mrcs", stack, pixel_size=4.0)
    return folder


@pytest.fixture
def project_folder(simulated, tmp_path, monkeypatch):
    shutil.copytree(simulated, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pick(out, *, templates="views.mrcs", parameters=_BARREL, inputs=("micrographs_ctf.star",)):
    return pick_micrographs(
        list(inputs),
        Path(out),
        picker=make_template_picker(Path(templates), parameters=parameters),
        ctf=PickingCtfParameters(),
        compute=_SERIAL,
    )


def test_particles_are_found_and_blank_templates_keep_their_number(project_folder):
    pick("picks")

    scores = evaluate_pick_files(Path("picks"), Path("truth.json")).picks.total
    rows = picks_of_file(Path("picks/micrographs/sim_00001_autopick.star"), "a.mrc")
    assert scores.recall > 0.9
    assert scores.precision > 0.8
    assert set(rows["class_number"]) <= {2, 3, 4}
    assert (rows["diameter"] == 190).all()
    assert len(read_mrc(Path("picks/templates.mrcs"))) == 4


def test_psi_turns_the_particle_onto_its_template(project_folder):
    """A field made of one view at known angles, without lens or noise to speak of."""
    angles = euler_matrices(draw_angles(1, generator=np.random.default_rng(0)))
    view = project(make_phantom("asymmetric"), angles, box_size=72, pixel_size=4.0)[0]
    write_mrc(Path("view.mrcs"), view[None].numpy(), pixel_size=4.0)
    field = 0.05 * torch.randn(480, 480, generator=torch.Generator().manual_seed(0))
    angles, places = (20.0, -75.0, 130.0, 171.0), ((120, 120), (120, 360), (360, 120), (360, 360))
    for angle, (y, x) in zip(angles, places, strict=True):
        turned = transform_images(
            view[None],
            psi=torch.tensor([-angle]),
            shift_x=torch.zeros(1),
            shift_y=torch.zeros(1),
        )[0]
        field[y - 36 : y + 36, x - 36 : x + 36] -= turned / view.std()
    write_mrc(Path("turned.mrc"), field.numpy(), pixel_size=4.0)

    pick_micrographs(
        ["turned.mrc"],
        Path("turned"),
        picker=make_template_picker(Path("view.mrcs"), parameters=_BARREL),
        ctf=PickingCtfParameters(ctf="ignore"),
        compute=_SERIAL,
    )
    rows = picks_of_file(Path("turned/turned_autopick.star"), "a.mrc")

    assert len(rows) == 4
    for angle, (y, x) in zip(angles, places, strict=True):
        near = rows[np.hypot(rows["x"] - x, rows["y"] - y) < 3]
        assert list(near["class_number"]) == [1]
        assert (near["psi"].iloc[0] - angle + 180) % 360 - 180 == pytest.approx(0, abs=3)


def test_other_templates_in_the_same_folder_are_another_job(project_folder):
    first = pick("picks")
    assert pick("picks") == first

    stack = read_mrc(Path("views.mrcs")).copy()
    write_mrc(Path("views.mrcs"), stack[1:3], pixel_size=4.0)

    with pytest.raises(ProjectError, match="hold `pick template` with the same parameters"):
        pick("picks")


def test_templates_rewritten_under_the_same_table_are_another_job(project_folder):
    table = pd.DataFrame({"rlnReferenceImage": ["2@views.mrcs", "3@views.mrcs"]})
    write_star(Path("averages.star"), {"": table})
    pick("picks", templates="averages.star")

    stack = read_mrc(Path("views.mrcs")).copy()
    write_mrc(Path("views.mrcs"), stack[::-1], pixel_size=4.0)

    with pytest.raises(ProjectError, match="hold `pick template` with the same parameters"):
        pick("picks", templates="averages.star")


def test_the_same_templates_elsewhere_are_the_same_job(project_folder):
    first = pick("picks")
    shutil.copytree("picks", "before")
    Path("views.mrcs").rename("moved.mrcs")

    assert pick("picks", templates=str(Path("moved.mrcs").resolve())) == first
    ledger = Path("picks/ledger.jsonl").read_text()
    assert ledger == Path("before/ledger.jsonl").read_text()  # nothing was done again


def test_workers_get_no_images_and_find_what_one_process_finds(project_folder):
    picker = make_template_picker(Path("views.mrcs"), parameters=_BARREL)
    sent = pickle.loads(pickle.dumps(picker))
    assert sent.images.size == 0
    assert len(picker.images) == 4

    alone = pick("alone")
    shared = pick_micrographs(
        ["micrographs_ctf.star"],
        Path("shared"),
        picker=picker,
        ctf=PickingCtfParameters(),
        compute=ComputeParameters(workers=2, threads=1),
    )

    assert shared.micrographs == alone.micrographs
    for name in ("sim_00001", "sim_00002"):
        path = f"micrographs/{name}_autopick.star"
        assert Path("shared", path).read_bytes() == Path("alone", path).read_bytes()
    assert len(read_mrc(Path("shared/templates.mrcs"))) == 4


def test_a_stack_of_blank_images_is_refused(project_folder):
    write_mrc(Path("blank.mrcs"), np.ones((3, 64, 64), np.float32), pixel_size=4.0)

    with pytest.raises(DataError, match=r"blank\.mrcs must hold a template with contrast"):
        pick("picks", templates="blank.mrcs")


def test_a_field_smaller_than_the_particle_is_refused_alone(project_folder):
    tiny = np.random.default_rng(0).normal(size=(60, 60)).astype(np.float32)
    write_mrc(Path("micrographs/tiny.mrc"), tiny, pixel_size=1.5)
    names = [f"micrographs/{n}.mrc" for n in ("sim_00001", "tiny")]

    result = pick_micrographs(
        names,
        Path("picks"),
        picker=make_template_picker(Path("views.mrcs"), parameters=_BARREL),
        ctf=PickingCtfParameters(ctf="ignore"),
        compute=_SERIAL,
    )

    (refused,) = result.failed
    assert "tiny.mrc must be larger than the largest particle, 190 A" in refused.error
    assert result.picked[0].n_picks > 10
