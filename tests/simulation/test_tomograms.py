"""Simulated tomograms: things lie where the truth says, in the part of Fourier space they may."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial import cKDTree

from cryopick.errors import ParameterError
from cryopick.simulation.orientations import euler_matrices
from cryopick.simulation.parameters import SpecimenParameters
from cryopick.simulation.phantoms import make_phantom
from cryopick.simulation.projection import Model, project
from cryopick.simulation.tomograms import (
    SimulatedTomogram,
    render_particle,
    simulate_tomogram,
)
from cryopick.simulation.tomograms_image import tilt_range_mask
from cryopick.simulation.tomograms_parameters import TomogramSimulationParameters
from cryopick.simulation.tomograms_placement import Vesicle

SMALL = {"width": 72, "height": 64, "depth": 48, "particles": 6, "voxel_size": 10.0, "seed": 5}
ROUND = {"min_tilt": -90.0, "max_tilt": 90.0}


@pytest.fixture(scope="module")
def models() -> list[Model]:
    return [make_phantom("shell"), make_phantom("small")]


def simulate(models: list[Model], *, index: int = 0, **values: object) -> SimulatedTomogram:
    parameters = TomogramSimulationParameters(**(SMALL | values))  # type: ignore[arg-type]
    return simulate_tomogram(
        models, index=index, specimen=SpecimenParameters(), parameters=parameters
    )


def distances(made: SimulatedTomogram) -> np.ndarray:
    tree = cKDTree(made.scene.places)
    return np.asarray(tree.query(made.scene.places, k=2)[0][:, 1])


def test_labels_have_their_centre_of_mass_where_the_truth_says(models) -> None:
    made = simulate(models)
    labels = made.labels.numpy()

    for row in made.particles.itertuples():
        z, y, x = np.round(np.array([row.z, row.y, row.x]) / 10).astype(int)
        box = tuple(slice(max(0, c - 8), c + 9) for c in (z, y, x))
        objects, _ = ndimage.label(labels[box] == row.kind)
        sizes = np.bincount(objects.ravel())[1:]
        found = ndimage.center_of_mass(objects == sizes.argmax() + 1)
        centre = [(f + b.start) * 10 for f, b in zip(found, box, strict=True)]

        np.testing.assert_allclose(centre, [row.z, row.y, row.x], atol=5)


def test_a_particle_moved_below_a_voxel_is_the_same_particle_moved_in_fourier_space() -> None:
    model = make_phantom("small")
    turn = torch.from_numpy(euler_matrices(np.array([[30.0, 60.0, 10.0]]))[0])

    still = render_particle(model, turn, torch.zeros(3), voxel_size=6.0)
    moved = render_particle(model, turn, torch.tensor([1.5, -2.0, 3.0]), voxel_size=6.0)

    shift = np.array([3.0, -2.0, 1.5]) / 6.0  # z, y, x in voxels
    expected = np.fft.ifftn(ndimage.fourier_shift(np.fft.fftn(still.numpy()), shift)).real
    np.testing.assert_allclose(moved, expected, atol=2e-3 * float(still.max()))


def test_a_rendered_particle_projects_to_its_image() -> None:
    model = make_phantom("tetramer")
    turns = euler_matrices(np.array([[40.0, 70.0, 25.0]]))

    box = render_particle(model, torch.from_numpy(turns[0]), torch.zeros(3), voxel_size=8.0)
    image = project(model, turns, box_size=len(box), pixel_size=8.0)[0]

    both = np.corrcoef((box.sum(0) * 8).ravel(), image.ravel())[0, 1]
    assert both > 0.98
    assert float(box.sum()) * 8**3 == pytest.approx(float(model.weights.sum()), rel=0.01)


@pytest.mark.parametrize(("first", "last"), [(-60.0, 60.0), (-40.0, 65.0), (-90.0, 90.0)])
def test_the_tilt_range_covers_its_share_of_fourier_space(first: float, last: float) -> None:
    mask = tilt_range_mask((256, 8, 256), min_tilt=first, max_tilt=last)

    # the share of a disc, as the square of the mask has corners
    z = torch.fft.fftfreq(256)[:, None]
    x = torch.fft.rfftfreq(256)[None, :]
    disc = (z**2 + x**2 < 0.24) & (x > 0)
    assert float(mask[:, 0][disc].float().mean()) == pytest.approx((last - first) / 180, abs=0.01)


def test_a_plane_seen_at_a_tilt_is_kept_and_one_beyond_the_range_is_not() -> None:
    z, x = np.mgrid[:64, :64]
    frequency = 8 / 64
    # waves along the planes at +45 and -45 degrees from x towards z
    rising = np.cos(2 * np.pi * frequency * (x + z))
    falling = np.cos(2 * np.pi * frequency * (x - z))
    mask = tilt_range_mask((64, 1, 64), min_tilt=-30, max_tilt=60)[:, 0].numpy()

    kept = [np.fft.irfft2(np.fft.rfft2(w) * mask).std() / w.std() for w in (rising, falling)]

    assert kept == pytest.approx([1, 0], abs=1e-6)


def test_nothing_is_in_the_missing_wedge(models) -> None:
    made = simulate(models, gold=1, vesicles=1, vesicle_diameter=250, coloured_noise=0.5)
    spectrum = np.abs(np.fft.rfftn(made.volume.double().numpy()))
    mask = tilt_range_mask((48, 64, 72), min_tilt=-60, max_tilt=60).expand(-1, 64, -1).numpy()

    assert spectrum[~mask].max() < 1e-3 * spectrum[mask].mean()
    assert 0.6 < mask.mean() < 0.8


@pytest.mark.parametrize("values", [{}, {"coloured_noise": 0.6, "defocus": 30000.0}])
def test_snr_is_the_variance_inside_the_particles_over_that_of_the_noise(models, values) -> None:
    loud = simulate(models, snr=1e6, **values)
    made = simulate(models, snr=0.5, **values)
    inside = loud.labels > 0

    signal = loud.volume / math.sqrt(1e6 / 0.5)  # noise is 1400 times weaker
    noise = made.volume - signal

    assert float(noise.std()) == pytest.approx(1, abs=0.01)
    assert float(signal[inside].var()) == pytest.approx(0.5, rel=0.02)
    assert made.signal_deviation == pytest.approx(math.sqrt(0.5))


def test_protein_is_dark_unless_white_is_asked_for(models) -> None:
    dark = simulate(models, snr=20.0)
    white = simulate(models, snr=20.0, contrast="white")
    inside = dark.labels > 0

    assert float(dark.volume[inside].mean()) < -2
    assert float(white.volume[inside].mean()) > 2


def test_gold_and_membranes_do_not_change_the_contrast_of_particles(models) -> None:
    plain = simulate(models, snr=1e4, particles=2, **ROUND)
    crowded = simulate(
        models, snr=1e4, particles=2, gold=2, vesicles=1, vesicle_diameter=250, **ROUND
    )

    means = []
    for made in (plain, crowded):
        means.append(float(made.volume[(made.labels > 0) & (made.labels <= 2)].mean()))
    assert means[1] == pytest.approx(means[0], rel=0.15)


def test_gold_is_a_ball_of_its_diameter_and_darkest(models) -> None:
    made = simulate(models, snr=1e4, gold=2, gold_diameter=120.0, **ROUND)
    is_gold = made.labels == len(models) + 1

    volume = float(is_gold.sum()) * 10**3 / 2
    assert volume == pytest.approx(math.pi / 6 * 120**3, rel=0.1)
    assert float(made.volume[is_gold].mean()) < 4 * float(made.volume[made.labels == 1].mean())
    for centre in made.scene.gold:
        assert bool(is_gold[tuple(np.round(centre[::-1] / 10).astype(int))])


def test_a_bilayer_is_two_sheets_on_its_ellipsoid(models) -> None:
    made = simulate(
        models, snr=1e6, particles=0, vesicles=1, vesicle_diameter=300.0, voxel_size=5.0,
        width=128, height=128, depth=128, **ROUND,
    )  # fmt: skip
    vesicle = made.scene.vesicles[0]
    along = vesicle.rotation[0]
    reach = vesicle.semi_axes[0] + np.array([0.0, 19.0, -19.0, 45.0])
    places = (vesicle.centre + reach[:, None] * along) / 5

    middle, outer, inner, outside = ndimage.map_coordinates(
        made.volume.numpy(), places[:, ::-1].T, order=1
    )

    assert outer < middle - 0.5 * abs(outer)
    assert inner < middle - 0.5 * abs(inner)
    assert abs(outside) < 0.1 * abs(outer)


def test_distance_from_an_ellipsoid_is_exact_for_a_sphere() -> None:
    ball = Vesicle(centre=np.array([1.0, 2, 3]), semi_axes=np.full(3, 50.0), rotation=np.eye(3))
    points = np.random.default_rng(0).uniform(-100, 100, (20, 3))

    expected = np.linalg.norm(points - [1, 2, 3], axis=1) - 50

    np.testing.assert_allclose(ball.distance(points), expected, rtol=1e-9)


def test_particles_keep_their_distance_and_stay_inside(models) -> None:
    made = simulate(models, min_distance=180.0, particles=10)

    assert distances(made).min() >= 180
    radius = made.particles["diameter"].to_numpy() / 2
    for name, length in (("x", 72), ("y", 64), ("z", 48)):
        place = made.particles[name].to_numpy()
        assert (place >= radius).all()
        assert (place <= (length - 1) * 10 - radius).all()


def test_without_a_distance_particles_may_touch_but_not_overlap(models) -> None:
    made = simulate(models, particles=40)
    places, sizes = made.scene.places, made.particles["diameter"].to_numpy()
    gaps = np.linalg.norm(places[:, None] - places, axis=2) - (sizes[:, None] + sizes) / 2
    np.fill_diagonal(gaps, np.inf)

    assert 0 <= gaps.min() < 15


def test_species_are_equally_frequent_and_orientations_random(models) -> None:
    made = simulate(models, particles=40)

    assert made.particles["species"].value_counts().to_dict() == {"shell": 20, "small": 20}
    assert made.particles[["rot", "tilt", "psi"]].std().min() > 20


def test_seed_and_place_in_the_series_make_the_tomogram(models) -> None:
    first, again, second = simulate(models), simulate(models), simulate(models, index=1)

    assert torch.equal(first.volume, again.volume)
    assert not np.allclose(first.scene.places, second.scene.places)


def test_structured_noise_is_stronger_at_low_frequency(models) -> None:
    def bands(share: float) -> float:
        made = simulate(models, particles=0, coloured_noise=share)
        power = np.abs(np.fft.fftn(made.volume.numpy())) ** 2
        axes = np.meshgrid(*[np.fft.fftfreq(n) for n in power.shape], indexing="ij")
        radius = np.sqrt(sum(a**2 for a in axes))
        return float(power[radius < 0.1].mean() / power[(radius > 0.3) & (radius < 0.5)].mean())

    assert bands(0.0) == pytest.approx(1, abs=0.1)
    assert bands(0.9) > 2


def test_underfocus_takes_the_lowest_frequencies_from_particles(models) -> None:
    flat = simulate(models, snr=1e6, **ROUND)
    lens = simulate(models, snr=1e6, defocus=40000.0, **ROUND)

    def mean_over_spread(made: SimulatedTomogram) -> float:
        inside = made.volume[made.labels > 0]
        return abs(float(made.volume.mean())) / float(inside.std())

    assert mean_over_spread(lens) < 0.5 * mean_over_spread(flat)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"particles": 4000}, "particles must find room in the tomogram; got 4000, of which"),
        ({"voxel_size": 2.0}, "particles must find room"),
        ({"vesicles": 1}, "vesicle_diameter must fit into the 480 A"),
        ({"min_tilt": 5.0}, "min_tilt must be below 0 deg"),
    ],
)
def test_what_does_not_fit_is_refused(models, values, sentence) -> None:
    with pytest.raises(ParameterError, match=sentence):
        simulate(models, **values)
