"""CTF estimation against fields of known defocus, simulated micrographs, and rotation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from thon_rings import LENS, PIXEL_SIZE, angle_between, ctf_of, field_of, mean_defocus

from conftest import available_devices
from cryopick.ctf.estimate import estimate_ctf
from cryopick.ctf.estimate_parameters import CtfParameters
from cryopick.ctf.half_picture import half_picture
from cryopick.errors import DataError, ParameterError, ShapeError
from cryopick.io.micrograph import read_micrograph
from cryopick.tables.relion import read_micrographs


def estimate(field, *, pixel_size=PIXEL_SIZE, lens=LENS, **given):
    return estimate_ctf(field, pixel_size=pixel_size, parameters=CtfParameters(**given), **lens)


def assert_found(found, truth, *, defocus=60.0, angle=4.0, astigmatism=80.0):
    assert found.is_trusted
    assert mean_defocus(found.ctf) == pytest.approx(mean_defocus(truth), abs=defocus)
    difference = truth.defocus_u - truth.defocus_v
    assert found.ctf.defocus_u - found.ctf.defocus_v == pytest.approx(difference, abs=astigmatism)
    if difference > 500:
        assert angle_between(found.ctf.defocus_angle, truth.defocus_angle) < angle


@pytest.mark.parametrize("defocus", [4000.0, 9000.0, 22000.0, 47000.0])
def test_defocus_is_found_over_the_whole_range(defocus):
    truth = ctf_of(defocus, astigmatism=0.05 * defocus, angle=25.0)

    assert_found(estimate(field_of(truth)), truth)


@pytest.mark.parametrize("angle", [-85.0, -45.0, 0.0, 45.0, 90.0])
def test_the_angle_is_from_columns_to_defocus_u_towards_rows(angle):
    truth = ctf_of(16000, astigmatism=1200, angle=angle)

    found = estimate(field_of(truth))

    assert_found(found, truth)
    assert found.ctf.defocus_u >= found.ctf.defocus_v
    assert -90 < found.ctf.defocus_angle <= 90


def test_large_astigmatism_is_found():
    truth = ctf_of(20000, astigmatism=4500, angle=-30.0)

    assert_found(estimate(field_of(truth)), truth)


@pytest.mark.parametrize(
    ("lens", "pixel_size"),
    [
        ({"voltage": 200.0, "spherical_aberration": 2.0}, 1.2),
        ({"voltage": 120.0, "spherical_aberration": 6.3}, 2.2),
        ({"spherical_aberration": 0.001, "amplitude_contrast": 0.3}, 1.7),
    ],
)
def test_other_microscopes_and_pixels(lens, pixel_size):
    truth = ctf_of(14000, astigmatism=900, angle=60.0, **lens)
    field = field_of(truth, pixel_size=pixel_size)

    assert_found(estimate(field, pixel_size=pixel_size, lens=LENS | lens), truth)


def test_turning_the_field_by_90_degrees_turns_the_angle_and_keeps_the_defoci():
    field = field_of(ctf_of(15000, astigmatism=1500, angle=20.0), shape=(900, 1100))

    plain, turned = estimate(field).ctf, estimate(torch.rot90(field)).ctf

    assert turned.defocus_u == pytest.approx(plain.defocus_u, abs=3)
    assert turned.defocus_v == pytest.approx(plain.defocus_v, abs=3)
    assert angle_between(turned.defocus_angle, plain.defocus_angle + 90) < 0.2


def test_mirroring_the_field_mirrors_the_angle():
    field = field_of(ctf_of(15000, astigmatism=1500, angle=20.0))

    plain, mirrored = estimate(field).ctf, estimate(field.flip(1)).ctf

    assert angle_between(mirrored.defocus_angle, -plain.defocus_angle) < 0.2


@pytest.mark.parametrize(("defocus", "phase_shift"), [(4000, 90.0), (8000, 40.0), (12000, 130.0)])
def test_phase_shift_and_defocus_are_found_together(defocus, phase_shift):
    truth = ctf_of(defocus, astigmatism=300, angle=10.0, phase_shift=phase_shift)

    found = estimate(field_of(truth), phase_shift=True)

    assert_found(found, truth, defocus=100.0)
    assert found.ctf.phase_shift == pytest.approx(phase_shift, abs=8)


def test_without_a_search_the_phase_shift_stays_zero_and_a_phase_plate_is_not_trusted():
    truth = ctf_of(6000, phase_shift=90.0)

    found = estimate(field_of(truth))

    assert found.ctf.phase_shift == 0
    assert not found.is_trusted


def test_without_astigmatism_to_search_the_defoci_are_one():
    found = estimate(field_of(ctf_of(18000)), max_astigmatism=0)

    assert found.ctf.defocus_u == found.ctf.defocus_v == pytest.approx(18000, abs=30)


@pytest.mark.parametrize("seed", range(8))
def test_noise_without_rings_is_never_trusted(seed):
    field = torch.randn(800, 800, generator=torch.Generator().manual_seed(seed))

    found = estimate(field)

    assert not found.is_trusted
    assert found.figure_of_merit < 0.15
    assert found.max_resolution == 30.0


def test_smooth_shading_without_rings_is_not_trusted():
    y, x = torch.meshgrid(torch.linspace(-1, 1, 900), torch.linspace(-1, 1, 900), indexing="ij")
    step = torch.sigmoid(80 * (x + 0.3 * y))  # the edge of a carbon film
    field = 40 * step + torch.randn(900, 900, generator=torch.Generator().manual_seed(3))

    assert not estimate(field).is_trusted


def test_what_is_trusted_at_any_noise_is_right():
    truth = ctf_of(17000, astigmatism=800, angle=-50.0)
    found = [
        estimate(field_of(truth, signal=signal, seed=seed))
        for signal in (0.1, 0.2, 0.35, 0.5, 0.8)
        for seed in range(2)
    ]

    trusted = [e for e in found if e.is_trusted]
    assert 2 <= len(trusted) < len(found)
    for one in trusted:
        assert mean_defocus(one.ctf) == pytest.approx(17000, abs=150)


def test_rings_are_followed_as_far_as_they_go():
    truth = ctf_of(15000)
    near, far = (estimate(field_of(truth, signal=s)).max_resolution for s in (0.7, 4.0))

    assert far == pytest.approx(4.0, abs=0.1)
    assert 4.5 < near < 12


def test_the_error_stated_is_the_error_made():
    truth = ctf_of(15000, astigmatism=600, angle=10.0)
    found = [estimate(field_of(truth, shape=(800, 800), seed=seed)) for seed in range(12)]

    errors = np.array([mean_defocus(e.ctf) - 15000 for e in found])
    stated = np.mean([e.defocus_error for e in found])
    assert 0.4 < errors.std() / stated < 2.0
    assert abs(errors.mean()) < stated


def test_scale_contrast_and_precision_do_not_matter():
    field = field_of(ctf_of(15000, astigmatism=600, angle=10.0))

    plain, other = estimate(field).ctf, estimate(300 - 5 * field.double()).ctf

    np.testing.assert_allclose(plain, other, rtol=1e-3)


@pytest.mark.parametrize("scale", [1e-25, 1e6, 1e18])
def test_scale_does_not_matter_where_bins_are_empty(scale):
    field = field_of(ctf_of(12000), shape=(700, 700))

    plain, other = (estimate(f, tile_size=256) for f in (field, scale * field))

    assert plain.is_trusted
    assert other.score == pytest.approx(plain.score, rel=1e-3)
    np.testing.assert_allclose(plain.ctf, other.ctf, rtol=1e-3)


def test_coarse_pixels_show_the_rings_of_large_defocus():
    truth = ctf_of(40000, astigmatism=1500, angle=15.0)
    field = field_of(truth, pixel_size=5.0, signal=3.0)

    assert_found(estimate(field, pixel_size=5.0), truth, defocus=100.0, astigmatism=150.0)


def test_the_micrograph_is_left_as_it_was():
    field = field_of(ctf_of(15000), shape=(700, 700))
    before = field.clone()

    estimate(field)

    assert torch.equal(field, before)


@pytest.mark.parametrize("device", available_devices())
def test_every_device_finds_the_same(device):
    field = field_of(ctf_of(15000, astigmatism=600, angle=10.0))

    np.testing.assert_allclose(estimate(field.to(device)).ctf, estimate(field).ctf, rtol=1e-3)


def test_the_picture_shows_the_same_rings_in_both_halves():
    found = estimate(field_of(ctf_of(12000, astigmatism=1500, angle=40.0), signal=4.0))

    picture = half_picture(found)

    side = picture.shape[0]
    left = picture[1:, 1 : side // 2]
    right = picture[1:, side // 2 + 1 :].flip((0, 1))  # the spectrum has a centre of symmetry
    is_fitted = right != 0
    mirrored = right.flip(1)
    rows = torch.stack([left[is_fitted], right[is_fitted], mirrored[is_fitted]])
    as_it_is, as_in_a_mirror = torch.corrcoef(rows)[0, 1:].tolist()
    assert as_it_is > 0.6
    assert as_in_a_mirror < 0.3


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"pixel_size": 7.0, "max_defocus": 15000.0}, "max_defocus must put 3 rings"),
        ({"pixel_size": 16.0}, "max_defocus must put 3 rings"),
        ({"pixel_size": 0.0}, "pixel_size must be above 0"),
    ],
)
def test_pixels_too_coarse_for_rings_are_refused(given, sentence):
    with pytest.raises(ParameterError, match=sentence):
        estimate(torch.randn(600, 600), **given)


@pytest.mark.parametrize("pixel_size", [0.01, 0.3, 0.6])
def test_tiles_too_small_for_rings_are_refused(pixel_size):
    with pytest.raises(ParameterError, match=r"tile_size must .* 12 rings .* Raise --tile-size"):
        estimate(torch.randn(600, 600), pixel_size=pixel_size, tile_size=64)


def test_the_fewest_rings_that_are_allowed_can_be_fitted():
    found = estimate(field_of(ctf_of(15000)), tile_size=64, pixel_size=61 / 64)  # rings 4 to 15

    assert len(found.curves.frequency) == 12
    assert not found.is_trusted  # these tiles do not resolve it


@pytest.mark.parametrize("pixel_size", [0.5, 1.5, 4.0, 7.5])
@pytest.mark.parametrize("voltage", [100.0, 300.0])
def test_tiles_of_their_own_choice_are_never_too_small(voltage, pixel_size):
    length = math.ceil(1000 / pixel_size)  # or shorter, as the smallest field allowed has them
    field = torch.randn(length, length, generator=torch.Generator().manual_seed(1))

    assert not estimate(field, pixel_size=pixel_size, lens=LENS | {"voltage": voltage}).is_trusted


@pytest.mark.parametrize(
    ("lens", "sentence"),
    [
        ({"voltage": 0.0}, "voltage must be above 0"),
        ({"amplitude_contrast": 10.0}, "amplitude_contrast must be a fraction from 0 to 1; got 10"),
        ({"spherical_aberration": -1.0}, "spherical_aberration must be at least 0 mm"),
    ],
)
def test_an_impossible_lens_is_refused(lens, sentence):
    with pytest.raises(ParameterError, match=sentence):
        estimate(torch.randn(600, 600), lens=LENS | lens)


def test_fields_that_cannot_be_worked_on_are_refused():
    with pytest.raises(DataError, match="at least 256 px wide and high"):
        estimate(torch.randn(600, 100))
    with pytest.raises(DataError, match="as large as a tile, 512 px; got 600 x 400 px"):
        estimate(torch.randn(400, 600), tile_size=512)
    with pytest.raises(ShapeError, match=r"shape \(y, x\)"):
        estimate(torch.randn(2, 600, 600))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"min_defocus": 5000, "max_defocus": 5000}, "min_defocus must be below max_defocus"),
        ({"min_resolution": 4.0}, "max_resolution must be below min_resolution"),
        (
            {"phase_shift": True, "min_phase_shift": 90, "max_phase_shift": 20},
            "min_phase_shift must be below max_phase_shift",
        ),
    ],
)
def test_ranges_that_are_none_are_refused(given, sentence):
    with pytest.raises(ParameterError, match=sentence):
        CtfParameters(**given)


@pytest.mark.data
def test_real_apoferritin_shows_rings_beyond_10_angstrom(test_data):
    folder = test_data / "apoferritin"
    names = list(read_micrographs(folder / "micrographs.star").rows["micrograph"])

    found = [
        estimate(
            torch.from_numpy(read_micrograph(folder / name)),
            lens=LENS | {"amplitude_contrast": 0.07},
        )
        for name in names
    ]

    assert all(e.is_trusted and e.max_resolution <= 10 for e in found)
    # one session at one lens setting: the astigmatism has one direction
    angles = [e.ctf.defocus_angle for e in found]
    assert max(angle_between(a, -55.0) for a in angles) < 15


@pytest.mark.data
@pytest.mark.parametrize("pixel_size", [1.5, 3.0])
def test_real_fields_without_ice_are_not_trusted(test_data, pixel_size):
    for path in sorted((test_data / "junk_micrographs" / "empty_no_ice").glob("*.png")):
        field = torch.from_numpy(read_micrograph(path))

        assert not estimate(field, pixel_size=pixel_size).is_trusted, path.name


def test_a_field_recorded_only_in_part_is_fitted_from_that_part():
    field = field_of(ctf_of(15000), shape=(1024, 1600))
    field[:, 700:] = 0

    found = estimate(field)

    assert found.is_trusted
    assert mean_defocus(found.ctf) == pytest.approx(15000, abs=100)


def spots(shape, *, strength):
    """Waves of 6 and 10 A in six directions each, as a crystal adds them."""
    y, x = torch.meshgrid(*(PIXEL_SIZE * torch.arange(float(n)) for n in shape), indexing="ij")
    total = torch.zeros(shape)
    for turn in range(6):
        for length, offset in ((6.0, 0.0), (10.0, 0.2)):
            angle = turn * math.pi / 6 + offset
            place = x * math.cos(angle) + y * math.sin(angle)
            total += strength * torch.cos(2 * math.pi * place / length)
    return total


def ring_of_ice(field):
    """Three times more power in a narrow ring at 3.7 A."""
    shape = tuple(field.shape)
    fy, fx = torch.fft.fftfreq(shape[0], PIXEL_SIZE), torch.fft.rfftfreq(shape[1], PIXEL_SIZE)
    distance = (fy[:, None].square() + fx.square()).sqrt() - 1 / 3.7
    ring = 1 + 2 * torch.exp(-((distance / 0.003) ** 2))
    return torch.fft.irfft2(torch.fft.rfft2(field) * ring, s=shape)


def test_crystals_and_their_rings_do_not_hide_thon_rings():
    truth = ctf_of(15000, astigmatism=800, angle=20.0)
    field = field_of(truth)

    assert_found(estimate(field + spots(field.shape, strength=0.3)), truth)
    assert_found(estimate(ring_of_ice(field), max_resolution=3.1), truth)


def test_crystals_and_their_rings_are_not_taken_for_thon_rings():
    field = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(5))

    assert not estimate(field + spots(field.shape, strength=0.3)).is_trusted
    assert not estimate(ring_of_ice(field), max_resolution=3.1).is_trusted


@pytest.mark.parametrize("what", ["one pixel", "a band", "a wave", "two values"])
def test_fields_of_no_specimen_are_not_trusted(what):
    y, x = torch.meshgrid(torch.arange(800.0), torch.arange(800.0), indexing="ij")
    fields = {
        "one pixel": ((x == 400) & (y == 300)).float(),
        "a band": ((y > 100) & (y < 300)).float(),
        "a wave": torch.sin(0.7 * y) * torch.cos(0.5 * x),
        "two values": torch.sin(0.02 * (x * x + y * y).sqrt()).sign(),
    }

    assert not estimate(fields[what]).is_trusted
