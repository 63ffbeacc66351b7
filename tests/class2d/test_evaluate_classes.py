from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import map_coordinates

from cryopick.class2d.coherence import Poses, move_images
from cryopick.class2d.evaluate import evaluate_classes, junk_separation
from cryopick.class2d.ring_correlation import ring_resolution
from cryopick.class2d.truth import ClassTruth, view_spread
from cryopick.errors import ParameterError, ShapeError, TableError
from cryopick.pipeline.evaluate_classes import read_class_truth
from cryopick.simulation.orientations import euler_matrices, point_group
from cryopick.tables.relion import read_particles

SIZE, PIXEL_SIZE, BLUR = 32, 4.0, 1.6
VIEWS, COPIES = 4, 25


def turn(psi):
    """x towards y, deg."""
    c, s = np.cos(np.deg2rad(psi)), np.sin(np.deg2rad(psi))
    return np.moveaxis(np.array([[c, -s], [s, c]]), (0, 1), (-2, -1))


def spots(points_xy, size=SIZE):
    """Gaussian spots at places given from the centre, px."""
    y, x = np.indices((size, size)) - size // 2
    away2 = (x - points_xy[:, 0, None, None]) ** 2 + (y - points_xy[:, 1, None, None]) ** 2
    return np.exp(-away2 / 2 / BLUR**2).sum(0)


