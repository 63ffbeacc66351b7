"""Opposite contrast is told from noise."""

from __future__ import annotations

import pytest
import torch

from cryopick.pipeline.stream_contrast import contrast_agreement, looks_black

SIZE, PIXEL, DIAMETER = 32, 4.0, 90.0


class Images:
    box_size, pixel_size = SIZE, PIXEL

    def __init__(self, images):
        self._images = images

    def __len__(self):
        return len(self._images)

    def read(self, indices):
        return self._images[torch.as_tensor(indices)]


def blob():
    axis = torch.arange(SIZE) - SIZE // 2
    return torch.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 5.0**2))[None]


def noise(seed, count=300):
    return torch.randn(count, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sign", [1, -1])
def test_faint_particles_tell_their_contrast(sign):
    faint = Images(noise(1) + sign * 0.1 * blob())

    assert sign * contrast_agreement(faint, blob(), pixel_size=PIXEL, diameter=DIAMETER) > 5
    assert looks_black(faint, diameter=DIAMETER) == (sign < 0)


def test_noise_has_no_contrast():
    found = [
        contrast_agreement(Images(noise(s)), blob(), pixel_size=PIXEL, diameter=DIAMETER)
        for s in range(40)
    ]

    assert max(map(abs, found)) < 4
    assert 0.7 < torch.tensor(found).std() < 1.4
