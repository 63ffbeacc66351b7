from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import available_devices
from cryopick.ctf.apply import apply_ctf
from cryopick.ctf.evaluate import evaluate_ctf
from cryopick.errors import DataError
from cryopick.extraction import extract
from cryopick.extraction.extract import (
    CtfValues,
    extract_particles,
    level_micrograph_,
    require_contrast,
)
from cryopick.extraction.extraction_parameters import ExtractionParameters


def field(height=300, width=260, *, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(height, width, generator=generator, dtype=torch.float64)
    ramp = torch.linspace(0, 4, width, dtype=torch.float64)
    return (900 + 13 * (noise + ramp)).to(dtype)


def run(micrograph, centers, *, pixel_size=1.5, ctf=None, seeds=None, **values):
    parameters = ExtractionParameters(**values).resolved()
    batches = list(
        extract_particles(
            micrograph,
            torch.as_tensor(centers, dtype=torch.float64, device=micrograph.device),
            parameters=parameters,
            pixel_size=pixel_size,
            ctf=ctf,
            seeds=seeds,
        )
    )
    size = parameters.image_size
    images = [b.images for b in batches] or [torch.empty(0, size, size)]
    indices = [b.indices for b in batches] or [torch.empty(0, dtype=torch.long)]
    return torch.cat(images), torch.cat(indices)


def slow_particle(micrograph, y, x, *, box_size, size, radius):
    """The steps of relion_preprocess for one particle, written out in numpy."""
    rows = np.clip(np.arange(y - box_size // 2, y + box_size // 2), 0, micrograph.shape[0] - 1)
    columns = np.clip(np.arange(x - box_size // 2, x + box_size // 2), 0, micrograph.shape[1] - 1)
    box = micrograph[np.ix_(rows, columns)].astype(float)
    half = size // 2
    transform = np.fft.rfft2(box)[:, : half + 1]
    transform = np.concatenate([transform[: half + 1], transform[box_size - half + 1 :]])
    small = np.fft.irfft2(transform, (size, size)) * (size / box_size) ** 2
    v, u = np.mgrid[:size, :size] - half
    outside = u**2 + v**2 > radius**2
    design = np.stack([u, v, np.ones_like(u)], -1).astype(float)
    plane, *_ = np.linalg.lstsq(design[outside], small[outside], rcond=None)
    level = small - design @ plane
    return -(level - level[outside].mean()) / level[outside].std()


@pytest.mark.parametrize("device", available_devices())
@pytest.mark.parametrize(("box_size", "rescale"), [(64, 0), (64, 32), (96, 50)])
def test_particles_equal_relions_steps_written_out_one_by_one(device, box_size, rescale):
    micrograph = field()
    generator = np.random.default_rng(5)
    centers = generator.integers(-20, 310, (40, 2))
    centers = centers[(centers[:, 1] < 280)]

    images, indices = run(
        level_micrograph_(micrograph.clone().to(device)),
        centers,
        box_size=box_size,
        rescale=rescale,
        edges="replicate",
    )

    size = rescale or box_size
    assert indices.tolist() == list(range(len(centers)))
    for image, (y, x) in zip(images.cpu().numpy(), centers, strict=True):
        slow = slow_particle(
            micrograph.numpy(), y, x, box_size=box_size, size=size, radius=int(0.375 * size)
        )
        np.testing.assert_allclose(image, slow, atol=1e-5)


def test_results_do_not_depend_on_how_many_are_worked_on_at_once(monkeypatch):
    micrograph = level_micrograph_(field())
    centers = np.random.default_rng(1).integers(0, 260, (50, 2))
    options = {"box_size": 40, "rescale": 20, "edges": "replicate", "white_dust": 2.5}
    together, order = run(micrograph, centers, **options)

    monkeypatch.setattr(extract, "_PIXELS_PER_BATCH", 7 * 20 * 20)
    monkeypatch.setattr(extract, "_PIXELS_CUT_AT_ONCE", 3 * 40 * 40)
    apart, same_order = run(micrograph, centers, **options)

    torch.testing.assert_close(apart, together, atol=2e-6, rtol=0)
    assert torch.equal(order, same_order)


def test_boxes_over_an_edge_are_dropped_and_those_outside_always():
    micrograph = level_micrograph_(field(200, 200))
    centers = [[100, 100], [10, 100], [-300, 50], [100, 190], [100, 168], [900, 900]]

    _, dropped = run(micrograph, centers, box_size=64)
    _, repeated = run(micrograph, centers, box_size=64, edges="replicate")

    assert dropped.tolist() == [0, 4]
    assert repeated.tolist() == [0, 1, 3, 4]


def test_a_box_larger_than_the_field_can_be_filled_from_its_edges():
    images, _ = run(level_micrograph_(field(40, 50)), [[20, 25]], box_size=64, edges="replicate")

    assert images.shape == (1, 64, 64)
    assert torch.isfinite(images).all()


def test_no_centres_give_no_batch():
    assert len(run(level_micrograph_(field()), np.zeros((0, 2)), box_size=32)[0]) == 0


def test_dark_particles_become_white_unless_contrast_is_kept():
    micrograph = field()
    micrograph[145:156, 125:136] -= 400.0
    micrograph = level_micrograph_(micrograph)

    white, _ = run(micrograph, [[150, 130]], box_size=64)
    dark, _ = run(micrograph, [[150, 130]], box_size=64, invert_contrast=False)

    assert white[0, 32, 32] > 5
    torch.testing.assert_close(dark, -white)


def test_without_normalisation_grey_values_are_those_of_the_micrograph():
    micrograph = field()

    images, _ = run(micrograph, [[150, 130]], box_size=64, normalize=False, invert_contrast=False)

    torch.testing.assert_close(images[0], micrograph[118:182, 98:162])


def ctf_values(count, *, defocus=15000.0):
    names = {"defocus_u": defocus + 800, "defocus_v": defocus, "defocus_angle": 25.0}
    return CtfValues(
        per_particle={name: torch.full((count,), value) for name, value in names.items()},
        voltage=300.0,
        spherical_aberration=2.7,
        amplitude_contrast=0.1,
    )


def whole_ctf(shape):
    return evaluate_ctf(
        shape,
        pixel_size=1.5,
        defocus_u=15800.0,
        defocus_v=15000.0,
        defocus_angle=25.0,
        voltage=300.0,
        spherical_aberration=2.7,
        amplitude_contrast=0.1,
    )


def test_the_larger_the_box_the_closer_the_ctf_is_to_that_of_the_whole_field():
    # points on an empty field: what the CTF spreads lies beyond a small box
    micrograph = 1e-3 * torch.randn(512, 512, generator=torch.Generator().manual_seed(0))
    micrograph[256, 256] = 50.0
    micrograph = apply_ctf(micrograph[None], whole_ctf((512, 512)))[0]
    whole = apply_ctf(micrograph[None], whole_ctf((512, 512)))[0]
    options = {"box_size": 64, "normalize": False, "invert_contrast": False}
    wanted, _ = run(whole, [[256, 256]], **options)

    errors = []
    for ctf_box_size in (64, 128, 256):
        images, _ = run(
            micrograph,
            [[256, 256]],
            ctf=ctf_values(1),
            premultiply=True,
            ctf_box_size=ctf_box_size,
            **options,
        )
        errors.append((images - wanted).norm().item() / wanted.norm().item())

    assert errors[0] > 2 * errors[1] > 4 * errors[2], errors
    assert errors[2] < 0.02, errors


def test_flipped_phases_make_the_power_of_a_point_add_up():
    micrograph = 1e-3 * torch.randn(512, 512, generator=torch.Generator().manual_seed(0))
    micrograph[256, 256] = 50.0
    micrograph = apply_ctf(micrograph[None], whole_ctf((512, 512)))[0]
    options = {"box_size": 128, "normalize": False, "invert_contrast": False}

    raw, _ = run(micrograph, [[256, 256]], **options)
    flipped, _ = run(micrograph, [[256, 256]], ctf=ctf_values(1), phase_flip=True, **options)

    assert flipped[0, 64, 64] == flipped.max()
    assert flipped[0, 64, 64] > 1.5 * raw.max()


def test_each_particle_gets_its_own_ctf():
    micrograph = level_micrograph_(field(400, 400))
    two = CtfValues(
        per_particle={
            "defocus_u": torch.tensor([9000.0, 21000.0]),
            "defocus_v": torch.tensor([9000.0, 20000.0]),
            "defocus_angle": torch.tensor([0.0, 60.0]),
        },
        voltage=200.0,
        spherical_aberration=1.4,
        amplitude_contrast=0.08,
    )
    second = CtfValues(
        per_particle={name: values[1:] for name, values in two.per_particle.items()},
        voltage=200.0,
        spherical_aberration=1.4,
        amplitude_contrast=0.08,
    )

    both, _ = run(micrograph, [[200, 200]] * 2, box_size=64, premultiply=True, ctf=two)
    alone, _ = run(micrograph, [[200, 200]], box_size=64, premultiply=True, ctf=second)

    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=0)
    assert (both[0] - both[1]).abs().max() > 0.5


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_field_with_nan_or_infinity_is_refused(bad):
    micrograph = field()
    micrograph[3, 4] = bad

    with pytest.raises(DataError, match="finite"):
        level_micrograph_(micrograph)


def test_a_constant_field_is_refused():
    with pytest.raises(DataError, match=r"have contrast; got 7 in every pixel"):
        require_contrast(torch.full((50, 50), 7.0))
