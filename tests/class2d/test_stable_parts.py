"""The parts of the stable classification that work on images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from spider_rings import polar_match, ring_length, ring_weight
from torch import Tensor
from views_world import Arrived, world

from cryopick.alignment.search import Workspace, make_rotations
from cryopick.alignment.transform import transform_images
from cryopick.class2d.stable_candidates import best_poses
from cryopick.class2d.stable_engine import (
    StableEngine,
    class_scores,
    mirrored_references,
    tanh_filter,
)
from cryopick.class2d.stable_images import (
    StableImages,
    phase_randomised,
    plan_shrink,
    prepare_images,
)
from cryopick.class2d.stable_parameters import StableParameters
from cryopick.class2d.stable_prealign import search_stages
from cryopick.errors import ParameterError

SMALL = {"radius": 11.0, "target_radius": 11, "target_nx": 32, "ctf": "none"}


def small(**changes: object) -> StableParameters:
    values: dict[str, object] = SMALL | changes
    return StableParameters(**values)  # type: ignore[arg-type]


def phantom(size: int = 76) -> Tensor:
    """Make an image without symmetry."""
    axis = torch.arange(size) - float(size // 2)
    y, x = axis[:, None], axis[None, :]
    blobs = ((10, 3, 1.0), (-6, 12, 0.7), (-4, -9, 1.3), (14, -8, 0.5), (2, 0, 0.8))
    return sum(
        (w * torch.exp(-((x - a) ** 2 + (y - b) ** 2) / 18) for a, b, w in blobs),
        torch.zeros(size, size),
    )


def test_rings_have_the_lengths_and_weights_of_the_reference() -> None:
    lengths = [ring_length(r) for r in range(1, 30)]
    assert lengths == [8, 16] + [32] * 3 + [64] * 5 + [128] * 10 + [256] * 9
    assert sum(lengths) == 4024
    assert ring_weight(1) == pytest.approx(2 * np.pi / 8)
    assert ring_weight(29) == pytest.approx(2 * np.pi * 29 / 256)


@pytest.mark.parametrize("mirror", [False, True])
def test_the_engine_finds_the_turn_and_mirror_that_rings_in_real_space_find(mirror: bool) -> None:
    reference = phantom()
    shown = torch.flip(reference, (1,)).roll(1, 1) if mirror else reference
    none = torch.zeros(1)
    image = transform_images(shown[None], psi=torch.tensor([-40.0]), shift_x=none, shift_y=none)[0]
    stack = _stack(torch.stack([image, reference]), StableParameters(radius=29.0, ctf="none"))
    engine, workspace, n_rings = StableEngine(stack), Workspace(), 20
    noise = torch.ones(engine.most_rings)
    still = torch.zeros(2, 2)
    ready = engine.ready(np.arange(2), still, n_rings=n_rings, noise=noise)
    tile = engine.tile(ready, torch.zeros(1, 2), n_rings, workspace)
    basis = engine.basis(n_rings)
    real, imaginary = engine.sampler(n_rings).sample(reference[None])
    harmonics = basis.to_harmonics(torch.complex(real, imaginary).permute(2, 1, 0))
    rotations = make_rotations(basis)
    scores = class_scores(tile, mirrored_references(harmonics, basis), rotations, workspace)
    _, psi, _, found = best_poses(*scores, rotations)
    polar = polar_match(image, reference, radius=29)
    assert bool(found[0, 0]) is polar.mirror is mirror
    assert np.rad2deg(float(psi[0, 0])) % 360 == pytest.approx(polar.psi, abs=1.5)
    assert polar.psi == pytest.approx(40.0, abs=1.5)


def _stack(images: Tensor, parameters: StableParameters) -> StableImages:
    size = images.shape[-1]
    return StableImages(
        pixels=images.half(),
        ctf_power=None,
        shrink=plan_shrink(parameters, box_size=size, pixel_size=1.0),
        whitening=torch.ones(size // 2 + 1),
    )


def test_the_box_shrinks_as_the_reference_says() -> None:
    given = StableParameters(radius=120.0)
    shrink = plan_shrink(given, box_size=360, pixel_size=1.06)
    assert shrink.ratio == pytest.approx(29 / 120)
    assert (shrink.resized, shrink.size) == (87, 76)
    assert shrink.pixel_size == pytest.approx(1.06 * 120 / 29)
    wider = StableParameters(radius=120.0, xr=3)
    assert plan_shrink(wider, box_size=360, pixel_size=1.06).size == 78


def test_a_particle_larger_than_its_box_is_refused() -> None:
    with pytest.raises(ParameterError, match="radius must be at most half the box, 32 px"):
        plan_shrink(StableParameters(radius=40.0), box_size=64, pixel_size=4.0)


@pytest.mark.parametrize("box", [31, 32, 48])
def test_a_point_at_the_centre_stays_there_whatever_the_box(box: int) -> None:
    images = torch.zeros(1, box, box)
    images[0, box // 2, box // 2] = 1
    one = Arrived(
        images=images, defocus=np.ones(1), has_ctf=False, is_multiplied=False, is_flipped=False,
        group_numbers=np.zeros(1, np.int64), optics_numbers=np.zeros(1, np.int64), box_size=box,
    )  # fmt: skip
    found = prepare_images(one, small(radius=box / 3, target_radius=10, ir=0)).pixels[0]
    assert divmod(int(found.argmax()), 32) == (16, 16)


def test_images_are_normalised_outside_and_inside_the_mask() -> None:
    given = world(20, noise=1.0, kind="none")
    given.source.images = 7 + 3 * given.source.images
    found = prepare_images(given.source, small()).pixels.float()
    axis = torch.arange(32) - 16.0
    inside = torch.hypot(axis[:, None], axis) <= 11
    assert found[:, ~inside].mean(1).abs().max() < 5e-3
    deviation = found[:, inside & (axis[:, None].abs() + axis.abs() > 0)].std(1)
    assert (deviation - 1).abs().max() < 0.05


def test_the_filter_is_half_at_its_cut_off() -> None:
    frequency = torch.tensor([0.0, 0.2, 0.45])
    passed = tanh_filter(frequency, cut_off=0.2, fall_off=0.2)
    assert passed[0] == pytest.approx(1, abs=1e-2)
    assert passed[1] == pytest.approx(0.5, abs=1e-2)
    assert passed[2] < 1e-3


def test_whitening_makes_the_spectrum_flat() -> None:
    draw = torch.Generator().manual_seed(0)
    white = torch.randn(60, 32, 32, generator=draw)
    axis = torch.fft.fftfreq(32)
    radius = torch.hypot(axis[:, None], torch.fft.rfftfreq(32))
    coloured = torch.fft.irfft2(torch.fft.rfft2(white) / (0.05 + radius), s=(32, 32))
    given = world(60, kind="none").source
    given.images = coloured
    plain = _spectrum(prepare_images(given, small(ir=0)).pixels)
    flat = _spectrum(prepare_images(given, small(vpp=True, ir=0)).pixels)
    assert plain[2] / plain[14] > 10
    assert 0.8 < flat[2] / flat[14] < 1.25


def _spectrum(pixels: Tensor) -> Tensor:
    power = torch.fft.rfft2(pixels.float()).abs().square().mean(0)
    axis = torch.fft.fftfreq(32)
    ring = (torch.hypot(axis[:, None], torch.fft.rfftfreq(32)) * 32).round().long()
    total = torch.zeros(24).index_add_(0, ring.flatten(), power.flatten())
    return total / torch.bincount(ring.flatten(), minlength=24)


def test_a_filament_is_masked_along_its_angle() -> None:
    given = world(2, noise=1.0, kind="none").source
    angles = np.array([0.0, 90.0])
    found = prepare_images(given, small(filament_width=8, ir=0), filament_angle=angles).pixels
    rows, columns = (found != 0).any(2).sum(1), (found != 0).any(1).sum(1)
    assert rows[0] == columns[1] == 9  # 8 px and a tenth, on both sides of the axis
    assert columns[0] == rows[1] == 32
    whole = small(filament_width=8, ir=0, filament_mask_ignore=True)
    assert (prepare_images(given, whole, filament_angle=angles).pixels != 0).all()


def test_filaments_without_angles_are_refused() -> None:
    with pytest.raises(ParameterError, match="filament_width must come with an angle"):
        prepare_images(world(2).source, small(filament_width=8))


def test_decoys_have_the_power_of_images_and_nothing_else_of_them() -> None:
    given = prepare_images(world(100, noise=0.5, kind="none").source, small())
    rows = np.arange(100)
    decoys = phase_randomised(given, rows, radius=12.0, seed=0)
    axis = torch.arange(32) - 16.0
    inside = torch.hypot(axis[:, None], axis) <= 12
    one, other = (i.pixels.float()[:, inside] for i in (given, decoys))
    assert float(other.square().mean() / one.square().mean()) == pytest.approx(1, abs=0.1)
    alike = torch.corrcoef(torch.cat([one, other]))[:100, 100:].diagonal()
    assert alike.mean().abs() < 0.1


def test_phases_are_flipped_where_the_lens_has_flipped_them() -> None:
    still = world(40, noise=0.0, kind="plain")
    flipped = world(40, noise=0.0, kind="flipped")
    ours = prepare_images(still.source, small(ctf="flip")).pixels.float()
    theirs = prepare_images(flipped.source, small(ctf="flip")).pixels.float()
    assert (ours - theirs).abs().max() < 0.02
    raw = prepare_images(still.source, small()).pixels.float()
    assert (ours - raw).abs().max() > 0.2


def test_the_search_narrows_as_in_the_reference() -> None:
    assert search_stages(StableParameters(radius=29.0)) == [(8.0, 2.0), (4.0, 1.0)]


def test_values_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ParameterError, match="vpp must be off unless --ctf is none"):
        StableParameters(radius=29.0, vpp=True)
    with pytest.raises(ParameterError, match="fl must be at most fh"):
        StableParameters(radius=29.0, fl=0.4, fh=0.3)


def test_defaults_follow_the_number_of_images() -> None:
    given = StableParameters(radius=29.0)
    assert (given.images_per_class(5000), given.least_size(5000)) == (50, 30)
    assert given.images_per_class(100_000) == 500
    assert given.pixel_error_limit == pytest.approx(0.7)
    assert StableParameters(radius=29.0, target_radius=58, target_nx=152).pixel_error_limit == (
        pytest.approx(1.4)
    )
