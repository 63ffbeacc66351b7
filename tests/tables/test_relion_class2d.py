"""RELION's Class2D files: those of 3.1 and 5 in, both out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopick.errors import FormatError, OutputError, TableError
from cryopick.io.star import read_star, write_star
from cryopick.tables.classification import (
    Classification,
    ModelValues,
    OptimiserValues,
    SamplingValues,
    group_by_micrograph,
)
from cryopick.tables.model import Particles
from cryopick.tables.relion_class2d import read_classification, write_classification

BOX = 16
TABLES = ("classes", "spectra", "groups", "noise")
RECORDS = ("model", "sampling", "optimiser")


def some_particles(n: int = 12) -> Particles:
    rng = np.random.default_rng(5)
    rows = pd.DataFrame(
        {
            "x": rng.uniform(0, 1000, n),
            "y": rng.uniform(0, 1000, n),
            "class_number": np.arange(n) % 4,  # 0 is none
            "psi": rng.uniform(-180, 180, n),
            "image": "stack.mrcs",
            "image_index": np.arange(n),
            "micrograph": ["a.mrc", "b.mrc", "c.mrc", "a.mrc"] * (n // 4),
            "optics_group": [1, 2, 1, 1] * (n // 4),
            "rlnMine": [f"m{k}" for k in range(n)],
            "shift_x": rng.normal(size=n),
            "shift_y": rng.normal(size=n),
            "norm_correction": rng.uniform(0.9, 1.1, n),
            "log_likelihood": rng.normal(5000, 10, n),
            "max_probability": rng.uniform(size=n),
            "n_significant": rng.integers(1, 50, n),
        }
    )
    optics = pd.DataFrame(
        {
            "optics_group_name": ["opticsGroup1", "opticsGroup2"],
            "optics_group": [1, 2],
            "pixel_size": [2.0, 2.0],
            "box_size": BOX,
            "image_dimensions": 2,
            "voltage": 300.0,
            "spherical_aberration": 2.7,
            "amplitude_contrast": 0.1,
        }
    )
    return Particles(rows=rows, optics=optics)


def spectra_of(n_classes: int, n_rings: int) -> pd.DataFrame:
    rng = np.random.default_rng(6)
    n = n_classes * n_rings
    return pd.DataFrame(
        {
            "class_number": np.repeat(np.arange(1, n_classes + 1), n_rings),
            "spectral_index": np.tile(np.arange(n_rings), n_classes),
            "ssnr": rng.uniform(0, 100, n),
            "sigma2": rng.uniform(1e-6, 1e-3, n),
            "tau2": rng.uniform(1e-6, 1e-3, n),
        }
    )


def noise_of(groups: list[int], n_rings: int) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "optics_group": np.repeat(groups, n_rings),
            "spectral_index": np.tile(np.arange(n_rings), len(groups)),
            "sigma2": rng.uniform(1e-4, 2e-4, n_rings * len(groups)),
        }
    )


def some_classification(**changes: object) -> Classification:
    particles, groups = group_by_micrograph(some_particles())
    classes = pd.DataFrame(
        {
            "class_number": [1, 2, 3],
            "image": "elsewhere/averages.mrcs",
            "image_index": [4, 5, 6],
            "distribution": [0.5, 0.5, 0.0],
            "accuracy_rotations": [2.5, 3.5, np.nan],
            "accuracy_translations": [4.5, 5.5, np.nan],
            "estimated_resolution": [12.5, 17.0, np.inf],
            "completeness": [0.9, 0.8, 0.0],
            "prior_offset_x": [0.25, -0.5, 0.0],
            "prior_offset_y": [0.5, 0.75, 0.0],
            "particle_count": [3, 3, 3],
            "soft_count": [3.25, 2.75, 3.0],
            "entropy": [0.5, 0.25, 0.0],
        }
    )
    parts: dict[str, object] = {
        "particles": particles,
        "groups": groups,
        "classes": classes,
        "model": ModelValues(
            box_size=BOX,
            pixel_size=2.0,
            current_resolution=12.5,
            current_size=12,
            tau2_fudge=1.5,
            sigma_offset=3.25,
            log_likelihood=1.0625e5,
            average_max_probability=0.5,
        ),
        "spectra": spectra_of(3, BOX // 2 + 1),
        "noise": noise_of([1, 2], BOX // 2 + 1),
        "sampling": SamplingValues(psi_step=12.0, offset_range=10.0, offset_step=4.0),
        "optimiser": OptimiserValues(
            iteration=7,
            n_iterations=25,
            random_seed=3,
            particle_diameter=24.5,
            is_zero_masked=False,
            highres_limit=8.5,
            changes_classes=0.25,
        ),
    }
    return Classification(**(parts | changes))  # type: ignore[arg-type]


def same(left: pd.DataFrame, right: pd.DataFrame) -> None:
    columns = list(right.columns)
    pd.testing.assert_frame_equal(left[columns], right, check_exact=True, check_dtype=False)


def named(record: object) -> dict[str, object]:
    assert dataclasses.is_dataclass(record)
    fields = (f.name for f in dataclasses.fields(record) if f.name != "others")
    return {name: getattr(record, name) for name in fields}


def test_a_classification_comes_back_as_it_was_written(tmp_path):
    written = some_classification()

    write_classification(tmp_path / "run_it007", written)

    back = read_classification(tmp_path / "run_it007_optimiser.star")
    same(back.particles.rows, written.particles.rows)
    same(back.particles.optics, written.particles.optics)
    for table in TABLES:
        same(getattr(back, table), getattr(written, table))
    for record in RECORDS:
        np.testing.assert_equal(named(getattr(back, record)), named(getattr(written, record)))


@pytest.mark.parametrize("version", ["3.1", "5"])
def test_a_second_round_trip_changes_nothing(tmp_path, version):
    write_classification(tmp_path / "a", some_classification(), relion_version=version)
    first = read_classification(tmp_path / "a_optimiser.star")

    write_classification(tmp_path / "b", first, relion_version=version)

    for kind in ("data", "model", "sampling"):
        texts = [(tmp_path / f"{name}_{kind}.star").read_text() for name in "ab"]
        assert texts[0] == texts[1]


def test_any_of_the_four_files_or_their_folder_stands_for_the_iteration(tmp_path):
    written = some_classification()
    write_classification(tmp_path / "run_it007", written)
    earlier = dataclasses.replace(written.optimiser, iteration=6)
    write_classification(tmp_path / "run_it006", dataclasses.replace(written, optimiser=earlier))

    for name in ("optimiser", "model", "data", "sampling"):
        back = read_classification(tmp_path / f"run_it007_{name}.star")
        assert back.optimiser is not None
        assert back.optimiser.iteration == 7
    assert read_classification(tmp_path).source == tmp_path / "run_it007_model.star"


def test_a_moved_folder_is_read_where_it_lies_now(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_classification("Class2D/job001/run_it007", some_classification())
    Path("Class2D/job001").rename("moved")

    back = read_classification(Path("moved"))

    assert back.source == Path("moved/run_it007_model.star")


def test_the_optimiser_names_the_other_files_as_the_prefix_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    write_classification("Class2D/job001/run_it007", some_classification(), command="c2d -i x")

    text = Path("Class2D/job001/run_it007_optimiser.star").read_text()
    general = read_star(Path("Class2D/job001/run_it007_optimiser.star"))["optimiser_general"]
    assert general["rlnOutputRootName"].tolist() == ["Class2D/job001/run"]
    for label, kind in [("Model", "model"), ("ExperimentalData", "data")]:
        assert general[f"rln{label}StarFile"][0] == f"Class2D/job001/run_it007_{kind}.star"
    assert "# c2d -i x\n" in text


def test_averages_without_a_name_are_those_of_the_prefix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classes = pd.DataFrame({"distribution": [0.5, 0.5, 0.0]})

    write_classification("out/run_it007", some_classification(classes=classes))

    names = read_star(Path("out/run_it007_model.star"))["model_classes"]["rlnReferenceImage"]
    assert names[0] == "00000001@out/run_it007_classes.mrcs"
    back = read_classification(Path("out"))
    assert back.classes["image_index"].tolist() == [0, 1, 2]
    assert back.classes["accuracy_rotations"].isna().all()


def test_rings_beyond_the_resolution_are_written_as_nothing(tmp_path):
    short = spectra_of(3, 4)

    write_classification(tmp_path / "run_it007", some_classification(spectra=short))

    back = read_classification(tmp_path).spectra
    assert len(back) == 3 * (BOX // 2 + 1)
    assert (back.loc[back["spectral_index"] >= 4, ["ssnr", "sigma2", "tau2"]] == 0).all(axis=None)
    within = back[back["spectral_index"] < 4].reset_index(drop=True)
    same(within, short)
    np.testing.assert_allclose(back["frequency"], back["spectral_index"] / (BOX * 2.0))
    outer = back[back["spectral_index"] > 0]
    np.testing.assert_allclose(outer["resolution"], 1 / outer["frequency"])
    assert np.isinf(back.loc[back["spectral_index"] == 0, "resolution"]).all()


def test_particles_and_classes_are_enough(tmp_path):
    write_classification(tmp_path / "run_it007", some_classification(optimiser=None, sampling=None))

    back = read_classification(tmp_path / "run_it007_data.star")

    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "run_it007_data.star",
        "run_it007_model.star",
    ]
    assert (back.optimiser, back.sampling) == (None, None)
    assert back.n_classes == 3


def test_noise_of_relion_3_is_kept_for_each_micrograph_and_read_as_their_mean(tmp_path):
    write_classification(tmp_path / "run_it007", some_classification(), relion_version="3.1")
    path = tmp_path / "run_it007_model.star"
    blocks = read_star(path)
    assert [b for b in blocks if "group_" in b] == [f"model_group_{g}" for g in (1, 2, 3)]
    written = noise_of([1, 2], BOX // 2 + 1)["sigma2"].to_numpy().reshape(2, -1)
    for group, optics_group in ((1, 1), (2, 2), (3, 1)):  # b.mrc is of optics group 2
        there = blocks[f"model_group_{group}"]["rlnSigma2Noise"]
        np.testing.assert_array_equal(there, written[optics_group - 1])
    blocks["model_group_1"]["rlnSigma2Noise"] = 4.0  # a.mrc, 6 particles
    blocks["model_group_3"]["rlnSigma2Noise"] = 1.0  # c.mrc, 3 particles
    write_star(path, blocks, as_pairs={"model_general"})

    noise = read_classification(path).noise

    np.testing.assert_allclose(noise.loc[noise["optics_group"] == 1, "sigma2"], 3.0)


def test_groups_are_micrographs_in_the_order_they_appear():
    particles, groups = group_by_micrograph(some_particles())

    assert particles.rows["group_number"].tolist() == [1, 2, 3, 1] * 3
    assert groups["group_name"].tolist() == ["a.mrc", "b.mrc", "c.mrc"]
    assert groups["particle_count"].tolist() == [6, 3, 3]


def test_no_optimiser_is_written_where_another_file_failed(tmp_path):
    (tmp_path / "run_it007_model.star").mkdir()

    with pytest.raises(OutputError, match=r"run_it007_model\.star"):
        write_classification(tmp_path / "run_it007", some_classification())

    assert not (tmp_path / "run_it007_optimiser.star").exists()


@pytest.mark.parametrize("kind", ["data", "model", "sampling"])
def test_a_missing_file_is_named(tmp_path, kind):
    write_classification(tmp_path / "run_it007", some_classification())
    (tmp_path / f"run_it007_{kind}.star").unlink()

    with pytest.raises(FormatError, match=f"run_it007_{kind}.star must be a readable file"):
        read_classification(tmp_path)


@pytest.mark.parametrize("kind", ["data", "model", "sampling", "optimiser"])
@pytest.mark.parametrize("share", [0.1, 0.35, 0.6])
def test_a_file_cut_short_is_refused_in_one_sentence(tmp_path, kind, share):
    write_classification(tmp_path / "run_it007", some_classification())
    path = tmp_path / f"run_it007_{kind}.star"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: int(share * len(lines))]))

    with pytest.raises((FormatError, TableError), match=kind):
        read_classification(path)


def test_a_folder_without_a_classification_is_refused(tmp_path):
    with pytest.raises(TableError, match="must hold a 2D classification"):
        read_classification(tmp_path)


def test_a_file_of_another_name_is_refused(tmp_path):
    with pytest.raises(TableError, match=r"must end in _optimiser\.star"):
        read_classification(tmp_path / "particles.star")


def test_a_reconstruction_is_no_classification(tmp_path):
    write_classification(tmp_path / "run_it007", some_classification())
    path = tmp_path / "run_it007_model.star"
    path.write_text(path.read_text().replace("Dimensionality               2", "Dimensionality 3"))

    with pytest.raises(TableError, match="must be of a 2D classification"):
        read_classification(tmp_path)


def test_a_value_that_is_no_number_is_refused(tmp_path):
    write_classification(tmp_path / "run_it007", some_classification())
    path = tmp_path / "run_it007_sampling.star"
    path.write_text(path.read_text().replace("12.0", "twelve"))

    with pytest.raises(TableError, match="rlnPsiStep, must be a number; got 'twelve'"):
        read_classification(tmp_path)


def test_a_column_that_holds_text_is_named_with_its_row(tmp_path):
    write_classification(tmp_path / "run_it007", some_classification())
    path = tmp_path / "run_it007_model.star"
    path.write_text(path.read_text().replace(" 3.5 5.5 ", " 3.5 5.5q "))

    with pytest.raises(
        TableError, match=r"AccuracyTranslationsAngst, must hold numbers; got '5\.5q'"
    ):
        read_classification(tmp_path)


def test_a_class_that_does_not_exist_is_refused():
    particles, _ = group_by_micrograph(some_particles())
    particles.rows.loc[3, "class_number"] = 4

    with pytest.raises(TableError, match="class_number, must be from 0 to 3; got 4 in row 4"):
        some_classification(particles=particles)


def test_noise_of_every_ring_is_needed():
    with pytest.raises(TableError, match="optics group 1, must have one row for each ring 0 to 8"):
        some_classification(noise=noise_of([1, 2], 5))


@pytest.mark.data
def test_files_of_relion_5_are_read_as_they_show(test_data):
    back = read_classification(test_data / "relion5" / "Class2D" / "job003")

    first = back.particles.rows.iloc[0]
    assert (first["psi"], first["shift_x"], first["class_number"]) == (100.73577, -8.36567, 17)
    assert (first["norm_correction"], first["max_probability"]) == (0.769931, 0.748338)
    assert back.classes.loc[1, "image"] == "Class2D/job003/run_it025_classes.mrcs"
    assert back.classes.loc[1, "image_index"] == 1
    assert np.isnan(back.classes.loc[0, "accuracy_rotations"])
    assert back.classes.loc[14, "accuracy_translations"] == 4.12
    assert (back.model.current_resolution, back.model.tau2_fudge) == (21.333333, 2.0)
    assert back.sampling is not None
    assert (back.sampling.psi_step, back.sampling.offset_step) == (11.25, 8.0)
    assert back.optimiser is not None
    assert (back.optimiser.highres_limit, back.optimiser.particle_diameter) == (None, 230.0)
    assert (len(back.spectra), len(back.noise), len(back.groups)) == (20 * 33, 33, 10)


@pytest.mark.data
def test_files_of_relion_5_are_written_table_by_table_as_relion_writes_them(
    test_data, tmp_path, monkeypatch
):
    folder = test_data / "relion5" / "Class2D" / "job003"
    iteration = read_classification(folder)
    monkeypatch.chdir(tmp_path)

    write_classification("Class2D/job003/run_it025", iteration)

    for kind in ("data", "model", "sampling", "optimiser"):
        theirs = read_star(folder / f"run_it025_{kind}.star")
        ours = read_star(Path(f"Class2D/job003/run_it025_{kind}.star"))
        assert list(ours) == list(theirs)
        for name, table in theirs.items():
            assert list(ours[name]) == list(table)
            pd.testing.assert_frame_equal(
                ours[name],
                table,
                check_dtype=False,  # a column of 1.000000 is one of numbers
                rtol=1e-6,
                atol=5.1e-7,  # frequencies are worked out again; RELION prints six decimals
            )
