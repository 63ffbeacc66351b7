"""Segmentation of simulated tomograms from file to file."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import torch
from scipy import ndimage
from tomogram_world import (
    SHAPE,
    VOXEL_SIZE,
    likeness,
    make_tomogram,
    write_tomogram,
)

from cryopick.errors import CryopickError, DataError, ProjectError
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.mrc import write_mrc
from cryopick.io.volumes import open_volume
from cryopick.pipeline import tomo_segment, tomo_segment_learn
from cryopick.pipeline.tomo_segment import segment_tomograms
from cryopick.pipeline.tomo_segment_parameters import SegmentOutputParameters
from cryopick.pipeline.tomo_segment_request import request_of

ONE = ComputeParameters(workers=1, threads=1)
MODES = ("ffts", "gabor", "intensities")
SMALL = {"max_num_neighborhoods_for_fitting": 8000}


def request(paths, folder, *, feature=("intensities",), clustering=("gmm",), batch=None, **changes):
    limits = changes.pop("limits", (None, None))
    return request_of(
        [str(p) for p in paths],
        changes={**SMALL, **changes},
        batch=batch or {},
        folder=folder,
        feature=feature,
        clustering=clustering,
        limits=limits,
    )


def read(path, voxel_size=None):
    volume = open_volume(path, voxel_size=voxel_size)
    return volume.read((0, 0, 0), volume.shape)


@pytest.fixture(scope="module")
def tomogram(tmp_path_factory):
    path = tmp_path_factory.mktemp("tomogram") / "a.mrc"
    return path, write_tomogram(path, noise=1.5)


@pytest.fixture(scope="module")
def segmented(tomogram, tmp_path_factory):
    """All workflows of one tomogram, in one thread and one block."""
    folder = tmp_path_factory.mktemp("segmented")
    asked = request([tomogram[0]], folder, feature=MODES, clustering=("kmeans", "gmm"))
    return segment_tomograms(asked, compute=ONE, output=SegmentOutputParameters(hdf5=True))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", ["kmeans", "gmm"])
def test_every_workflow_finds_the_particles(tomogram, segmented, mode, method):
    labels = read(segmented.folder / f"a_{mode}_{method}_labels.mrc")
    posterior = read(segmented.folder / f"a_{mode}_{method}_posterior.mrc")

    assert likeness(labels == 1, tomogram[1]) > 0.6
    inner = (slice(2, -2),) * 3
    assert set(np.unique(labels[inner])) == {0, 1}
    is_sure = abs(posterior[inner] - 0.5) > 1e-3  # of float16
    assert is_sure.mean() > 0.99
    assert ((labels[inner] == 1) == (posterior[inner] > 0.5))[is_sure].all()
    border = np.ones(SHAPE, bool)
    border[inner] = False
    assert (labels[border] == 255).all()
    assert (posterior[border] == 0).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", ["kmeans", "gmm"])
def test_labels_lie_upon_the_particles_not_beside_them(tomogram, segmented, mode, method):
    labels = read(segmented.folder / f"a_{mode}_{method}_labels.mrc") == 1
    particles, number = ndimage.label(tomogram[1])

    centres = [
        ndimage.center_of_mass(labels & (near == i), near, i)
        for near in [ndimage.grey_dilation(particles, 7)]
        for i in range(1, number + 1)
    ]
    true = ndimage.center_of_mass(tomogram[1], particles, range(1, number + 1))
    away = np.mean(np.array(centres) - np.array(true), 0)
    np.testing.assert_allclose(away, 0, atol=0.25)


def test_the_record_says_what_was_done(segmented):
    record = json.loads((segmented.folder / "segmentation.json").read_text())

    assert record["parameters"]["neighborhood_size"] == 5
    assert record["parameters"]["seed"] == 0
    assert record["plan"]["blur_angstrom"] == pytest.approx(20)
    shapes = {w["mode"]: w["features_shape"][1] for w in record["workflows"]}
    assert shapes == {"ffts": 63, "gabor": 63, "intensities": 125}
    assert record["workflows"][0]["features_shape"][0] == pytest.approx(8000, rel=0.02)
    for workflow in record["workflows"]:
        assert workflow["particle_clusters"] == [1]
        assert "darker" in workflow["clusters"][1]["why"]
    assert record["tomograms"][0]["voxel_size"] == pytest.approx(VOXEL_SIZE)


def test_hdf5_is_as_picket_has_it(segmented):
    labels = read(segmented.folder / "a_gabor_gmm_labels.mrc")

    with h5py.File(segmented.folder / "segmentation_0_gabor_gmm.h5") as file:
        found = file["segmentations/semantic_segmentation"]
        assert found.dtype == np.int16
        np.testing.assert_array_equal(found[:], np.where(labels == 255, -1, labels))
        assert file["segmentations"].attrs["neighborhood_size"] == 5
        assert file["segmentations"].attrs["lower_z-slice_limit"] == "None"


@pytest.mark.parametrize(
    ("batch", "threads"),
    [({"n_fft_subsets": 64}, 1), ({"num_neighborhoods_subsets": 5}, 2), ({}, 2)],
)
def test_neither_blocks_nor_threads_change_a_bit(tomogram, segmented, tmp_path, batch, threads):
    asked = request(
        [tomogram[0]], tmp_path, feature=MODES, clustering=("kmeans", "gmm"), batch=batch
    )

    result = segment_tomograms(asked, compute=ComputeParameters(workers=1, threads=threads))

    blocks = [r.record["plan"]["block_voxels"] for r in (result, segmented)]
    assert (blocks[0] < blocks[1]) == bool(batch)
    for name in sorted(p.name for p in tmp_path.glob("*.mrc")):
        assert (tmp_path / name).read_bytes() == (segmented.folder / name).read_bytes(), name


@pytest.mark.gpu
def test_the_device_changes_no_label(tomogram, segmented, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    asked = request([tomogram[0]], tmp_path, feature=MODES, clustering=("kmeans", "gmm"))

    output = SegmentOutputParameters(hdf5=True)
    segment_tomograms(asked, compute=ComputeParameters(workers=1, device="cuda"), output=output)

    for path in tmp_path.glob("*_posterior.mrc"):
        here, there = read(path), read(segmented.folder / path.name)
        np.testing.assert_allclose(here, there, atol=1e-3)  # float16 near 1
        labels = path.name.replace("posterior", "labels")
        is_sure = abs(there - 0.5) > 1e-4
        same = read(tmp_path / labels) == read(segmented.folder / labels)
        assert same[is_sure].all()


def test_one_model_labels_tomograms_whose_grey_levels_differ(tmp_path):
    first = write_tomogram(tmp_path / "a.mrc", 1, gain=1.0)
    second = write_tomogram(tmp_path / "b.mrc", 2, gain=500.0, offset=-3000.0)

    result = segment_tomograms(
        request([tmp_path / "a.mrc", tmp_path / "b.mrc"], tmp_path / "out"), compute=ONE
    )

    assert len(result.record["workflows"]) == 1
    for key, truth in (("a", first), ("b", second)):
        assert (
            likeness(read(tmp_path / "out" / f"{key}_intensities_gmm_labels.mrc") == 1, truth) > 0.6
        )


def test_limits_restrict_what_is_learned_from_but_not_what_is_labelled(tmp_path):
    volume, truth = make_tomogram(3)
    volume[:25] = np.random.default_rng(0).normal(size=(25, *SHAPE[1:])) * 40
    write_mrc(tmp_path / "a.mrc", volume, pixel_size=VOXEL_SIZE)

    path = tmp_path / "a.mrc"
    segment_tomograms(request([path], tmp_path / "all"), compute=ONE)
    segment_tomograms(request([path], tmp_path / "some", limits=(35, 70)), compute=ONE)

    good = slice(35, None)
    found = [read(tmp_path / f / "a_intensities_gmm_labels.mrc") for f in ("all", "some")]
    assert likeness(found[1][good] == 1, truth[good]) > 0.6
    assert likeness(found[0][good] == 1, truth[good]) < 0.3
    assert (found[1][2:30, 2:-2, 2:-2] != 255).all()


def test_more_voxels_than_memory_holds_are_passed_over(tomogram, tmp_path, monkeypatch):
    asked = [
        request(
            [tomogram[0]],
            tmp_path / name,
            clustering=["kmeans"],
            max_num_neighborhoods_for_fitting=20_000,
        )
        for name in ("held", "passed")
    ]

    held = segment_tomograms(asked[0], compute=ONE)
    monkeypatch.setattr(tomo_segment_learn, "PILOT", 8000)
    passed = segment_tomograms(asked[1], compute=ONE)

    assert passed.record["n_voxels_used"] == pytest.approx(20_000, rel=0.02)
    name = "a_intensities_kmeans_labels.mrc"
    one, other = (read(r.folder / name) == 1 for r in (held, passed))
    assert likeness(one, other) > 0.97


@pytest.mark.parametrize("suffix", ["mrc", "zarr"])
def test_a_killed_job_goes_on_with_what_is_not_done(tomogram, tmp_path, monkeypatch, suffix):
    write_tomogram(tmp_path / "b.mrc", 5)
    asked = request([tomogram[0], tmp_path / "b.mrc"], tmp_path / "out")
    output = SegmentOutputParameters(format=suffix)
    real, calls = tomo_segment.segment_tomogram, []

    def stop_at_second(task):
        calls.append(task.key)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(task)

    monkeypatch.setattr(tomo_segment, "segment_tomogram", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        segment_tomograms(asked, compute=ONE, output=output)
    segment_tomograms(asked, compute=ONE, output=output)

    assert calls == ["a", "b", "b"]
    assert open_volume(tmp_path / "out" / f"b_intensities_gmm_labels.{suffix}").shape == SHAPE
    with pytest.raises(ProjectError, match="same parameters"):
        segment_tomograms(request([tomogram[0]], tmp_path / "out", seed=1), compute=ONE)


def test_particles_are_told_by_density_and_can_be_overridden(tmp_path):
    volume, truth = make_tomogram(6, noise=1.0)
    write_mrc(tmp_path / "a.mrc", -volume, pixel_size=VOXEL_SIZE)
    path = [tmp_path / "a.mrc"]

    white = segment_tomograms(request(path, tmp_path / "white", white=True), compute=ONE)
    asked = segment_tomograms(
        request(path, tmp_path / "asked", white=True, particle_clusters=[0]), compute=ONE
    )

    posteriors = [read(r.folder / "a_intensities_gmm_posterior.mrc") for r in (white, asked)]
    inner = (slice(2, -2),) * 3
    assert likeness(posteriors[0] > 0.5, truth) > 0.6
    np.testing.assert_allclose(posteriors[0][inner] + posteriors[1][inner], 1, atol=1e-3)
    assert asked.record["workflows"][0]["clusters"][0]["why"] == "as asked for"


def test_the_number_of_clusters_can_be_found(tmp_path):
    volume, truth = make_tomogram(7, noise=0.5)
    volume[:, 60:75, 60:75] += 4  # something bright
    write_mrc(tmp_path / "a.mrc", volume, pixel_size=VOXEL_SIZE)

    result = segment_tomograms(
        request([tmp_path / "a.mrc"], tmp_path / "out", clusters=0), compute=ONE
    )

    clusters = result.record["workflows"][0]["clusters"]
    assert len(clusters) > 2
    assert not [c for c in clusters if c["is_particle"] and c["density"] > 0]
    posterior = read(tmp_path / "out" / "a_intensities_gmm_posterior.mrc")
    assert likeness(posterior > 0.5, truth) > 0.7


@pytest.mark.parametrize("kind", ["nan", "constant"])
def test_a_bad_tomogram_is_refused_and_the_others_go_on(tmp_path, kind):
    volume, _ = make_tomogram(8)
    if kind == "nan":
        volume[40, 40, 40] = np.nan
    else:
        volume[:] = 3
    write_mrc(tmp_path / "bad.mrc", volume, pixel_size=VOXEL_SIZE)
    write_tomogram(tmp_path / "good.mrc", 9)

    result = segment_tomograms(
        request([tmp_path / "bad.mrc", tmp_path / "good.mrc"], tmp_path / "out"), compute=ONE
    )

    assert list(result.failed) == [str(tmp_path / "bad.mrc")]
    assert "bad.mrc must" in next(iter(result.failed.values()))
    assert (tmp_path / "out" / "good_intensities_gmm_labels.mrc").exists()
    assert not list((tmp_path / "out").glob("bad_*"))
    with pytest.raises(DataError):
        segment_tomograms(request([tmp_path / "bad.mrc"], tmp_path / "alone"), compute=ONE)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"limits": (50, 40)}, "lower < upper"),
        ({"limits": (0, 71)}, "lower < upper, within 0 and 70"),
        ({"neighborhood_size": 4}, "must be odd; got 4 voxels. Try 5"),
        ({"clusters": 1}, "at least 2, or 0"),
        ({"particle_clusters": [2]}, "among the clusters 0 to 1"),
    ],
)
def test_wrong_values_are_one_sentence_before_anything_is_written(
    tomogram, tmp_path, changes, sentence
):
    with pytest.raises(CryopickError) as error:
        segment_tomograms(request([tomogram[0]], tmp_path / "out", **changes), compute=ONE)

    assert sentence in str(error.value)
    assert not list((tmp_path / "out").glob("*.mrc"))


@pytest.mark.data
@pytest.mark.parametrize("name", ["13pf_MT", "14pf_MT"])
@pytest.mark.parametrize("workflow", ["intensities_kmeans", "gabor_gmm"])
def test_microtubules_are_two_parallel_walls_from_end_to_end(test_data, tmp_path, name, workflow):
    path, (mode, method) = test_data / "tomograms" / f"{name}.tif", workflow.split("_")
    asked = request([path], tmp_path, feature=[mode], clustering=[method], white=True)

    segment_tomograms(asked, compute=ONE, voxel_size=10.52)

    labels = read(tmp_path / f"{name}_{workflow}_labels.mrc") == 1
    voxels = ndimage.gaussian_filter(read(path, 10.52).astype(np.float32), 1)
    inner = (slice(5, -5),) * 3
    likeness_at = [
        np.corrcoef(np.roll(voxels, step, 2)[inner].flat, labels[inner].flat)[0, 1]
        for step in range(-4, 5)
    ]
    assert np.argmax(likeness_at) == 4  # upon the walls, not on a flank of theirs
    parts, _ = ndimage.label(labels[len(labels) // 2])
    walls = [np.argwhere(parts == 1 + i) for i in np.bincount(parts.flat)[1:].argsort()[-2:]]
    angles = []
    for wall in walls:
        assert len(np.unique(wall[:, 0])) > 0.9 * parts.shape[0]  # it runs through
        values, axes = np.linalg.eigh(np.cov(wall.T))
        assert values[1] > 100 * values[0]
        angles.append(np.degrees(np.arctan2(*axes[:, 1])) % 180)
    assert abs(angles[0] - angles[1]) < 2
    assert sum(map(len, walls)) > 0.85 * (parts > 0).sum()
