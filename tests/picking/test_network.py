from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cryopick.errors import FormatError
from cryopick.picking.evaluate import match_picks
from cryopick.picking.network import MARGIN, PARTICLE, STRIDE, PickNetwork, apply_in_tiles
from cryopick.picking.network_field import prepare_network_field
from cryopick.picking.network_fit import (
    FitState,
    Found,
    TrainedModel,
    best_threshold,
    calibrate,
    find_in_field,
    fit_model,
    success,
)
from cryopick.picking.network_parameters import NetworkParameters
from cryopick.picking.network_pick import (
    PickModel,
    field_chances,
    find_centres,
    pick_network,
)
from cryopick.picking.network_training import (
    WINDOW,
    TrainingField,
    TrainingProgress,
    TrainingWindow,
    draw_window,
    risk,
)
from cryopick.pipeline.pick_models import read_model, write_model

NOTHING = np.empty((0, 2))


def blobs(seed: int, *, count: int = 40, size: int = 400, noise: float = 1.0) -> TrainingField:
    """Discs of the particle's size at places known to a fraction of a pixel, in noise."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(15, size - 15, (400, 2))
    kept: list[np.ndarray] = []
    for place in places:
        if len(kept) < count and all(np.hypot(*(place - k)) > 1.1 * PARTICLE for k in kept):
            kept.append(place)
    particles = np.array(kept)
    y, x = np.indices((size, size), dtype=np.float32)
    image = np.zeros((size, size), np.float32)
    for a, b in particles:
        away = np.hypot(y - a, x - b)
        image += 1.2 / (1 + np.exp((away - 0.4 * PARTICLE) / 1.5))
    image += noise * rng.standard_normal(image.shape).astype(np.float32)
    return TrainingField(
        image=torch.from_numpy(image),
        is_valid=torch.ones(size, size, dtype=torch.bool),
        is_known=torch.ones(size, size, dtype=torch.bool),
        particles=particles,
        rejected=NOTHING,
        ignored=NOTHING,
    )


def loud(network: PickNetwork) -> PickNetwork:
    network.head.weight.data *= 100
    return network.eval()


@pytest.mark.parametrize("tile", [48, 200, 256])
def test_tiles_do_not_show(tile: int) -> None:
    network = loud(PickNetwork(seed=3))
    field = torch.randn(213, 341, generator=torch.Generator().manual_seed(1))
    whole = apply_in_tiles(network, field, tile=4096)
    assert whole.shape == (3, 107, 171)
    assert float(whole[0].std()) > 0.1
    torch.testing.assert_close(apply_in_tiles(network, field, tile=tile), whole, atol=1e-4, rtol=0)


def test_the_margin_holds_the_receptive_field() -> None:
    network = loud(PickNetwork(seed=3))
    field = torch.full((1, 512, 512), 0.5, requires_grad=True)
    network(field)[0, :, 128, 128].sum().backward()
    assert field.grad is not None
    reached = torch.nonzero(field.grad[0]) - 128 * STRIDE
    assert int(reached.abs().max()) <= MARGIN


def test_windows_keep_marks_on_particles() -> None:
    field = blobs(1, noise=0.0)
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(20):
        window = draw_window(field, rng)
        bright = window.image.clone()
        for i, j in torch.nonzero(window.positive)[::5].tolist():
            y = STRIDE * i + float(window.way[0, i, j])
            x = STRIDE * j + float(window.way[1, i, j])
            row, column = round(y), round(x)
            if not (14 < row < WINDOW - 15 and 14 < column < WINDOW - 15):
                continue
            patch = bright[row - 13 : row + 14, column - 13 : column + 14].double()
            weight = (patch - patch.quantile(0.4)).clamp_min(0)
            steps = torch.arange(-13, 14, dtype=torch.float64)
            off = (
                row + float((weight.sum(1) * steps).sum() / weight.sum()) - y,
                column + float((weight.sum(0) * steps).sum() / weight.sum()) - x,
            )
            worst = max(worst, *map(abs, off))
    assert 0 < worst < 2.5  # px; neighbours and noise pull a little


def test_what_is_ignored_says_nothing() -> None:
    field = blobs(2)
    ignoring = TrainingField(
        image=field.image,
        is_valid=field.is_valid,
        is_known=field.is_known,
        particles=NOTHING,
        rejected=NOTHING,
        ignored=field.particles,
    )
    seen, unseen = (draw_window(f, np.random.default_rng(5)) for f in (ignoring, ignoring))
    assert not seen.positive.any()
    empty = TrainingField(**{**vars(ignoring), "ignored": NOTHING})
    without = draw_window(empty, np.random.default_rng(5))
    assert seen.unlabelled.sum() < without.unlabelled.sum()
    torch.testing.assert_close(seen.image, unseen.image)


def test_where_nothing_is_known_the_field_is_seen_and_says_nothing() -> None:
    field = blobs(2)
    unknown = replace(field, is_known=torch.zeros_like(field.is_known))
    seen, unseen = (draw_window(f, np.random.default_rng(5)) for f in (field, unknown))
    torch.testing.assert_close(seen.image, unseen.image)
    torch.testing.assert_close(seen.positive, unseen.positive)
    assert seen.unlabelled.any()
    assert not unseen.unlabelled.any()
    assert not len(find_in_field(loud(PickNetwork(seed=3)), unknown)[0])


def test_the_risk_of_half_marked_particles_is_that_of_all_marked() -> None:
    """Unmarked particles are taken out of the unlabelled with the marked ones' own loss."""
    generator = torch.Generator().manual_seed(0)
    side = 400
    is_particle = torch.rand(1, side, side, generator=generator) < 0.05
    noise = torch.randn(1, side, side, generator=generator)
    logit = torch.where(is_particle, 1.0, -2.0) + noise
    confidence = torch.tensor(1.0, requires_grad=True)  # of the network in its own logits
    answer = torch.cat([(confidence * logit)[:, None], torch.zeros(1, 2, side, side)], dim=1)
    is_marked = is_particle & (torch.rand(1, side, side, generator=generator) < 0.5)
    nothing = torch.zeros(1, side, side)

    def window(positive: torch.Tensor) -> TrainingWindow:
        marks = positive.float()
        ways = torch.zeros(1, 2, side, side)
        return TrainingWindow(nothing, marks, 1 - marks, nothing, ways, marks)

    def pull(positive: torch.Tensor, hidden_share: float) -> float:
        """Where the risk pushes the confidence."""
        value = risk(answer, window(positive), hidden_share, 0.0)
        return float(torch.autograd.grad(value, confidence, retain_graph=True)[0])

    full, half, naive = pull(is_particle, 0.0), pull(is_marked, 1.0), pull(is_marked, 0.0)
    assert half == pytest.approx(full, rel=0.05)
    assert abs(naive - full) > 0.1 * abs(full)


