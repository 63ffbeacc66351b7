"""A worker keeps the images that it has room for, and gives the others all the same."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "pipeline"))

from classification_world import SIZE, make_particles

from cryopick.class2d.em_images import Geometry, WorkingImages
from cryopick.pipeline.class2d_source import ParticleSource, open_source
from cryopick.pipeline.shard_images import KeptImages

GEOMETRY = Geometry(
    box_size=SIZE, cut_size=28, working_size=20, pixel_size=6.0, mask_diameter=110, mask_edge=12
)
ONE = 4 * GEOMETRY.working_size**2  # bytes


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ParticleSource:
    return open_source(make_particles(tmp_path_factory.mktemp("p"), n=120), corrects_ctf=True)


@pytest.mark.parametrize(
    ("room", "again"), [(1000, 0), (50, 70), (0, 120)], ids=["all", "some", "none"]
)
def test_images_are_those_of_the_source_and_read_again_only_without_room(
    source: ParticleSource, room: int, again: int
) -> None:
    plain = WorkingImages(source, GEOMETRY)
    kept = KeptImages(source, GEOMETRY, keep_bytes=room * ONE + 5)
    order = np.random.default_rng(0).permutation(120)

    for part in np.array_split(order, 7):
        torch.testing.assert_close(kept.read(part), plain.read(part), rtol=0, atol=0)
    first = kept.n_read
    for part in np.array_split(np.arange(120), 5):
        torch.testing.assert_close(kept.read(part), plain.read(part), rtol=0, atol=0)

    assert (first, kept.n_read - first, kept.n_kept) == (120, again, min(room, 120))


def test_an_image_that_is_named_twice_is_kept_once(source: ParticleSource) -> None:
    kept = KeptImages(source, GEOMETRY, keep_bytes=10 * ONE)
    names = np.array([5, 119, 119, 119])

    found = kept.read(names)

    assert kept.n_kept == 2
    torch.testing.assert_close(found[1:], kept.read(names)[1:], rtol=0, atol=0)
