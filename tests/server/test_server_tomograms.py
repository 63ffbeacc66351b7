"""Tomograms on the page: slices lie as they should, picks and segmentation where particles are."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from PIL import Image
from server_world import run_cli, served

from cryopick.pipeline.project import Project

sys.path.insert(0, str(Path(__file__).parents[1] / "tomogram"))
from density_world import VOXEL, field_of_balls_and_dumbbells

pytest_plugins = ("server_world",)


@pytest.fixture(scope="module")
def tomogram(tmp_path_factory):
    """A page of a project with a tomogram that was segmented and picked."""
    folder = tmp_path_factory.mktemp("tomogram")
    volume, centres = field_of_balls_and_dumbbells((40, 64, 80), 4, seed=1, noise=1.0)
    with mrcfile.new(folder / "a.mrc") as mrc:
        mrc.set_data(volume.astype(np.float32))
        mrc.voxel_size = VOXEL
    project = folder / "project"
    Project.open(project, create=True).close()
    alone = ("--workers", 1, "--threads", 1)
    run_cli("tomo", "segment", folder / "a.mrc", "--out", project / "segmented", *alone)
    run_cli(
        "tomo", "pick", "--method", "segment", "--segmentation", project / "segmented",
        "--out", project / "picked", *alone,
    )  # fmt: skip
    with served(project) as page:
        yield page, volume, np.asarray(centres)


def shown(page, url):
    answer = page.picture(url)
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)), np.float64)


def test_slices_lie_as_they_should_along_each_axis(tomogram):
    page, volume, _ = tomogram
    (listed,) = page.get("tomograms")["tomograms"]
    said = page.get(f"tomograms/{listed['id']}")
    assert said["shape"] == list(volume.shape)
    expected = {"z": volume[17], "y": volume[:, 23], "x": volume[:, :, 31].T}

    for (axis, plane), index in zip(expected.items(), (17, 23, 31), strict=True):
        image = shown(page, said["slice"].format(axis=axis, index=index))
        assert image.shape == plane.shape
        assert np.corrcoef(image.ravel(), plane.ravel())[0, 1] > 0.98
    assert page.picture(said["slice"].format(axis="z", index=40)).status_code == 404
    assert page.picture(said["slice"].format(axis="w", index=1)).status_code == 404


def test_picks_and_segmentation_are_where_the_particles_are(tomogram):
    page, _, centres = tomogram
    (listed,) = page.get("tomograms")["tomograms"]
    said = page.get(f"tomograms/{listed['id']}")
    columns = page.get(f"tomograms/{listed['id']}/picks")["columns"]
    picks = np.stack([columns[k] for k in "zyx"], axis=1)
    distance = np.linalg.norm(picks[:, None] - centres[None], axis=2)
    assert (distance.min(axis=0) < 4).mean() > 0.7
    assert sum(kind["n"] for kind in listed["kinds"]) == listed["n_picks"] == len(picks)

    inside = [c["number"] for c in said["clusters"] if c["is_particle"]]
    z, y, x = (round(v) for v in picks[0])
    labels = shown(page, said["segmentation"].format(axis="z", index=z))
    assert np.isin(labels[y - 1 : y + 2, x - 1 : x + 2], inside).any()
    assert np.isin(labels, inside).mean() < 0.3