def test_a_weak_calibration_is_found() -> None:
    rng = np.random.default_rng(0)
    logit = rng.normal(-1, 2, 20_000)
    chance = 1 / (1 + np.exp(-(0.5 * logit + 0.7)))
    is_particle = rng.random(len(logit)) < chance
    is_marked = is_particle & (rng.random(len(logit)) < 0.4)
    found = Found(
        logit=logit,
        is_marked=is_marked,
        field=np.zeros(len(logit), int),
        n_marked=int(is_marked.sum()),
        n_fields=1,
    )
    slope, offset = calibrate(found, marked_share=0.4)
    assert slope == pytest.approx(0.5, abs=0.06)
    assert offset == pytest.approx(0.7, abs=0.15)


def test_success_orders_networks_as_f1_does_when_only_some_particles_are_marked() -> None:
    """The square of F1 where all are marked; with a share marked, that share of it."""
    rng = np.random.default_rng(3)
    truth = rng.random(4000) < 0.3
    values = []
    for contrast in (0.5, 1.5, 3.0):
        logit = contrast * truth + rng.standard_normal(4000)
        for share in (1.0, 0.3):
            is_marked = truth & (rng.random(4000) < share)
            n_marked = int(is_marked.sum())
            found = Found(
                logit=logit,
                is_marked=is_marked,
                field=np.zeros(len(logit), int),
                n_marked=n_marked,
                n_fields=1,
            )
            values.append(success(found) / share)
    full, partial = values[::2], values[1::2]
    assert full == sorted(full)
    np.testing.assert_allclose(partial, full, rtol=0.12)
    cut = max(
        2 * (truth & (logit >= t)).sum() / (truth.sum() + (logit >= t).sum())
        for t in np.linspace(-1, 4, 101)
    )
    assert full[-1] == pytest.approx(cut**2, rel=0.02)


def test_the_peaks_of_a_field_of_noise_are_no_particles() -> None:
    """A field with half the particles, all or none: the share is found from the peaks alone."""
    rng = np.random.default_rng(3)
    prior = 0.3

    def peaks(share: float) -> tuple[np.ndarray, np.ndarray]:
        is_particle = rng.random(3000) < share
        logit = np.where(is_particle, 1.5, -1.5) + 1.5 * rng.standard_normal(3000)
        evidence = 2 * 1.5 * logit / 1.5**2  # logarithm of the ratio of the two densities
        odds = np.exp(evidence) * prior / (1 - prior)
        return odds / (1 + odds), is_particle

    for share in (0.02, 0.3, 0.9):
        chance, is_particle = peaks(share)
        fair = field_chances(chance, prior=prior)
        assert fair.mean() == pytest.approx(is_particle.mean(), abs=0.03)
    chance, _ = peaks(0.0)
    assert (chance > 0.5).sum() > 100 > 3 > (field_chances(chance, prior=prior) > 0.5).sum()


