"""Full averages of members some of which are mirrored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from particle_world import optics_table, particles_of, write_stack
from stable_world import PIXEL, SIZE, make_views

from cryopick.pipeline.class2d_source import ParticleSource, open_source
from cryopick.pipeline.class2d_stable_averages import (
    StableMembers,
    average_members,
    mirrored_images,
)
from cryopick.tables.model import Particles

N = 40


@pytest.fixture
def particles(tmp_path: Path) -> Particles:
    made = make_views(tmp_path / "in", n=N, noise=0.1)
    made.rows["defocus_u"] += 6000  # strong astigmatism
    return made


def mirrored(particles: Particles, folder: Path, *, angle_sign: int) -> Particles:
    """The same particles seen in a mirror; `angle_sign` is that of the astigmatism's axis."""
    images = open_source(particles, corrects_ctf=False).read(np.arange(N))
    folder.mkdir()
    write_stack(folder / "stack.mrcs", mirrored_images(images).numpy())
    columns = {n: particles.rows[n].to_numpy() for n in ("defocus_u", "defocus_v")}
    axis = angle_sign * particles.rows["defocus_angle"].to_numpy()
    optics = optics_table().assign(pixel_size=PIXEL, box_size=SIZE)
    return particles_of(
        folder, {"stack.mrcs": N}, optics=optics, defocus_angle=axis % 180, **columns
    )


def average(particles: Particles, *, is_mirrored: bool) -> np.ndarray:
    rng = np.random.default_rng(4)
    psi, x, y = rng.uniform(-180, 180, N), rng.normal(0, 1.5, N), rng.normal(0, 1.5, N)
    sign = -1 if is_mirrored else 1
    members = StableMembers(
        label=np.arange(N) % 2,
        psi=(sign * psi).astype(np.float32),
        shift_x=(sign * x).astype(np.float32),
        shift_y=y.astype(np.float32),
        mirror=np.full(N, is_mirrored),
        n_classes=2,
    )
    source: ParticleSource = open_source(particles, corrects_ctf=True)
    found = average_members(source, members, mask_diameter=140.0, threads=2)
    assert found.hard_counts.tolist() == [N // 2, N // 2]
    source.images.close()
    return found.unmasked.numpy()


def test_images_seen_in_a_mirror_have_the_same_average(
    particles: Particles, tmp_path: Path
) -> None:
    plain = average(particles, is_mirrored=False)
    seen = average(mirrored(particles, tmp_path / "m", angle_sign=-1), is_mirrored=True)
    wrong = average(mirrored(particles, tmp_path / "w", angle_sign=1), is_mirrored=True)
    scale = plain.std()
    assert np.abs(seen - plain).max() < 0.02 * scale
    assert np.abs(wrong - plain).max() > 0.1 * scale


def test_a_mirror_leaves_the_centre_and_undoes_itself() -> None:
    image = torch.zeros(6, 6)
    image[3, 3], image[2, 4] = 1.0, 2.0
    seen = mirrored_images(image)
    assert seen[3, 3] == 1.0
    assert seen[2, 2] == 2.0
    assert torch.equal(mirrored_images(seen), image)
