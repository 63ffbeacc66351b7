"""Claims about flipping the phases of a whole field."""

import pytest
import torch

from cryopick.ctf.apply import apply_ctf
from cryopick.ctf.field_ctf import FieldCtf
from cryopick.ctf.field_flip import flip_field
from cryopick.errors import ShapeError

CTF = FieldCtf(20000.0, 18000.0, 30.0, 300.0, 2.7, 0.1)
PIXEL_SIZE = 3.0


def recorded(shape):
    """Blobs on a level, and what the lens makes of them in a field that is much larger."""
    generator = torch.Generator().manual_seed(1)
    points = (torch.rand(512, 512, generator=generator) < 0.002).float()
    imaged = apply_ctf(points[None], CTF.evaluate((512, 512), pixel_size=PIXEL_SIZE)[None])[0]
    window = (slice(128, 128 + shape[0]), slice(128, 128 + shape[1]))
    return points[window], imaged[window] + 7.0


@pytest.mark.parametrize("shape", [(160, 200), (151, 137)])
def test_flipped_points_are_sharper_than_recorded_ones(shape):
    points, imaged = recorded(shape)

    flipped = flip_field(imaged, CTF, pixel_size=PIXEL_SIZE)

    assert flipped.shape == imaged.shape
    torch.testing.assert_close(flipped.mean(), imaged.mean(), atol=1e-3, rtol=0)
    at_points = points > 0
    assert flipped[at_points].mean() - 7 > 2 * (imaged[at_points].mean() - 7) > 0


def test_what_lies_at_one_edge_does_not_show_at_the_opposite_one():
    field = torch.randn(128, 400, generator=torch.Generator().manual_seed(2))
    other = field.clone()
    other[:, :20] = 3.0

    def moved(flip):
        return (flip(other) - flip(field))[:, 385:].norm()

    signs = CTF.evaluate((128, 400), pixel_size=PIXEL_SIZE)[None].sign()
    around = moved(lambda f: apply_ctf((f - f.mean())[None], signs)[0])
    assert moved(lambda f: flip_field(f, CTF, pixel_size=PIXEL_SIZE)) < 0.25 * around


def test_only_a_field_is_flipped():
    with pytest.raises(ShapeError, match="micrograph must have shape"):
        flip_field(torch.zeros(2, 8, 8), CTF, pixel_size=PIXEL_SIZE)