def test_the_threshold_maximises_f1() -> None:
    rng = np.random.default_rng(1)
    chance = rng.beta(0.4, 0.6, 4000)
    truth = rng.random(len(chance)) < chance
    threshold = best_threshold(chance, n_true=float(truth.sum()))

    def f1(cut: float) -> float:
        kept = chance >= cut
        return float(2 * (truth & kept).sum() / (kept.sum() + truth.sum()))

    best = max(f1(c) for c in np.linspace(0.05, 0.95, 91))
    assert f1(threshold) > best - 0.01


def test_centres_are_found_below_the_grid() -> None:
    rng = np.random.default_rng(0)
    places = np.array([[40.3, 51.7], [90.9, 33.2], [120.0, 150.5]])
    steps = np.arange(100) * STRIDE
    square = (
        (places[:, None, None, :] - np.stack(np.meshgrid(steps, steps, indexing="ij"), -1)) ** 2
    ).sum(-1)
    chance = torch.from_numpy(np.exp(-square / (2 * 3.0**2)).max(0)).float()
    nearest = square.argmin(0)
    ways = places[nearest] - np.stack(np.meshgrid(steps, steps, indexing="ij"), -1)
    ways = ways + rng.normal(0, 0.3, ways.shape)
    positions, scores = find_centres(
        chance,
        torch.from_numpy(ways.transpose(2, 0, 1)).float(),
        torch.ones(200, 200, dtype=torch.bool),
        min_distance=15.0,
    )
    away = match_picks(positions.numpy(), scores.numpy(), places, radius=5.0)
    assert np.isfinite(away).sum() == 3
    assert np.nanmax(away) < 0.35


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    fields = [blobs(s) for s in range(4)]
    return fit_model(fields, [blobs(90)], network=PickNetwork(seed=1), steps=60, every=30, seed=2)


@pytest.mark.slow
def test_training_repeats(trained: TrainedModel) -> None:
    fields = [blobs(s) for s in range(4)]
    again = fit_model(fields, [blobs(90)], network=PickNetwork(seed=1), steps=60, every=30, seed=2)
    for name, values in trained.model.network.arrays().items():
        np.testing.assert_array_equal(values, again.model.network.arrays()[name])


@pytest.mark.slow
def test_training_is_the_same_with_two_threads_and_after_a_stop(trained: TrainedModel) -> None:
    fields = [blobs(s) for s in range(4)]
    states: list[FitState] = []

    class StoppedError(Exception):
        pass

    def stop(_: TrainingProgress, __: float) -> None:
        raise StoppedError

    def fit(**given: Any) -> TrainedModel:
        network = PickNetwork(seed=1)
        return fit_model(
            fields, [blobs(90)], network=network, steps=60, every=30, seed=2, threads=2, **given
        )

    with pytest.raises(StoppedError):
        fit(keep=states.append, report=stop)
    again = fit(start=states[0])
    assert [look.step for look in states[0].history] == [30]
    assert again.history == trained.history
    assert again.n_expected == trained.n_expected
    assert again.model.threshold == trained.model.threshold
    for name, values in trained.model.network.arrays().items():
        np.testing.assert_array_equal(values, again.model.network.arrays()[name])


@pytest.mark.slow
def test_a_model_that_training_spoils_is_kept(trained: TrainedModel) -> None:
    """Marks that lie beside the particles teach nothing that the fields held out agree with."""
    wrong = [replace(blobs(s), particles=blobs(s + 50).particles) for s in range(2)]
    network = trained.model.network
    given = {"steps": 4, "every": 2, "n_expected": 40.0}
    spoiled = fit_model(wrong, [blobs(90)], network=network, is_trained=True, **given)
    assert spoiled.taken.step == 0
    assert spoiled.taken.precision == trained.taken.precision
    for name, values in network.arrays().items():
        np.testing.assert_array_equal(values, spoiled.model.network.arrays()[name])

    right = fit_model(
        [blobs(s) for s in range(2)],
        [blobs(90)],
        network=PickNetwork(seed=4),
        is_trained=True,
        **given,
    )
    assert right.first is not None
    assert right.taken.success > right.first.success