@pytest.fixture(scope="module")
def made():
    """Four shapes of twelve spots in 25 poses each, five pieces of junk, and what undoes them."""
    draw = np.random.default_rng(3)
    shapes = draw.uniform(-8, 8, (VIEWS, 12, 2))
    shape = np.repeat(np.arange(VIEWS), COPIES)
    psi = draw.uniform(-180, 180, len(shape))
    offset = draw.normal(0, 1.5, (len(shape), 2))
    # a point p of the class lies in the image where R(psi) (x + offset) = p
    clean = [spots(shapes[s] @ turn(a) - o) for s, a, o in zip(shape, psi, offset, strict=True)]
    junk = np.zeros((5, SIZE, SIZE))
    is_junk = np.arange(len(shape) + 5) >= len(shape)
    truth = ClassTruth(
        clean=torch.from_numpy(np.concatenate([clean, junk]).astype(np.float32)),
        label=np.where(is_junk, 0, np.append(shape, [0] * 5) // 2),
        is_junk=is_junk,
        pixel_size=PIXEL_SIZE,
        view=np.append(shape, [0] * 5),
        species=("large", "small"),
    )
    table = pd.DataFrame(
        {
            "image_index": np.arange(len(is_junk)),
            "class_number": np.append(shape, [4] * 5) + 1,
            "psi": np.append(psi, [0.0] * 5),
            "shift_x": np.append(offset[:, 0], [0.0] * 5) * PIXEL_SIZE,
            "shift_y": np.append(offset[:, 1], [0.0] * 5) * PIXEL_SIZE,
        }
    )
    return table, truth, shapes


@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize(("psi", "x", "y"), [(0, 0, 0), (90, 3, 0), (-30, 1.5, -2.25), (200, 0, 4)])
def test_a_point_is_shifted_and_then_turned_from_x_towards_y(size, psi, x, y):
    points = np.array([[5.0, 1.0], [-3.0, 4.0]])
    image = torch.from_numpy(spots(points, size))[None]
    poses = Poses(psi=np.array([float(psi)]), shift_x=np.array([x]), shift_y=np.array([y]))

    moved = move_images(image, poses)[0].numpy()

    wanted = spots((points + np.array([x, y])) @ turn(psi).T, size)
    assert np.abs(moved - wanted).max() < 0.1  # of 1, by interpolation
    assert np.corrcoef(moved.ravel(), wanted.ravel())[0, 1] > 0.998


def test_a_mirror_comes_after_the_turn():
    points = np.array([[5.0, 1.0], [-3.0, 4.0]])
    image = torch.from_numpy(spots(points, 32))[None]
    pose = {"psi": np.array([40.0]), "shift_x": np.array([2.0]), "shift_y": np.array([-1.0])}

    moved = move_images(image, Poses(**pose, mirror=np.array([True])))[0].numpy()

    wanted = (points + np.array([2.0, -1.0])) @ turn(40.0).T * np.array([-1.0, 1.0])
    assert np.corrcoef(moved.ravel(), spots(wanted, 32).ravel())[0, 1] > 0.998


def test_right_classes_with_right_poses_are_coherent_and_all_of_views(made):
    table, truth, _ = made

    result = evaluate_classes(table, truth)

    assert result.total.coherence > 0.98
    assert result.total.coherence_all == pytest.approx(result.total.coherence)
    assert (result.total.n_classes, result.total.n_view_classes) == (5, 4)
    assert result.total.occupied_by_views == pytest.approx(0.8)
    assert result.total.n_junk_classes == 1
    assert result.total.junk_auc == 1
    assert result.total.species_purity == 1
    assert result.total.accounted == 1
    assert result.total.median_size == COPIES
    assert result.classes["species"].tolist() == ["large", "large", "small", "small", ""]


@pytest.mark.parametrize("column", ["psi", "shift_x", "shift_y"])
def test_a_pose_of_the_other_sign_costs_coherence(made, column):
    table, truth, _ = made

    wrong = evaluate_classes(table.assign(**{column: -table[column]}), truth)

    assert wrong.total.coherence < 0.9


def slow_coherence(clean, table):
    """Image by image with scipy and numpy, in float64."""
    n = clean.shape[-1]
    steps = np.arange(n) - n // 2
    y, x = np.meshgrid(steps, steps, indexing="ij")
    mask = np.hypot(y, x) < 0.48 * n
    k2 = np.fft.fftfreq(n)[:, None] ** 2 + np.fft.fftfreq(n)[None, :] ** 2
    moved = []
    for image, row in zip(clean, table.itertuples(), strict=True):
        passed = np.fft.ifft2(np.fft.fft2(image) * -np.expm1(-k2 * 2 * (0.2 * n) ** 2)).real
        back = turn(-row.psi)
        at_x, at_y = back[0, 0] * x + back[0, 1] * y, back[1, 0] * x + back[1, 1] * y
        places = [
            at_y - row.shift_y / PIXEL_SIZE + n // 2,
            at_x - row.shift_x / PIXEL_SIZE + n // 2,
        ]
        moved.append(map_coordinates(passed, places, order=1, mode="grid-constant")[mask])
    units = [(m - m.mean()) / np.linalg.norm(m - m.mean()) for m in moved]
    return [
        np.corrcoef(u, sum(v for j, v in enumerate(units) if j != i))[0, 1]
        for i, u in enumerate(units)
    ]


def test_coherence_is_the_correlation_with_the_mean_of_the_others(made):
    table, truth, _ = made
    mixed = table.iloc[:60:6].assign(class_number=2)
    clean = truth.clean.double().numpy()[mixed["image_index"]]

    result = evaluate_classes(mixed, truth)

    np.testing.assert_allclose(result.coherence, slow_coherence(clean, mixed), atol=2e-5)


def test_neither_batches_nor_the_order_of_rows_nor_half_precision_matter(made):
    table, truth, _ = made
    shuffled = table.sample(frac=1, random_state=1)
    half = dataclasses.replace(truth, clean=truth.clean.half())

    whole = evaluate_classes(table, truth).total.to_dict()

    for result in (
        evaluate_classes(table, truth, batch_size=3),
        evaluate_classes(shuffled, truth),
        evaluate_classes(table, half),
    ):
        close = result.total.to_dict()
        chance = close.pop("chance"), whole["chance"]
        assert chance[0] == pytest.approx(chance[1], abs=0.05)  # another draw
        assert close == pytest.approx({k: v for k, v in whole.items() if k != "chance"}, abs=1e-3)


def test_random_classes_are_as_coherent_as_chance_and_no_views(made):
    table, truth, _ = made
    draw = np.random.default_rng(0)
    number = draw.permutation(np.arange(len(table)) % 8 + 1)
    table = table.assign(class_number=number, psi=draw.uniform(-180, 180, len(table)))

    result = evaluate_classes(table, truth)

    assert result.total.coherence == pytest.approx(result.total.chance, abs=0.05)
    assert result.total.n_view_classes == 0
    assert result.total.n_occupied == 8


def test_class_0_and_rows_left_out_are_not_accepted(made):
    table, truth, _ = made
    number = table["class_number"].where(table["class_number"] != 2, 0)
    table = table.assign(class_number=number)[table["class_number"] != 3]

    result = evaluate_classes(table, truth)

    assert result.total.accounted == pytest.approx(0.5)
    assert result.total.coherence > 0.98
    assert result.total.coherence_all == pytest.approx(result.total.coherence / 2)
    assert result.total.n_occupied == 3
    assert np.isnan(result.coherence[COPIES : 2 * COPIES]).all()


def test_a_class_of_one_has_no_coherence(made):
    table, truth, _ = made

    result = evaluate_classes(table.iloc[[0]], truth)

    assert result.total.coherence == 0
    assert result.total.junk_auc is None
    assert result.total.n_view_classes == 0


def test_a_table_of_junk_alone_is_scored(made):
    table, truth, _ = made

    total = evaluate_classes(table.iloc[-5:], truth).total

    assert (total.coherence, total.coherence_all, total.accounted) == (None, 0, 0)
    assert (total.n_occupied, total.n_junk_classes, total.n_view_classes) == (1, 1, 0)


def test_junk_separation_is_the_share_of_pairs_in_the_right_order():
    draw = np.random.default_rng(0)
    is_junk = draw.random(200) < 0.3
    number = draw.integers(0, 12, 200)
    share = np.array([is_junk[number == n].mean() for n in number])
    junk, true = share[is_junk][:, None], share[~is_junk][None, :]

    assert junk_separation(is_junk, number) == pytest.approx(
        (junk > true).mean() + 0.5 * (junk == true).mean()
    )
    assert junk_separation(is_junk, is_junk.astype(int)) == 1
    assert junk_separation(is_junk, np.zeros(200, int)) == 0.5
    assert junk_separation(np.zeros(200, bool), number) is None


def test_a_rare_view_counts_only_in_a_class_of_its_own(made):
    table, truth, _ = made
    view = truth.view.copy()
    view[:4] = 9  # four of the first shape: 4 %, of 5 groups
    truth = dataclasses.replace(truth, view=view)
    apart = table.assign(class_number=np.where(table.index < 3, 6, table["class_number"]))

    mixed = evaluate_classes(table, truth, min_size=4)
    found = evaluate_classes(apart, truth, min_size=4)

    assert mixed.rare_groups["group"].tolist() == ["large, view 9"]
    assert mixed.total.rare_recall == 0
    assert found.total.rare_recall == pytest.approx(3 / 4)
    assert evaluate_classes(apart, truth).total.rare_recall is None  # 4 are too few to tell


def test_a_rare_species_is_one_group_whatever_its_views(made):
    table, truth, _ = made
    label = np.zeros_like(truth.label)
    label[:4] = 1
    truth = dataclasses.replace(truth, label=label, view=np.arange(len(label)) % 2)
    table = table.assign(class_number=np.where(table.index < 4, 6, table["class_number"]))

    result = evaluate_classes(table, truth, min_size=2)

    assert result.rare_groups["group"].tolist() == ["small"]
    assert result.total.rare_recall == 1
    assert result.total.species_purity == 1


def test_evenly_spread_views_are_not_rare_however_many_there_are(made):
    table, truth, _ = made
    truth = dataclasses.replace(truth, view=np.arange(len(truth.view)) % 25)

    assert not len(evaluate_classes(table, truth, min_size=2).rare_groups)


def test_views_spread_by_their_angle_and_not_by_symmetry():
    tilts = euler_matrices(np.array([[0, 90, 5], [0, 90, 80], [30, 90, -60]], float))
    alike = euler_matrices(np.array([[0, 90, 0], [60, 90, 10], [120, 90, 20]], float))

    assert view_spread(tilts, np.eye(3)[None]) == pytest.approx(15)  # 0 and 30 deg from the middle
    assert view_spread(alike, point_group("C6")) == pytest.approx(0, abs=1e-4)
    assert view_spread(alike, np.eye(3)[None]) == pytest.approx(60)
    assert math.isnan(view_spread(alike[:1], np.eye(3)[None]))


def test_random_views_spread_by_about_a_right_angle():
    draw = np.random.default_rng(0)
    tilt = np.rad2deg(np.arccos(draw.uniform(-1, 1, 4000)))
    angles = np.stack([draw.uniform(-180, 180, 4000), tilt, tilt], 1)

    assert view_spread(euler_matrices(angles), np.eye(3)[None]) == pytest.approx(88, abs=2)


@pytest.mark.parametrize("ring", [6, 12, 20])
def test_resolution_is_where_two_images_part(ring):
    generator = torch.Generator().manual_seed(1)
    one, other = torch.randn(2, 64, 64, generator=generator)
    k = torch.fft.fftfreq(64, 1 / 64)
    is_low = torch.hypot(k[:, None], k[None, :]) < ring
    both = torch.where(is_low, torch.fft.fft2(one), torch.fft.fft2(other))
    mixed = torch.fft.ifft2(both).real

    found = ring_resolution(mixed, one, pixel_size=3.0)

    assert 64 * 3.0 / found == pytest.approx(ring, abs=0.7)
    assert ring_resolution(one, 2 * one, pixel_size=3.0) == 6.0
    assert ring_resolution(-one, one, pixel_size=3.0) == 64.0


def test_averages_are_held_against_what_their_members_are(made):
    table, truth, shapes = made
    averages = torch.from_numpy(np.stack([spots(s) for s in shapes]))
    swapped = averages[[1, 0, 2, 3]]

    right = evaluate_classes(table, truth, averages=averages)
    wrong = evaluate_classes(table, truth, averages=swapped)

    assert right.total.resolution < 5 * PIXEL_SIZE
    assert (wrong.classes["resolution"] > 2 * right.classes["resolution"]).tolist()[:4] == [
        True,
        True,
        False,
        False,
    ]


def test_what_cannot_be_scored_is_refused(made):
    table, truth, _ = made

    with pytest.raises(TableError, match="class_number"):
        evaluate_classes(table.drop(columns="class_number"), truth)
    with pytest.raises(TableError, match="be among the 105 of the truth; got image 106"):
        evaluate_classes(table.replace({"image_index": {104: 105}}), truth)
    with pytest.raises(TableError, match="be named once; got image 3 2 times"):
        evaluate_classes(table.replace({"image_index": {104: 2}}), truth)
    with pytest.raises(TableError, match="be finite"):
        evaluate_classes(table.assign(psi=np.nan), truth)
    with pytest.raises(
        ParameterError, match=r"classes must be at least the highest class number \(5\); got 4"
    ):
        evaluate_classes(table, truth, n_classes=4)
    with pytest.raises(ParameterError, match="min_size must be above 1"):
        evaluate_classes(table, truth, min_size=1)
    with pytest.raises(ShapeError, match="averages must have shape"):
        evaluate_classes(table, truth, averages=torch.zeros(5, 16, 16))
    with pytest.raises(ShapeError, match="label"):
        dataclasses.replace(truth, label=truth.label[1:])


@pytest.mark.data
def test_relions_own_result_has_its_known_scores_under_our_sign_of_poses(test_data):
    truth = read_class_truth(test_data / "stacks" / "groel_es")
    job = test_data / "relion5" / "Class2D" / "job003"
    rows = read_particles(job / "run_it025_data.star").rows

    total = evaluate_classes(rows, truth).total
    turned = evaluate_classes(rows.assign(psi=-rows["psi"]), truth).total
    shifted = rows.assign(shift_x=-rows["shift_x"], shift_y=-rows["shift_y"])

    assert total.coherence == pytest.approx(0.591, abs=0.002)  # as the data's README has it
    assert total.junk_auc == pytest.approx(0.893, abs=0.0005)
    assert total.n_occupied == 18
    assert turned.coherence < 0.4
    assert evaluate_classes(shifted, truth).total.coherence < 0.4
