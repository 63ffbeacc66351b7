"""The file work of ``pick blob``: where CTF and diameter come from, and what is written."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cryopick.ctf.polar import Lens
from cryopick.errors import DataError, ParameterError, ProjectError, TableError
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.mrc import write_mrc
from cryopick.io.star import read_star
from cryopick.picking.blob_parameters import BlobParameters
from cryopick.picking.log_parameters import LogParameters
from cryopick.pipeline.evaluate import evaluate_pick_files
from cryopick.pipeline.pickers import BlobPicker, LogPicker
from cryopick.pipeline.picking import pick_micrographs
from cryopick.pipeline.picking_ctf import CtfOfField, find_ctf
from cryopick.pipeline.picking_ctf_parameters import PickingCtfParameters
from cryopick.pipeline.picking_diameter import blob_picker
from cryopick.pipeline.simulate import simulate_micrographs
from cryopick.simulation.parameters import (
    MicrographSimulationParameters,
    MicroscopeParameters,
    SpecimenParameters,
)
from cryopick.tables.model import Micrographs
from cryopick.tables.relion import picks_of_file, read_micrographs, write_micrographs

_SERIAL = ComputeParameters(workers=1, threads=1)
_SHELLS = BlobParameters(min_diameter=110, max_diameter=140)
_FOCUS = ["defocus_u", "defocus_v", "defocus_angle"]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Two fields of 25 hollow shells of 125 A with their CTF in their table."""
    folder = tmp_path_factory.mktemp("simulated")
    simulate_micrographs(
        folder,
        specimen=SpecimenParameters(phantoms="shell"),
        microscope=MicroscopeParameters(min_defocus=12000.0),
        parameters=MicrographSimulationParameters(
            number=2, width=900, height=900, particles=25, ice_blobs=0, carbon_fraction=0
        ),
        compute=_SERIAL,
    )
    return folder


