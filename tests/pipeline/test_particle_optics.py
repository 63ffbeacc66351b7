"""Optics groups of particles: CTFs of mixed batches, and tables that are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from particle_world import PIXEL_SIZE, optics_table, particles_of, with_ctf

from cryopick.ctf.evaluate import evaluate_ctf
from cryopick.errors import TableError
from cryopick.pipeline.particle_optics import CTF_PARAMETERS, ParticleOptics

COUNT = 9
SHAPE = (12, 12)


@pytest.fixture
def three_lenses(tmp_path):
    """Particles of three microscopes in turn; the third group flipped its phases."""
    optics = optics_table(
        4,
        optics_group_name=["krios", "unused", "glacios", "talos"],
        is_premultiplied=[1, 1, 0, 0],
        is_phase_flipped=[0, 0, 0, 1],
    ).assign(
        optics_group=[7, 1, 2, 5],
        voltage=[300.0, 100.0, 200.0, 120.0],
        spherical_aberration=[2.7, 1.0, 1.4, 0.01],
        amplitude_contrast=[0.1, 0.5, 0.07, 0.2],
    )
    columns = with_ctf(COUNT) | {
        "optics_group": [5, 7, 2] * 3,
        "phase_shift": np.linspace(0, 90, COUNT),
        "ctf_bfactor": np.linspace(0, 200, COUNT),
        "ctf_scale": np.linspace(0.5, 1, COUNT),
    }
    return particles_of(tmp_path, {"a.mrcs": COUNT}, optics=optics, **columns)


def one_by_one(particles, **options):
    """CTF of each row alone, as its table says."""
    rows = particles.rows.reset_index(drop=True)
    lenses = particles.optics.set_index("optics_group")
    ctfs = []
    for _, row in rows.iterrows():
        lens = lenses.loc[row["optics_group"]]
        ctf = evaluate_ctf(
            SHAPE,
            pixel_size=PIXEL_SIZE,
            defocus_u=row["defocus_u"],
            defocus_v=row["defocus_v"],
            defocus_angle=row["defocus_angle"],
            phase_shift=row["phase_shift"],
            bfactor=row["ctf_bfactor"],
            scale=row["ctf_scale"],
            voltage=lens["voltage"],
            spherical_aberration=lens["spherical_aberration"],
            amplitude_contrast=lens["amplitude_contrast"],
            dtype=torch.float64,
            **options,
        )
        ctfs.append(ctf.abs() if lens["is_phase_flipped"] else ctf)
    return torch.cat(ctfs)


@pytest.mark.parametrize("ignore_until_first_peak", [False, True])
def test_a_batch_of_several_microscopes_gets_the_ctf_of_each(three_lenses, ignore_until_first_peak):
    optics = ParticleOptics(three_lenses, require_ctf=True)
    truth = one_by_one(three_lenses, ignore_until_first_peak=ignore_until_first_peak)

    for indices in ([0, 1, 2, 3, 4, 5, 6, 7, 8], [8, 0, 0, 4], [1]):
        indices = np.array(indices)
        found = optics.ctf_of(
            indices, SHAPE, ignore_until_first_peak=ignore_until_first_peak, dtype=torch.float64
        )
        torch.testing.assert_close(found, truth[indices], rtol=1e-12, atol=1e-12)
    assert optics.ctf_of(np.zeros(0, np.int64), SHAPE).shape == (0, 12, 7)


def test_phase_flipped_images_carry_no_negative_ctf(three_lenses):
    optics = ParticleOptics(three_lenses)
    ctf = optics.ctf_of(np.arange(COUNT), (32, 32))
    flipped = [optics.groups[g].is_phase_flipped for g in optics.groups_of(np.arange(COUNT))]

    assert flipped == [True, False, False] * 3
    assert (ctf[flipped] >= 0).all()
    assert (ctf[~np.array(flipped)] < -0.1).any()


def test_a_shrunk_image_has_the_ctf_of_its_low_frequencies(three_lenses):
    optics = ParticleOptics(three_lenses)
    whole = optics.ctf_of(np.arange(COUNT), (12, 12), dtype=torch.float64)

    shrunk = optics.ctf_of(np.arange(COUNT), (6, 6), pixel_size=2 * PIXEL_SIZE, dtype=torch.float64)

    torch.testing.assert_close(shrunk[:, :3, :3], whole[:, :3, :3])


def test_named_parameters_are_those_of_the_table(three_lenses):
    optics = ParticleOptics(three_lenses)
    indices = np.array([3, 2, 2])

    table = optics.ctf_parameters(indices)

    assert table.dtype == np.float64
    named = dict(zip(CTF_PARAMETERS, table.T, strict=True))
    rows = three_lenses.rows.iloc[indices]
    for ours, theirs in {"bfactor": "ctf_bfactor", "scale": "ctf_scale"}.items():
        np.testing.assert_array_equal(named[ours], rows[theirs])
    for name in ("defocus_u", "defocus_v", "defocus_angle", "phase_shift"):
        np.testing.assert_array_equal(named[name], rows[name])
    assert named["voltage"].tolist() == [120, 200, 200]
    assert named["spherical_aberration"].tolist() == [0.01, 1.4, 1.4]
    assert named["amplitude_contrast"].tolist() == [0.2, 0.07, 0.07]


def test_a_lens_is_what_evaluate_ctf_takes(three_lenses):
    optics = ParticleOptics(three_lenses)
    group = int(optics.groups_of(np.array([1]))[0])
    members = np.flatnonzero(optics.groups_of(np.arange(COUNT)) == group)

    found = evaluate_ctf(
        SHAPE, pixel_size=PIXEL_SIZE, dtype=torch.float64, **optics.lens_of(group, members)
    )

    torch.testing.assert_close(found, one_by_one(three_lenses)[members])


def test_groups_are_those_with_particles_and_say_what_was_done_to_them(three_lenses):
    groups = ParticleOptics(three_lenses).groups

    assert [(g.number, g.name, g.n_particles) for g in groups] == [
        (7, "krios", 3),
        (2, "glacios", 3),
        (5, "talos", 3),
    ]
    assert [g.is_premultiplied for g in groups] == [True, False, False]
    assert [g.is_phase_flipped for g in groups] == [False, False, True]


def test_optional_columns_have_the_values_of_no_effect(tmp_path):
    particles = particles_of(tmp_path, {"a.mrcs": 2}, **with_ctf(2))

    table = ParticleOptics(particles, require_ctf=True).ctf_parameters(np.arange(2))

    named = dict(zip(CTF_PARAMETERS, table.T, strict=True))
    assert named["phase_shift"].tolist() == named["bfactor"].tolist() == [0, 0]
    assert named["scale"].tolist() == [1, 1]
    assert not ParticleOptics(particles).groups[0].is_premultiplied


def test_without_a_ctf_whoever_asks_for_it_is_told(tmp_path):
    optics = ParticleOptics(particles_of(tmp_path, {"a.mrcs": 2}))

    assert not optics.has_ctf
    with pytest.raises(TableError, match="must have a column rlnDefocusU for defocus_u"):
        optics.ctf_of(np.arange(2), SHAPE)


@pytest.mark.parametrize(
    ("column", "label"),
    [
        ("defocus_u", "rlnDefocusU"),
        ("defocus_v", "rlnDefocusV"),
        ("defocus_angle", "rlnDefocusAngle"),
    ],
)
def test_a_missing_column_of_the_ctf_is_named_as_in_the_file(tmp_path, column, label):
    columns = with_ctf(2)
    del columns[column]

    with pytest.raises(TableError, match=f"must have a column {label} for {column} "):
        ParticleOptics(particles_of(tmp_path, {"a.mrcs": 2}, **columns), require_ctf=True)


@pytest.mark.parametrize(
    ("column", "label"),
    [
        ("voltage", "rlnVoltage"),
        ("spherical_aberration", "rlnSphericalAberration"),
        ("amplitude_contrast", "rlnAmplitudeContrast"),
    ],
)
def test_a_missing_lens_is_named_as_in_the_file(tmp_path, column, label):
    lacking = particles_of(
        tmp_path, {"a.mrcs": 2}, optics=optics_table().drop(columns=column), **with_ctf(2)
    )
    empty = particles_of(
        tmp_path, {"a.mrcs": 2}, optics=optics_table().assign(**{column: np.nan}), **with_ctf(2)
    )

    with pytest.raises(TableError, match=f"must have a column {label} for {column} "):
        ParticleOptics(lacking, require_ctf=True)
    with pytest.raises(TableError, match=f"group 1, {label}, must be a number .* got nan"):
        ParticleOptics(empty, require_ctf=True)


def test_a_row_without_a_defocus_is_counted(tmp_path):
    columns = with_ctf(4)
    columns["defocus_v"][[1, 3]] = np.nan
    particles = particles_of(tmp_path, {"a.mrcs": 4}, **columns)

    with pytest.raises(TableError, match=r"rlnDefocusV, must .* got nan in row 2 and in 1 more"):
        ParticleOptics(particles, require_ctf=True)


def test_pixel_sizes_may_differ_by_a_thousandth(tmp_path):
    groups = {"optics_group": [1, 2]}
    close, far = (
        particles_of(
            tmp_path,
            {"a.mrcs": 2},
            optics=optics_table(2).assign(pixel_size=[2.0, other]),
            **groups,
        )
        for other in (2.0019, 2.0021)
    )

    assert ParticleOptics(close).pixel_size == 2.0
    with pytest.raises(TableError, match=r"one pixel size; got 2 A in .* and 2\.0021 A"):
        ParticleOptics(far)


@pytest.mark.parametrize("pixel_size", [0.0, -1.0, np.nan, np.inf])
def test_a_pixel_size_that_is_none_is_refused(tmp_path, pixel_size):
    optics = optics_table().assign(pixel_size=pixel_size)

    with pytest.raises(TableError, match=r"give the pixel size of its images; got .* group 1"):
        ParticleOptics(particles_of(tmp_path, {"a.mrcs": 2}, optics=optics))


def test_an_unknown_optics_group_is_refused(tmp_path):
    particles = particles_of(tmp_path, {"a.mrcs": 2}, optics_group=[1, 3])

    with pytest.raises(TableError, match="describe every optics group; got group 3"):
        ParticleOptics(particles)
