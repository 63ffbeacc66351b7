"""Template picking against truth: places, angles, templates, and what noise does."""

from __future__ import annotations

import dataclasses
import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cryopick.alignment.transform import transform_images
from cryopick.ctf.field_ctf import FieldCtf
from cryopick.errors import DataError, ParameterError, ShapeError
from cryopick.image.crop import crop_boxes
from cryopick.picking.template import pick_template, template_bytes
from cryopick.picking.template_basis import make_basis
from cryopick.picking.template_harmonics import prepare_templates
from cryopick.picking.template_noise import template_noise_peaks
from cryopick.picking.template_parameters import TemplateParameters
from cryopick.picking.template_search import match_points, search_field

PIXEL_SIZE = 4.0
DIAMETER = 160.0
BOX = 64
PARAMETERS = TemplateParameters(diameter=DIAMETER, mask=False)
LENS = FieldCtf(
    defocus_u=16500.0,
    defocus_v=15500.0,
    defocus_angle=35.0,
    voltage=300.0,
    spherical_aberration=2.7,
    amplitude_contrast=0.1,
)


def make_template(seed, *, lumps=14, symmetry=1, box=BOX, pixel_size=PIXEL_SIZE):
    """A white particle of Gaussian lumps, its own centre at pixel n // 2."""
    random = np.random.default_rng(seed)
    radius = random.uniform(0, 0.42 * DIAMETER, lumps)
    angle = random.uniform(0, 2 * np.pi, lumps)
    steps = (np.arange(box) - box // 2) * pixel_size
    image = np.zeros((box, box))
    for turn in 2 * np.pi * np.arange(symmetry) / symmetry:
        for r, a in zip(radius, angle + turn, strict=True):
            x, y = steps - r * np.cos(a), steps[:, None] - r * np.sin(a)
            image += np.exp(-(x**2 + y**2) / (2 * 12.0**2))
    return torch.from_numpy(image.astype(np.float32))


def make_templates(count, **kwargs):
    return torch.stack([make_template(seed, **kwargs) for seed in range(count)])


def prepare(images, parameters=PARAMETERS, *, pixel_size=PIXEL_SIZE):
    return prepare_templates(
        images,
        template_pixel_size=pixel_size,
        diameter=parameters.diameter,
        low_pass=parameters.low_pass,
    )


def scatter(images, *, shape=(420, 520), noise=0.0, seed=0, step=62, lens=None):
    """Dark particles: templates turned by -psi, between pixels, on a loose grid."""
    random = np.random.default_rng(seed)
    field = torch.zeros(shape)
    truth = []
    for row in range(54, shape[0] - 50, step):
        for column in range(54, shape[1] - 50, step):
            off_y, off_x = random.uniform(-0.5, 0.5, 2)
            psi, number = random.uniform(-180, 180), int(random.integers(len(images)))
            none = torch.zeros(1)
            turned = transform_images(
                images[number : number + 1], psi=torch.tensor([-psi]), shift_x=none, shift_y=none
            )
            moved = transform_images(
                turned, psi=none, shift_x=torch.tensor([off_x]), shift_y=torch.tensor([off_y])
            )[0]
            field[row - 32 : row + 32, column - 32 : column + 32] -= moved.float()
            truth.append((column + off_x, row + off_y, psi, number))
    if lens is not None:
        ctf = lens.evaluate(shape, pixel_size=PIXEL_SIZE)
        field = torch.fft.irfft2(torch.fft.rfft2(field) * ctf, s=shape)
    field += noise * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return field, np.array(truth)


def pick(field, templates, parameters=PARAMETERS, *, ctf=None):
    return pick_template(
        field, pixel_size=PIXEL_SIZE, templates=templates, parameters=parameters, ctf=ctf
    )


def turn_between(a, b):
    return (np.asarray(a) - b + 180) % 360 - 180


def nearest(picks, truth):
    return [int(np.hypot(picks.x - x, picks.y - y).argmin()) for x, y, *_ in truth]


@pytest.mark.parametrize("lens", [None, LENS])
def test_places_angles_and_templates_are_those_of_the_truth(lens):
    images = make_templates(3)
    field, truth = scatter(images, noise=0.3, lens=lens)

    picks = pick(field, prepare(images), ctf=lens)

    found = nearest(picks, truth)
    assert int(picks.is_pick.sum()) == len(truth)
    away = np.hypot(picks.x[found] - truth[:, 0], picks.y[found] - truth[:, 1])
    assert away.mean() < 0.4  # px; a working pixel is 2.5
    assert away.max() < 1.2
    turned = np.abs(turn_between(picks.psi[found], truth[:, 2]))
    assert turned.mean() < 2.0  # deg; the step is 5
    assert turned.max() < 6.0
    np.testing.assert_array_equal(picks.class_number[found], truth[:, 3] + 1)
    assert (picks.diameter == DIAMETER).all()


def test_psi_turns_an_extracted_particle_onto_its_template():
    images = make_templates(2)
    field, truth = scatter(images)
    noisy = field + 0.3 * torch.randn(field.shape, generator=torch.Generator().manual_seed(5))

    picks = pick(noisy, prepare(images))

    chosen = nearest(picks, truth)
    centers = torch.tensor(np.c_[picks.y, picks.x][chosen], dtype=torch.float32)
    boxes = crop_boxes(-field, centers, box_size=BOX)
    onto = transform_images(
        boxes.images,
        psi=torch.tensor(picks.psi[chosen], dtype=torch.float32),
        shift_x=-boxes.residual_yx[:, 1],
        shift_y=-boxes.residual_yx[:, 0],
    )
    for image, number in zip(onto, picks.class_number[chosen], strict=True):
        inner = slice(12, 52)
        both = torch.stack([image[inner, inner].ravel(), images[number - 1][inner, inner].ravel()])
        assert torch.corrcoef(both)[0, 1] > 0.97


def test_the_search_equals_a_transform_for_each_template_and_angle():
    images = make_templates(3)
    templates = prepare(images)
    field = torch.randn(96, 120, generator=torch.Generator().manual_seed(1))
    n_angles = 12
    weight = np.ones_like(templates.frequency)
    basis = make_basis(templates, weight * 8.0**2, kept=1 - 1e-7)

    found = search_field(field, basis, pixel_size=8.0, reach=120.0, n_angles=n_angles)

    best = torch.full_like(field, -torch.inf)
    for turn in range(n_angles):
        for kernel in turned_templates(templates, field.shape, 8.0, 360 * turn / n_angles):
            norm = (
                kernel.abs().square().mul(hermitian(field.shape)).sum().sqrt()
                / field.numel() ** 0.5
            )
            response = torch.fft.irfft2(torch.fft.rfft2(field) * kernel.conj(), s=field.shape)
            best = torch.maximum(best, response / norm)
    torch.testing.assert_close(found.best, best, atol=1e-3 * float(best.max()), rtol=0)


def hermitian(shape):
    """How many samples of the full transform each of the half stands for."""
    counts = torch.full((shape[1] // 2 + 1,), 2.0)
    counts[0] = 1
    if shape[1] % 2 == 0:
        counts[-1] = 1
    return counts


def turned_templates(templates, shape, pixel_size, angle):
    """Transforms of the templates turned by an angle, from their harmonics, order by order."""
    fy = np.fft.fftfreq(shape[0], pixel_size)[:, None]
    fx = np.fft.rfftfreq(shape[1], pixel_size)[None]
    frequency, phi = np.hypot(fy, fx), np.arctan2(fy, fx) - np.deg2rad(angle)
    result = []
    for harmonics in templates.harmonics:
        total = np.zeros(frequency.shape, complex)
        for m, radial in enumerate(harmonics):
            u = np.interp(frequency, templates.frequency, radial)
            wave = np.exp(1j * m * phi)
            total += (-1j) ** m * (u * wave + (u.conj() * wave.conj() if m else 0))
        total[frequency >= 0.5 / pixel_size] = 0
        result.append(torch.from_numpy(total.astype(np.complex64)))
    return result


def test_harmonics_make_the_template_itself():
    image = make_template(4)
    templates = prepare(image[None])
    expected = torch.fft.rfft2(image)
    f = torch.hypot(
        torch.fft.fftfreq(BOX, PIXEL_SIZE)[:, None], torch.fft.rfftfreq(BOX, PIXEL_SIZE)
    )

    made = turned_templates(templates, (BOX, BOX), PIXEL_SIZE, 0.0)[0] / PIXEL_SIZE**2
    drawn = torch.fft.irfft2(made, s=(BOX, BOX)).roll((BOX // 2, BOX // 2), (0, 1))

    smooth = torch.fft.irfft2(expected * (f < 0.05), s=(BOX, BOX))
    both = torch.stack([drawn.ravel(), smooth.ravel()])
    assert torch.corrcoef(both)[0, 1] > 0.999


def test_strips_give_what_the_whole_field_gives(monkeypatch):
    images = make_templates(2)
    basis = make_basis(prepare(images), np.ones_like(prepare(images).frequency))
    field = torch.randn(200, 90, generator=torch.Generator().manual_seed(1))
    arguments = {"pixel_size": 10.0, "reach": 120.0, "n_angles": 24}
    whole = search_field(field, basis, **arguments)

    monkeypatch.setattr("cryopick.picking.template_search._MAP_BYTES", 2**20)
    strips = search_field(field, basis, **arguments)

    assert (whole.best - strips.best).std() < 0.01 * whole.best.std()


def test_points_agree_with_the_search_and_stand_above_it():
    images = make_templates(2)
    basis = make_basis(prepare(images), np.full_like(prepare(images).frequency, 100.0))
    field = torch.randn(100, 90, generator=torch.Generator().manual_seed(1))
    arguments = {"pixel_size": 10.0, "reach": 120.0, "n_angles": 72}
    best = search_field(field, basis, **arguments).best
    top = (best == best.max()).nonzero()

    match = match_points(field, top, basis, **arguments)

    assert float(best.max()) * 0.99 < float(match.score[0]) < float(best.max()) * 1.2


@pytest.mark.parametrize("symmetry", [1, 6])
def test_pure_noise_gives_at_most_one_pick_a_field(symmetry):
    templates = prepare(make_templates(6, symmetry=symmetry, lumps=14 // symmetry))
    counts, peaks = [], []
    for seed in range(4):
        noise = torch.randn(768, 768, generator=torch.Generator().manual_seed(seed))
        picks = pick(noise, templates)
        counts.append(int(picks.is_pick.sum()))
        peaks.append(picks)

    assert np.mean(counts) <= 1.0


def test_a_round_template_has_the_noise_peaks_of_one_map():
    steps = (torch.arange(BOX) - BOX // 2) * PIXEL_SIZE
    blob = torch.exp(-(steps[:, None] ** 2 + steps**2) / (2 * 40.0**2))[None]
    parameters = dataclasses.replace(PARAMETERS, false_positives=40.0)
    counts = []
    for seed in range(3):
        noise = torch.randn(768, 768, generator=torch.Generator().manual_seed(seed))
        counts.append(int(pick(noise, prepare(blob), parameters).is_pick.sum()))

    assert 20.0 < np.mean(counts) < 80.0


def test_noise_makes_as_many_peaks_as_the_threshold_reckons():
    templates = prepare(make_templates(6))
    wanted = 40.0
    parameters = dataclasses.replace(PARAMETERS, false_positives=wanted)
    counts = []
    for seed in range(3):
        noise = torch.randn(768, 768, generator=torch.Generator().manual_seed(seed))
        counts.append(int(pick(noise, templates, parameters).is_pick.sum()))

    assert wanted / 2 < np.mean(counts) < wanted * 2


def test_scores_do_not_depend_on_grey_scale_or_on_the_scale_of_templates():
    images = make_templates(2)
    field, _ = scatter(images, noise=0.5)

    plain = pick(field, prepare(images))
    scaled = pick(300 * field + 2e4, prepare(7 * images - 3))

    count = int(plain.is_pick.sum())
    np.testing.assert_allclose(scaled.fom[:count], plain.fom[:count], rtol=1e-2)


def test_white_particles_are_found_when_told_so():
    images = make_templates(2)
    field, truth = scatter(images, noise=0.3)
    white = dataclasses.replace(PARAMETERS, white_particles=True)

    right, wrong = pick(-field, prepare(images), white), pick(field, prepare(images), white)

    assert int(right.is_pick.sum()) == len(truth)
    assert int(wrong.is_pick.sum()) < len(truth) / 2


def test_ctf_raises_the_scores_of_defocused_particles():
    images = make_templates(2)
    field, _ = scatter(images, noise=0.5, lens=LENS)

    without, corrected = pick(field, prepare(images)), pick(field, prepare(images), ctf=LENS)

    assert np.median(corrected.fom[:20]) > 1.1 * np.median(without.fom[:20])


def test_noise_criteria_drop_what_they_say():
    images = make_templates(2)
    field, truth = scatter(images, noise=0.3)
    templates = prepare(images)

    busy = dataclasses.replace(PARAMETERS, max_noise_deviation=0.01)
    bright = dataclasses.replace(PARAMETERS, min_noise_mean=100.0)
    lenient = dataclasses.replace(PARAMETERS, max_noise_deviation=100.0, min_noise_mean=-100.0)

    assert len(pick(field, templates, busy).x) == 0
    assert len(pick(field, templates, bright).x) == 0
    assert int(pick(field, templates, lenient).is_pick.sum()) == len(truth)


def test_a_given_threshold_and_distance_are_kept():
    images = make_templates(1)
    field, _ = scatter(images, noise=0.5)
    parameters = dataclasses.replace(PARAMETERS, threshold=7.5, min_distance=300.0)

    picks = pick(field, prepare(images), parameters)

    away = np.hypot(
        *(np.c_[picks.x, picks.y][:, None] - np.c_[picks.x, picks.y]).transpose(2, 0, 1)
    )
    assert picks.threshold == 7.5
    assert away[away > 0].min() * PIXEL_SIZE > 280


def test_picks_keep_the_distance_from_the_edge():
    images = make_templates(1)
    field, _ = scatter(images, noise=0.5)
    parameters = dataclasses.replace(PARAMETERS, edge_distance=0.5)

    near, far = pick(field, prepare(images)), pick(field, prepare(images), parameters)

    assert far.x.min() * PIXEL_SIZE >= 0.5 * DIAMETER - 10
    assert near.x.min() * PIXEL_SIZE < 0.4 * DIAMETER


def test_a_field_too_small_for_a_particle_has_no_picks():
    images = make_templates(1)
    field, _ = scatter(images, noise=0.5)
    parameters = dataclasses.replace(PARAMETERS, edge_distance=2.0)

    picks = pick(field[:120, :130], prepare(images), parameters)

    assert len(picks.x) == len(picks.psi) == len(picks.class_number) == 0
    assert math.isfinite(picks.threshold)  # JSON has no infinity
    assert picks.threshold > 1e6


def test_a_field_little_larger_than_a_particle_can_be_searched():
    images = make_templates(1)
    field, truth = scatter(images, noise=0.3)

    picks = pick(field[23:86, 23:86], prepare(images))

    away = np.hypot(picks.x + 23 - truth[0, 0], picks.y + 23 - truth[0, 1])
    assert away[0] < 2.0


def test_a_blob_as_bright_as_a_particle_but_of_another_shape_scores_less():
    images = make_templates(2)
    field, truth = scatter(images, noise=0.5)
    y, x = torch.meshgrid(torch.arange(420.0), torch.arange(520.0), indexing="ij")
    place = truth[10, :2]
    away = torch.hypot(x - place[0], y - place[1])
    ring = (away - 8).abs() < 3
    spoilt = torch.where(away < 32, 0.0, field) - 5.0 * ring

    picks = pick(spoilt, prepare(images))

    here = np.hypot(*(np.c_[picks.x, picks.y] - place).T) < 24
    others = nearest(picks, np.delete(truth, 10, 0))
    assert picks.fom[here].max() < 0.6 * np.median(picks.fom[others])  # 0.95 by height alone


def test_maps_are_written_when_asked_for():
    parameters = dataclasses.replace(PARAMETERS, write_fom_maps=True)
    images = make_templates(1)
    field, _ = scatter(images, noise=0.5)

    assert set(pick(field, prepare(images), parameters).maps) == {"fom", "mask"}
    assert pick(field, prepare(images)).maps == {}


def test_bad_templates_are_refused():
    with pytest.raises(DataError, match="have contrast within the mask; got none in number 2"):
        prepare(torch.stack([make_template(0), torch.ones(BOX, BOX)]))
    with pytest.raises(DataError, match="finite"):
        prepare(torch.full((1, BOX, BOX), torch.nan))
    with pytest.raises(DataError, match="hold an image"):
        prepare(torch.zeros(0, BOX, BOX))
    with pytest.raises(DataError, match="low-pass"):
        prepare(make_templates(1), pixel_size=12.0)
    with pytest.raises(ShapeError):
        prepare(torch.zeros(2, BOX, BOX + 2))
    with pytest.raises(ParameterError, match="low_pass must be at most half the diameter"):
        TemplateParameters(diameter=30.0)
    with pytest.raises(ParameterError, match=r"low_pass must be at least a 40th .* Raise --low-p"):
        TemplateParameters(diameter=1700.0)


def test_many_templates_share_what_noise_finds_whatever_the_blocks(monkeypatch):
    templates = prepare(make_templates(7))
    basis = make_basis(templates, np.full_like(templates.frequency, 64.0))
    levels = np.array([3.0, 4.0, 6.0])
    whole = template_noise_peaks(basis, templates.frequency, area=1e7)(levels)

    monkeypatch.setattr("cryopick.picking.template_noise._BLOCK_BYTES", 1)
    one_by_one = template_noise_peaks(basis, templates.frequency, area=1e7)(levels)

    np.testing.assert_allclose(one_by_one, whole, rtol=1e-9)
    twice = prepare(torch.cat([make_templates(7), make_templates(7)]))
    basis = make_basis(twice, np.full_like(twice.frequency, 64.0))
    doubled = template_noise_peaks(basis, twice.frequency, area=1e7)(levels)
    np.testing.assert_allclose(doubled, whole, rtol=0.35)  # the same templates, the same peaks


@pytest.mark.parametrize("count", [20, 200])
def test_memory_is_what_is_estimated(count, tmp_path):
    """In a process of its own, as the peak of this one is of other tests."""
    templates = prepare(make_templates(20).repeat(count // 20, 1, 1))
    with (tmp_path / "templates.pickle").open("wb") as handle:
        pickle.dump((prepare(make_templates(2)), templates), handle)

    printed = subprocess.run(
        [sys.executable, "-c", _MEASURE, tmp_path / "templates.pickle", str(DIAMETER), "1000"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    ).stdout

    estimate = template_bytes(1000, 5.0, templates=templates, parameters=PARAMETERS)
    assert int(printed) < estimate < 2 * int(printed)


_MEASURE = """
import pickle, sys
import torch
from cryopick.picking.template import pick_template
from cryopick.picking.template_parameters import TemplateParameters
from peak_memory import bytes_held, most_bytes
torch.set_num_threads(1)

def pick(side, templates):
    field = torch.randn(side, side, generator=torch.Generator().manual_seed(0))
    parameters = TemplateParameters(diameter=float(sys.argv[2]), mask=False)
    pick_template(field, pixel_size=5.0, templates=templates, parameters=parameters, ctf=None)

with open(sys.argv[1], "rb") as handle:
    few, templates = pickle.load(handle)
pick(256, few)  # maps the pages of program files, more or fewer of which a machine reads ahead
before = bytes_held()
pick(int(sys.argv[3]), templates)
print(most_bytes() - before)
"""