@pytest.fixture
def project(simulated, tmp_path, monkeypatch):
    shutil.copytree(simulated, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    table = read_micrographs(tmp_path / "micrographs_ctf.star")
    bare = table.rows.drop(columns=[*_FOCUS])
    write_micrographs(
        tmp_path / "bare.star", Micrographs(rows=bare, optics=table.optics, source=None)
    )
    return tmp_path


def pick(table, out, *, parameters=_SHELLS, **given):
    lens = PickingCtfParameters(**given)
    return pick_micrographs(
        [table], Path(out), picker=BlobPicker(parameters=parameters), ctf=lens, compute=_SERIAL
    )


def sources(result):
    return [m.ctf for m in result.picked]


def test_particles_are_found_with_the_ctf_of_the_table(project):
    result = pick("micrographs_ctf.star", "blob")

    scores = evaluate_pick_files(Path("blob"), Path("truth.json")).picks.total
    assert sources(result) == ["table", "table"]
    assert scores.recall > 0.9
    assert scores.precision > 0.85
    assert scores.centring_error < 5.0  # A


def test_without_defocus_it_is_estimated_from_the_rings(project):
    known = pick("micrographs_ctf.star", "known")
    estimated = pick("bare.star", "estimated")

    assert sources(estimated) == ["estimated", "estimated"]
    assert [m.n_picks for m in estimated.picked] == pytest.approx(
        [m.n_picks for m in known.picked], abs=2
    )
    summary = next(iter(read_star(Path("estimated/summary.star")).values()))
    assert list(summary["cryopickCtf"]) == ["estimated", "estimated"]


def test_ignore_searches_as_if_there_were_no_lens(project):
    assert sources(pick("micrographs_ctf.star", "none", ctf="ignore")) == ["ignored", "ignored"]


def test_a_defocus_that_was_not_trusted_is_none(project):
    table = read_micrographs(Path("micrographs_ctf.star"))
    rows = table.rows.assign(is_ctf_trusted=[1, 0])
    write_micrographs(Path("some.star"), Micrographs(rows=rows, optics=table.optics))

    assert sources(pick("some.star", "some", ctf="table")) == ["table", "none"]
    assert sources(pick("some.star", "auto")) == ["table", "estimated"]


def test_a_table_that_must_have_a_ctf_and_has_none_is_refused(project):
    with pytest.raises(TableError, match="must have a column for defocus_u"):
        pick("bare.star", "refused", ctf="table")


@pytest.mark.parametrize("defocus", [0.0, math.nan])
def test_a_row_without_defocus_is_searched_without_a_lens_or_estimated(project, defocus):
    table = read_micrographs(Path("micrographs_ctf.star"))
    rows = table.rows.copy()
    rows.loc[1, ["defocus_u", "defocus_v"]] = defocus
    write_micrographs(Path("some.star"), Micrographs(rows=rows, optics=table.optics))

    assert sources(pick("some.star", "some", ctf="table")) == ["table", "none"]
    assert sources(pick("some.star", "auto")) == ["table", "estimated"]


def test_dividing_by_a_ctf_that_was_not_trusted_is_refused_for_what_it_is(project):
    table = read_micrographs(Path("micrographs_ctf.star"))
    rows = table.rows.assign(is_ctf_trusted=[1, 0])
    write_micrographs(Path("some.star"), Micrographs(rows=rows, optics=table.optics))
    parameters = LogParameters(mode="relion", min_diameter=110, max_diameter=140, use_ctf=True)
    picker = LogPicker(parameters=parameters)

    result = pick_micrographs(
        ["some.star"], Path("log"), picker=picker, ctf=picker.ctf, compute=_SERIAL
    )

    (refused,) = result.failed
    assert refused.micrograph.endswith("sim_00002.mrc")
    assert "got a micrograph without a defocus that can be trusted" in refused.error


@pytest.mark.parametrize("name", ["micrographs_ctf.star", "bare.star"])
def test_an_amplitude_contrast_in_percent_is_refused(project, name):
    table = read_micrographs(Path(name))
    optics = table.optics.assign(amplitude_contrast=10.0)
    write_micrographs(Path("percent.star"), Micrographs(rows=table.rows, optics=optics))

    with pytest.raises(TableError, match=r"percent\.star must .* a fraction from 0 to 1; got 10"):
        pick("percent.star", "refused")
    assert sources(pick("percent.star", "given", amplitude_contrast=0.1)) != ["none", "none"]


def test_only_a_field_too_small_or_too_coarse_for_rings_goes_without_a_ctf():
    lens = Lens(300.0, 2.7, 0.1)
    field = torch.randn(600, 600, generator=torch.Generator().manual_seed(0))

    assert find_ctf(field[:50, :50], CtfOfField(lens=lens), pixel_size=1.5) == (None, "none")
    assert find_ctf(field, CtfOfField(lens=lens), pixel_size=12.0) == (None, "none")
    with pytest.raises(ParameterError, match="amplitude_contrast must be a fraction"):
        find_ctf(field, CtfOfField(lens=lens._replace(amplitude_contrast=10.0)), pixel_size=1.5)


def test_a_lens_that_nobody_knows_is_asked_for(project):
    field = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)
    write_mrc(Path("lone.mrc"), field, pixel_size=4.0)

    with pytest.raises(TableError, match="must say the voltage of the microscope"):
        pick("lone.mrc", "refused")
    assert sources(pick("lone.mrc", "ignored", ctf="ignore")) == ["ignored"]
    given = {"voltage": 300.0, "spherical_aberration": 2.7}
    assert sources(pick("lone.mrc", "given", **given)) == ["none"]  # noise has no rings


def test_a_particle_larger_than_the_field_is_refused_with_its_micrograph(project):
    huge = BlobParameters(min_diameter=1000, max_diameter=1500)

    (first, _) = pick("micrographs_ctf.star", "huge", parameters=huge).failed

    assert "sim_00001.mrc must be larger than the largest particle, 1500 A" in first.error


def test_picks_carry_shape_angle_and_diameter(project):
    pick("micrographs_ctf.star", "blob")

    rows = picks_of_file(Path("blob/micrographs/sim_00001_autopick.star"), "a.mrc")

    assert set(rows["class_number"]) <= {1, 2}
    assert rows["class_number"].mode()[0] == 2  # shells
    assert rows["diameter"].between(95, 146).all()
    assert (rows["psi"] == 0).all()


def test_other_parameters_of_the_lens_are_another_job(project):
    first = pick("micrographs_ctf.star", "blob")
    again = pick("micrographs_ctf.star", "blob")

    assert again == first
    with pytest.raises(ProjectError, match="ctf auto instead of ignore"):
        pick("micrographs_ctf.star", "blob", ctf="ignore")


