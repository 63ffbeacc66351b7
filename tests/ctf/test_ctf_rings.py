"""The CTF on rings is that of the Fourier pixels that lie on them."""

from __future__ import annotations

import math

import pytest
import torch

from cryopick.ctf.evaluate import evaluate_ctf
from cryopick.ctf.rings import evaluate_ctf_rings
from cryopick.errors import ShapeError

SIZE, PIXEL = 64, 2.0
LENSES = torch.tensor(
    [
        [21000.0, 12000.0, 30.0, 0.0, 0.0, 1.0, 300.0, 2.7, 0.1],
        [9000.0, 9500.0, -70.0, 55.0, 40.0, 0.8, 200.0, 1.4, 0.07],
    ],
    dtype=torch.float64,
)
DIRECTIONS = {0.0: (0, 1), math.pi / 4: (1, 1), math.pi / 2: (1, 0), 3 * math.pi / 4: (1, -1)}


def on_pixels(lens: torch.Tensor, *, ignore_until_first_peak: bool) -> torch.Tensor:
    u, v, angle, phase, bfactor, scale, voltage, cs, contrast = lens.tolist()
    return evaluate_ctf(
        (SIZE, SIZE),
        pixel_size=PIXEL,
        defocus_u=u,
        defocus_v=v,
        defocus_angle=angle,
        phase_shift=phase,
        bfactor=bfactor,
        scale=scale,
        voltage=voltage,
        spherical_aberration=cs,
        amplitude_contrast=contrast,
        ignore_until_first_peak=ignore_until_first_peak,
        half=False,
        dtype=torch.float64,
    )[0]


@pytest.mark.parametrize("ignore_until_first_peak", [False, True])
@pytest.mark.parametrize("angle", list(DIRECTIONS))
def test_rings_equal_pixels_in_every_direction(angle, ignore_until_first_peak) -> None:
    dy, dx = DIRECTIONS[angle]
    steps = torch.arange(2, 22)
    length = math.hypot(dx, dy) / (SIZE * PIXEL)
    rings = evaluate_ctf_rings(
        LENSES,
        frequencies=steps.float() * length,
        angles=torch.tensor([angle]),
        ignore_until_first_peak=ignore_until_first_peak,
    )
    assert rings.shape == (1, 20, 2)
    for place, lens in enumerate(LENSES):
        pixels = on_pixels(lens, ignore_until_first_peak=ignore_until_first_peak)
        expected = pixels[(dy * steps) % SIZE, (dx * steps) % SIZE].float()
        torch.testing.assert_close(rings[0, :, place], expected, atol=2e-4, rtol=0)


def test_astigmatism_is_seen() -> None:
    rings = evaluate_ctf_rings(
        LENSES[:1], frequencies=torch.tensor([0.05]), angles=torch.tensor([0.0, math.pi / 2])
    )
    assert abs(float(rings[0, 0, 0] - rings[1, 0, 0])) > 0.2


def test_a_missing_column_gets_one_sentence() -> None:
    with pytest.raises(ShapeError, match="parameters must"):
        evaluate_ctf_rings(
            LENSES[:, :8], frequencies=torch.tensor([0.05]), angles=torch.tensor([0.0])
        )