@pytest.mark.slow
def test_training_finds_particles(trained: TrainedModel) -> None:
    first = trained
    assert first.taken.precision > 0.9
    unseen = blobs(91)
    positions, logit = find_in_field(first.model.network, unseen)
    sure = first.model.slope * logit + first.model.offset > np.log(
        first.model.threshold / (1 - first.model.threshold)
    )
    away = match_picks(positions[sure], logit[sure], unseen.particles, radius=0.3 * PARTICLE)
    n_right = int(np.isfinite(away).sum())
    assert 2 * n_right / (sure.sum() + len(unseen.particles)) > 0.9
    assert float(np.nanmean(away)) < 2.0


def test_a_gentle_calibration_counts_the_peaks_that_a_picker_stores() -> None:
    network, field = loud(PickNetwork(seed=3)), blobs(2)
    network.head.bias.data[0] -= 6
    calibration = {"slope": 0.2, "offset": -0.5}

    _, raw = find_in_field(network, field)
    _, stored = find_in_field(network, field, **calibration)

    assert len(stored) > len(raw) > 0
    np.testing.assert_allclose(stored[:5], raw[:5], atol=1e-3)
    answer = apply_in_tiles(network, field.image, tile=512)
    chance = torch.sigmoid(0.2 * answer[0] - 0.5)
    _, by_picker = find_centres(chance, answer[1:], field.is_known, min_distance=0.7 * PARTICLE)
    assert len(by_picker) == len(stored)


def test_a_model_comes_back_from_its_file(tmp_path: Path) -> None:
    model = PickModel(
        network=loud(PickNetwork(seed=5)), slope=1.3, offset=-0.4, threshold=0.42, prior=0.3
    )
    write_model(tmp_path / "m.npz", model, {"seed": 5})
    again, notes = read_model(tmp_path / "m.npz")
    assert notes["seed"] == 5
    assert (again.slope, again.offset, again.threshold, again.prior) == (1.3, -0.4, 0.42, 0.3)
    field = torch.randn(64, 64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        apply_in_tiles(again.network, field, tile=64), apply_in_tiles(model.network, field, tile=64)
    )


def test_a_model_that_is_none_is_refused(tmp_path: Path) -> None:
    torch.save(PickNetwork().state_dict(), tmp_path / "m.sav")
    with pytest.raises(FormatError):
        read_model(tmp_path / "m.sav")


@pytest.mark.slow
def test_picks_are_in_pixels_of_the_micrograph(trained: TrainedModel) -> None:
    """A field of twice the pixels gives the picks of the small one, at twice the places."""
    small = blobs(7)
    fine = torch.nn.functional.interpolate(
        small.image[None, None], scale_factor=2.0, mode="bilinear", align_corners=False
    )[0, 0]
    parameters = NetworkParameters(diameter=100.0, white_particles=True, mask=False)
    for image, finer in ((small.image, 1), (fine, 2)):
        found = pick_network(
            image, pixel_size=100.0 / PARTICLE / finer, parameters=parameters, model=trained.model
        )
        places = np.stack([found.y, found.x], 1)[found.is_pick]
        truth = finer * small.particles + (finer - 1) / 2
        away = match_picks(places, found.fom[found.is_pick], truth, radius=4.0 * finer)
        assert np.isfinite(away).sum() > 0.9 * len(truth)
        assert np.isfinite(away).mean() > 0.9
        assert float(np.nanmean(away)) < 1.5 * finer


def test_the_field_is_brought_to_the_size_and_scale_that_the_network_knows() -> None:
    rng = np.random.default_rng(0)
    micrograph = torch.from_numpy(rng.normal(300, 20, (600, 700)).astype(np.float32))
    field = prepare_network_field(
        micrograph,
        pixel_size=1.5,
        diameter=120.0,
        edge_distance=10.0,
        white_particles=False,
        mask=True,
    )
    assert field.search.pixel_size == pytest.approx(120.0 / PARTICLE, rel=0.03)
    assert float(field.image[field.search.is_valid].std()) == pytest.approx(1.0, abs=0.05)


def test_a_coarse_field_is_seen_at_the_size_the_network_knows() -> None:
    rng = np.random.default_rng(1)
    image = torch.from_numpy(rng.standard_normal((300, 240)).astype(np.float32))
    field = prepare_network_field(
        image,
        pixel_size=12.0,
        diameter=150.0,
        edge_distance=0.0,
        white_particles=True,
        mask=False,
    )
    assert field.search.pixel_size == pytest.approx(150 / PARTICLE, rel=0.05)
    rows = field.search.field.is_inside.any(1).nonzero()[:, 0]
    assert float(rows[0]) * field.search.field.scale[0] + field.search.field.offset[0] >= -0.5
    assert len(rows) == pytest.approx(300 * 12.0 / (150 / PARTICLE), rel=0.05)