def estimate(inputs, out="blob", parameters=None, **given):
    lens = PickingCtfParameters(**given)
    picker = blob_picker(
        parameters or BlobParameters(), list(inputs), Path(out), ctf=lens, compute=_SERIAL
    )
    result = pick_micrographs(list(inputs), Path(out), picker=picker, ctf=lens, compute=_SERIAL)
    return picker, result


def test_the_diameter_is_estimated_once_and_shown(project):
    first, result = estimate(["micrographs_ctf.star"])
    again, same = estimate(["micrographs_ctf.star"])

    stored = json.loads(Path("blob/diameter.json").read_text())
    assert first.estimate.diameter == pytest.approx(125, rel=0.15)
    assert first.parameters.min_diameter < 125 < first.parameters.max_diameter
    assert Path("blob/diameter.png").stat().st_size > 5000
    assert len(stored["candidates"]) == len(stored["gains"])
    assert again.estimate is None  # taken from the job
    assert (again.parameters, same) == (first.parameters, result)


def test_more_micrographs_are_picked_with_the_diameters_of_the_first(project):
    names = sorted(str(p) for p in Path("micrographs").glob("*.mrc"))
    one, _ = estimate(names[:1], ctf="ignore")

    two, result = estimate(names, ctf="ignore")

    assert two.parameters == one.parameters
    assert len(result.picked) == 2


def test_given_diameters_are_not_estimated_and_clear_an_old_estimate(project):
    estimate(["micrographs_ctf.star"])

    picker = blob_picker(
        _SHELLS, ["micrographs_ctf.star"], Path("blob"), ctf=PickingCtfParameters()
    )
    assert (picker.parameters, picker.estimate) == (_SHELLS, None)
    pick_micrographs(
        ["micrographs_ctf.star"],
        Path("blob"),
        picker=picker,
        ctf=PickingCtfParameters(),
        compute=_SERIAL,
        overwrite=True,
    )
    assert not Path("blob/diameter.json").exists()


def test_a_folder_of_another_job_is_refused_before_anything_is_estimated(project):
    pick("micrographs_ctf.star", "blob")
    before = sorted(Path("blob").rglob("*"))

    with pytest.raises(ProjectError, match="shapes ball,shell instead of disc"):
        estimate(["micrographs_ctf.star"], parameters=BlobParameters(shapes="disc"))
    assert sorted(Path("blob").rglob("*")) == before


def test_a_broken_micrograph_does_not_end_the_estimate(project):
    names = sorted(str(p) for p in Path("micrographs").glob("*.mrc"))
    Path("micrographs/bad.mrc").write_bytes(b"no micrograph")

    picker, result = estimate(["micrographs/bad.mrc", *names], ctf="ignore")

    assert picker.parameters.min_diameter < 125 < picker.parameters.max_diameter
    assert [bool(m.error) for m in result.micrographs] == [True, False, False]


def test_noise_has_no_diameter_and_a_small_field_no_choice(project):
    for name, side in (("noise", 400), ("small", 60)):
        field = np.random.default_rng(1).normal(size=(side, side)).astype(np.float32)
        write_mrc(Path(f"{name}.mrc"), field, pixel_size=5.0)

    with pytest.raises(DataError, match="show 20 particles of one size"):
        estimate(["noise.mrc"], ctf="ignore")
    with pytest.raises(DataError, match="have a side of 600 A"):
        estimate(["small.mrc"], ctf="ignore")


def test_the_picks_do_not_depend_on_the_number_of_workers(project):
    one = pick("micrographs_ctf.star", "one")
    two = pick_micrographs(
        ["micrographs_ctf.star"],
        Path("two"),
        picker=BlobPicker(parameters=_SHELLS),
        ctf=PickingCtfParameters(),
        compute=ComputeParameters(workers=2, threads=1),
    )

    assert [m.n_picks for m in one.picked] == [m.n_picks for m in two.picked]
    for name in ("sim_00001", "sim_00002"):
        tables = [Path(f"{d}/peaks/micrographs/{name}_peaks.star") for d in ("one", "two")]
        first, second = (picks_of_file(t, "a.mrc") for t in tables)
        assert np.allclose(first["fom"], second["fom"], rtol=1e-5)


def test_a_range_given_by_half_is_refused():
    with pytest.raises(ParameterError, match="min_diameter must be given with max_diameter"):
        BlobParameters(min_diameter=100)
