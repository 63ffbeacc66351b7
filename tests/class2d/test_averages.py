"""Class averages against the phantoms they were made from, and against RELION's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from average_world import PIXEL_SIZE, SIZE, make_world, phantom, rows_of

from cryopick.alignment.transform import transform_images
from cryopick.class2d.averages import (
    AverageSums,
    ClassPoses,
    finish_averages,
    merge_sums,
    soft_circle,
)
from cryopick.class2d.centring import centre_averages, centre_of_mass_shift, compose_shift
from cryopick.class2d.half_sets import (
    correlate_halves,
    crossing_resolution,
    ring_means,
    smooth_rings,
)
from cryopick.ctf.apply import apply_ctf, flip_phases
from cryopick.ctf.evaluate import evaluate_ctf
from cryopick.errors import DataError, ParameterError, ShapeError

DIAMETER = 180.0  # A


def summed(world, *, n_classes=1, **options):
    sums = AverageSums.empty(n_classes=n_classes, size=SIZE)
    sums.add(world.images, world.poses, **{"ctf": world.ctf, **options})
    return sums


def finished(sums):
    return finish_averages(sums, pixel_size=PIXEL_SIZE, mask_diameter=DIAMETER)


def frc_with_truth(average, truth):
    mask = soft_circle(SIZE, radius=DIAMETER / 2 / PIXEL_SIZE, edge=5)
    one, two = (torch.fft.rfft2(v.double() * mask) for v in (average, truth))
    return correlate_halves(one, two, size=SIZE)


def test_noise_free_particles_give_their_phantom_back():
    frc = frc_with_truth(finished(summed(make_world())).unmasked[0], phantom())

    assert frc[:26].min() > 0.99  # to 9.8 A of the 8 A that pixels allow


def test_amplitudes_of_the_phantom_come_back_too():
    average = finished(summed(make_world())).images[0].double()

    truth = phantom() * soft_circle(SIZE, radius=DIAMETER / 2 / PIXEL_SIZE, edge=5)
    assert (average - truth).square().mean().sqrt() < 0.03 * truth.square().mean().sqrt()


def test_the_axis_of_astigmatism_turns_with_the_image():
    world = make_world(40)

    right, wrong = (
        finished(summed(world, ctf=lambda turn, sign=sign: world.ctf(sign * turn))).unmasked[0]
        for sign in (1, -1)
    )

    errors = [float((a.double() - phantom()).square().mean()) for a in (right, wrong)]
    assert errors[0] < 0.2 * errors[1]


@pytest.mark.parametrize("kind", ["premultiplied", "phase-flipped"])
def test_images_treated_beforehand_give_the_same_average(kind):
    world = make_world()
    plain = world.ctf(torch.zeros(len(world.images)))

    if kind == "premultiplied":
        images, options = apply_ctf(world.images, plain), {"premultiplied": True}
    else:
        images, options = flip_phases(world.images, plain), {"ctf": lambda t: world.ctf(t).abs()}
    sums = AverageSums.empty(n_classes=1, size=SIZE)
    sums.add(images, world.poses, **{"ctf": world.ctf, **options})

    expected = finished(summed(world)).images
    torch.testing.assert_close(finished(sums).images, expected, atol=2e-3, rtol=0)


def test_without_a_ctf_the_average_is_the_mean_of_the_moved_images():
    world = make_world(30)
    sums = summed(world, ctf=None)

    moved = transform_images(
        world.images,
        psi=world.poses.psi,
        shift_x=world.poses.shift_x,
        shift_y=world.poses.shift_y,
    )
    torch.testing.assert_close(sums.images.sum((0, 1)).float(), moved.sum(0), atol=1e-4, rtol=0)
    assert sums.ctf_power.sum(0)[0, 3, 5] == 30


def test_shards_merged_equal_one_pass():
    world = make_world(50, noise=1.0, n_classes=3)
    whole = summed(world, n_classes=3)
    shards = []
    for rows in (slice(0, 7), slice(7, 31), slice(31, 50)):
        shard = AverageSums.empty(n_classes=3, size=SIZE)
        part = rows_of(world.poses, rows)
        shard.add(world.images[rows], part, ctf=lambda turn, rows=rows: world.ctf(turn, rows))
        shards.append(shard)

    merged = merge_sums(merge_sums(shards[0], shards[1]), shards[2])

    scale = float(whole.images.abs().max())
    assert (merged.images - whole.images).abs().max() < 1e-6 * scale
    torch.testing.assert_close(merged.ctf_power, whole.ctf_power, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(merged.hard_counts, whole.hard_counts)


def test_particles_turned_by_an_angle_fit_with_that_angle_taken_from_psi():
    world = make_world(40)
    angle = torch.full((40,), 30.0)
    still = torch.zeros(40)
    turned = transform_images(world.images, psi=angle, shift_x=still, shift_y=still)
    radians = math.radians(30)
    x, y = world.poses.shift_x, world.poses.shift_y
    poses = world.poses._replace(
        psi=world.poses.psi - angle,
        shift_x=math.cos(radians) * x - math.sin(radians) * y,
        shift_y=math.sin(radians) * x + math.cos(radians) * y,
    )
    sums = AverageSums.empty(n_classes=1, size=SIZE)
    sums.add(turned, poses, ctf=lambda turn: world.ctf(turn + angle))

    expected = finished(summed(world)).images
    error = (finished(sums).images - expected).square().mean().sqrt()
    assert error < 0.02 * expected.square().mean().sqrt()


@pytest.mark.parametrize("noise", [8.0, 16.0])
def test_resolution_between_halves_is_where_the_truth_is_half_met(noise):
    averages = finished(summed(make_world(400, noise=noise)))

    with_truth = smooth_rings(frc_with_truth(averages.unmasked[0], phantom())[None])
    truth = crossing_resolution(with_truth, threshold=0.5, pixel_size=PIXEL_SIZE, size=SIZE)
    rings = [SIZE * PIXEL_SIZE / float(r) for r in (averages.frc_resolution[0], truth[0])]
    assert rings[0] == pytest.approx(rings[1], abs=2.5)
    assert 4 < rings[0] < 28  # neither nothing nor everything is resolved


def test_signal_and_noise_spectra_are_those_of_the_simulation():
    noise, count = 6.0, 400
    averages = finished(summed(make_world(count, noise=noise)))

    mask = soft_circle(SIZE, radius=DIAMETER / 2 / PIXEL_SIZE, edge=5)
    mean_ctf_power = 0.5
    share = float(mask.square().mean())
    white = noise**2 / (2 * SIZE**2) * share / (count * mean_ctf_power)
    found = float(averages.sigma2[0, 15:28].mean())
    assert found == pytest.approx(white, rel=0.25)
    truth = torch.fft.rfft2(phantom() * mask).abs().square() / (2 * SIZE**4)
    signal = ring_means(truth, size=SIZE)[4:12]
    torch.testing.assert_close(averages.tau2[0, 4:12], signal, rtol=0.4, atol=0)
    ratio = 2 * averages.tau2 / averages.sigma2
    torch.testing.assert_close(averages.ssnr, ratio, rtol=1e-6, atol=1e-12)


def test_noise_alone_is_damped():
    world = make_world(200, noise=8.0)
    world.poses.psi.copy_(360 * torch.rand(200, generator=torch.Generator().manual_seed(9)))
    averages = finished(summed(world))

    plain = summed(world).images.sum((0, 1)) / summed(world).ctf_power.sum((0, 1)).mean()
    f = torch.fft.rfft2(plain * soft_circle(SIZE, radius=22.5, edge=5)).abs().square()
    kept = torch.fft.rfft2(averages.images[0].double()).abs().square()
    assert kept[20:44].sum() < 0.1 * f[20:44].sum()


def test_empty_classes_are_zero_and_counted_so():
    world = make_world(30, n_classes=2)
    averages = finished(summed(world, n_classes=4))

    assert averages.hard_counts.tolist() == [16, 14, 0, 0]
    assert not averages.images[2:].any()
    assert not averages.unmasked[2:].any()
    assert averages.estimated_resolution[2:].isinf().all()
    assert averages.frc_resolution[2:].isinf().all()
    for values in (averages.frc, averages.ssnr, averages.sigma2, averages.tau2):
        assert torch.isfinite(values).all()
        assert not values[2:].any()


def test_a_class_of_one_particle_still_shows_it():
    world = make_world(41, noise=0.3)
    world.poses.class_index[-1] = 1
    averages = finished(summed(world, n_classes=2))

    seen = frc_with_truth(averages.unmasked[1], phantom())
    assert averages.hard_counts.tolist() == [40, 1]
    assert seen[3:6].min() > 0.8


def test_weights_and_members_are_counted_apart_and_left_out_ones_not_at_all():
    world = make_world(6, n_classes=2)
    weight = torch.tensor([0.5, 1.0, 0.25, 0.75, 1.0, 1.0])
    is_best = torch.tensor([True, True, False, True, True, True])
    class_index = torch.tensor([0, 0, 1, 1, -1, 0])
    poses = world.poses._replace(class_index=class_index, weight=weight, is_best=is_best)

    sums = AverageSums.empty(n_classes=2, size=SIZE)
    sums.add(world.images, poses, ctf=world.ctf)

    assert sums.soft_counts.sum(0).tolist() == [2.5, 1.0]
    assert sums.hard_counts.tolist() == [[1, 0], [2, 1]]  # even and odd particles


def test_noisier_images_count_less():
    world = make_world(40)
    broken = world.images.clone()
    broken[::3] += 20 * torch.randn(14, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    noise = torch.ones(40, SIZE // 2 + 1)
    noise[::3] = 1e4
    sums = AverageSums.empty(n_classes=1, size=SIZE)
    sums.add(broken, world.poses, ctf=world.ctf, noise=noise)

    assert frc_with_truth(finished(sums).unmasked[0], phantom())[:20].min() > 0.98


def test_an_image_with_several_poses_is_shared_among_them():
    world = make_world(12)
    twice = ClassPoses(*(None if v is None else torch.cat([v, v]) for v in world.poses))
    shares = torch.cat([torch.full((12,), 0.3), torch.full((12,), 0.7)])
    sums = AverageSums.empty(n_classes=1, size=SIZE)
    sums.add(
        torch.cat([world.images] * 2),
        twice._replace(weight=shares),
        ctf=lambda turn: (
            torch.cat([world.ctf(turn[:12]), world.ctf(turn[12:])])
            if len(turn) == 24
            else world.ctf(turn)
        ),
    )

    torch.testing.assert_close(sums.images, summed(world).images, atol=1e-4, rtol=0)
    torch.testing.assert_close(sums.soft_counts, summed(world).soft_counts)


def test_no_particles_make_only_empty_classes():
    averages = finished(AverageSums.empty(n_classes=2, size=16))

    assert averages.images.shape == (2, 16, 16)
    assert not averages.images.any()


def test_bad_input_is_refused():
    world = make_world(4)
    sums = AverageSums.empty(n_classes=1, size=SIZE)
    damaged = world.images.clone()
    damaged[1, 2, 3] = math.nan

    with pytest.raises(DataError, match="images must hold finite numbers"):
        sums.add(damaged, world.poses)
    with pytest.raises(ParameterError, match="class_index must be below the number of classes, 1"):
        sums.add(world.images, world.poses._replace(class_index=torch.tensor([0, 0, 1, 0])))
    with pytest.raises(ShapeError, match="ctf must give"):
        sums.add(world.images, world.poses, ctf=lambda turn: torch.ones(len(turn), 8, 5))
    with pytest.raises(ShapeError, match="images must have shape"):
        sums.add(world.images[:, :32, :32], world.poses)
    with pytest.raises(ShapeError, match="sums of two shards"):
        merge_sums(sums, AverageSums.empty(n_classes=2, size=SIZE))
    assert not sums.images.any()


def test_the_centre_of_mass_comes_to_the_centre():
    averages = torch.stack([phantom(), phantom(shift_x=4.0, shift_y=-3.0), torch.zeros(64, 64)])

    x, y = centre_of_mass_shift(averages, max_shift=10.0)
    again = centre_of_mass_shift(centre_averages(averages, shift_x=x, shift_y=y), max_shift=10.0)

    assert float(x[1] - x[0]) == pytest.approx(4.0, abs=0.01)
    assert float(y[1] - y[0]) == pytest.approx(-3.0, abs=0.01)
    assert max(v.abs().max() for v in again) < 0.05
    assert x[2] == 0
    assert y[2] == 0


def test_centring_is_limited_and_negative_density_has_no_mass():
    average = phantom(shift_x=6.0, shift_y=8.0)[None]
    hole = torch.zeros(1, 64, 64, dtype=torch.float64)
    hole[0, 2:6, 2:6] = -100

    x, y = centre_of_mass_shift(average + hole, max_shift=2.0)
    far = centre_of_mass_shift(average, max_shift=100.0)

    assert math.hypot(float(x), float(y)) == pytest.approx(2.0)
    assert math.hypot(float(far[0]), float(far[1])) > 8
    assert float(x * far[1]) == pytest.approx(float(y * far[0]), rel=1e-4)


def test_density_outside_of_the_mask_does_not_move_the_centre():
    average = phantom()[None]
    neighbour = torch.zeros(1, 64, 64, dtype=torch.float64)
    neighbour[0, 28:36, 60:] = 5

    found = centre_of_mass_shift(average + neighbour, max_shift=9.0, mask_radius=26.0)

    expected = centre_of_mass_shift(average, max_shift=9.0, mask_radius=26.0)
    assert found == expected
    assert centre_of_mass_shift(average + neighbour, max_shift=9.0)[0] < expected[0] - 1


def test_members_follow_their_class_when_it_is_shifted():
    world = make_world(40)
    class_shift = (2.3, -1.7)
    c = [torch.full((40,), v) for v in class_shift]
    p = world.poses
    x, y = compose_shift(p.psi, p.shift_x, p.shift_y, class_shift_x=c[0], class_shift_y=c[1])
    sums = AverageSums.empty(n_classes=1, size=SIZE)
    sums.add(world.images, p._replace(shift_x=x, shift_y=y), ctf=world.ctf)

    found = finished(sums).unmasked[0]

    truth = phantom(shift_x=-class_shift[0], shift_y=-class_shift[1])
    assert frc_with_truth(found, truth)[:20].min() > 0.99


@pytest.mark.data
def test_relions_assignments_give_relions_averages(test_data):
    starfile = pytest.importorskip("starfile")
    mrcfile = pytest.importorskip("mrcfile")
    job = test_data / "relion5" / "Class2D" / "job003"
    table = starfile.read(job / "run_it025_data.star")["particles"]
    classes = starfile.read(job / "run_it025_model.star")["model_classes"]
    theirs = torch.from_numpy(mrcfile.read(job / "run_it025_classes.mrcs").copy())
    stack = mrcfile.read(test_data / "stacks" / "groel_es" / "particles.mrcs")
    rows = table["rlnImageName"].str.split("@").str[0].astype(int).to_numpy() - 1

    def column(name):
        return torch.tensor(table[name].to_numpy(np.float32))

    def ctf(turn):
        return evaluate_ctf(
            (64, 64),
            pixel_size=4.0,
            defocus_u=column("rlnDefocusU"),
            defocus_v=column("rlnDefocusV"),
            defocus_angle=column("rlnDefocusAngle") + turn,
            voltage=300.0,
            spherical_aberration=2.7,
            amplitude_contrast=0.1,
        )

    def averages_with(sign):
        poses = ClassPoses(
            torch.from_numpy(rows),
            torch.tensor(table["rlnClassNumber"].to_numpy(np.int64)) - 1,
            sign * column("rlnAnglePsi"),
            column("rlnOriginXAngst") / 4,
            column("rlnOriginYAngst") / 4,
        )
        sums = AverageSums.empty(n_classes=20, size=64)
        sums.add(torch.from_numpy(stack[rows]), poses, ctf=ctf)
        return finish_averages(sums, pixel_size=4.0, mask_diameter=230.0)

    ours, wrong = averages_with(1), averages_with(-1)

    large = torch.nonzero(ours.hard_counts > 30).ravel().tolist()
    resolutions = classes["rlnEstimatedResolution"].to_numpy(float)
    assert len(large) == 8
    for index in large:
        there = low_passed(theirs[index], resolutions[index])
        assert correlation(low_passed(ours.images[index], resolutions[index]), there) > 0.97
        assert correlation(low_passed(wrong.images[index], resolutions[index]), there) < 0.96
        assert float(ours.estimated_resolution[index]) == pytest.approx(
            resolutions[index], rel=0.15
        )


def low_passed(image, resolution):
    f = torch.fft.fftfreq(64, 4.0)
    kept = torch.hypot(f[:, None], f[None, :33].abs()) <= 1 / resolution
    return torch.fft.irfft2(torch.fft.rfft2(image) * kept, s=(64, 64))


def correlation(one, two):
    return float(torch.corrcoef(torch.stack([one.ravel(), two.ravel()]))[0, 1])
