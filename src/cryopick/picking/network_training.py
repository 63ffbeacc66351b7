"""Train the picking network on fields with some of their particles marked.

Not all particles are marked, so what is not marked is not taken for empty: the risk is that of
learning from positive and unlabelled examples, kept from falling below zero (Kiryo et al.,
NeurIPS 2017), with the share of unmarked particles given or estimated as training goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cryopick.image.robust import middle_and_spread
from cryopick.picking.network import PARTICLE, STRIDE, PickNetwork
from cryopick.picking.network_learner import DECAY, Learner, LearnerState, one_core

__all__ = [
    "POSITIVE",
    "RATE",
    "TrainingField",
    "TrainingProgress",
    "TrainingWindow",
    "draw_window",
    "fit_network",
]

WINDOW = 160  # px, side of what is learned from at once
_BATCH = 8
RATE, _WARM = 2e-3, 0.05
_MARKED = 0.13  # diameters: the centre lies at most so far from a grid point that says yes
_SPARED = 0.35  # diameters: grid points nearer than this, but not at the centre, say nothing
_IGNORED = 0.6  # diameters about what may or may not be a particle
_WAY = 0.02  # weight of the way to the centre in the loss, px
POSITIVE = 4.0  # weight of what is marked; the calibration takes it out of the logits
_ON_PARTICLE = 0.6  # share of the windows that are laid about a marked particle
_SCALES = (0.87, 1.15)
_SMOOTH_SHARE, _SMOOTH = 0.2, (0.5, 2.5)  # of the windows; px rms
_CLIP = 6.0  # deviations, as fields are clipped

Points = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class TrainingField:
    """A field as the network sees it, and what is known of it."""

    image: Tensor  # (y, x) float32
    is_valid: Tensor  # (y, x) bool
    is_known: Tensor  # (y, x) bool: where a particle might have been marked
    particles: Points  # (n, 2) y and x, px: marked particles
    rejected: Points  # (m, 2): what was picked and is probably none
    ignored: Points  # (k, 2): what may or may not be one
    particle_weights: Points | None = None  # (n,) how much each counts; 1 if None
    rejected_weights: Points | None = None  # (m,) as above


class TrainingWindow(NamedTuple):
    """Windows to learn from, on the grid of the network's answer where not said otherwise."""

    image: Tensor  # (b, WINDOW, WINDOW) px
    positive: Tensor  # (b, g, g) 0 or 1: at a marked particle
    unlabelled: Tensor  # (b, g, g) 0..1: weight of what is not known
    rejected: Tensor  # (b, g, g): weight of what is probably none
    way: Tensor  # (b, 2, g, g) px to the nearest marked centre
    weight: Tensor  # (b, g, g) how much a marked particle counts; 0 elsewhere


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """Where training stands."""

    step: int
    steps: int
    loss: float  # mean since the last report


def fit_network(
    fields: Sequence[TrainingField],
    *,
    network: PickNetwork,
    steps: int,
    hidden_share: Callable[[], float],
    rejected_weight: float = 0.5,
    rate: float = RATE,
    decay: float = DECAY,
    seed: int = 0,
    every: int = 100,
    threads: int = 1,
    start: LearnerState | None = None,
    report: Callable[[TrainingProgress, Learner], bool] | None = None,
) -> PickNetwork:
    """Train a network; the one given is left as it is.

    Parameters
    ----------
    fields
        What to learn from; windows are drawn from each as its particles say.
    network
        To begin from; training runs on its device.
    steps
        Of 8 windows each, at most.
    hidden_share
        Called at each report: particles that are not marked over those that are.
    rejected_weight
        How much a rejected particle counts as none.
    rate
        Largest rate of learning (AdamW, along a cosine).
    decay
        Of the weights, per step and rate.
    seed
        Of all random choices.
    every
        Steps between reports.
    threads
        To compute with on the CPU; the result does not depend on them.
    start
        State at a report of the same training, to go on from.
    report
        Called with where training stands and what learns; True ends it.
    """
    chances = _chances(fields)
    generator = np.random.default_rng([seed, 7])
    with one_core(), Learner(network, generator, threads=threads, decay=decay) as learner:
        if start is not None:
            learner.take_up(start)
        total = 0.0
        while learner.step < steps:
            if learner.step % every == 0:
                share = hidden_share()
            window = _draw_batch(fields, generator, chances, learner.device)
            pace = rate * _pace(learner.step / steps)
            total += learner.learn(
                window.image, partial(_risk_of, window, share, rejected_weight), rate=pace
            )
            if learner.step % every == 0 or learner.step == steps:
                since = (learner.step - 1) % every + 1
                now = TrainingProgress(step=learner.step, steps=steps, loss=total / since)
                total = 0.0
                if report is not None and report(now, learner):
                    break
        return learner.network.eval()


def _draw_batch(
    fields: Sequence[TrainingField],
    generator: np.random.Generator,
    chances: NDArray[np.float64],
    device: torch.device,
) -> TrainingWindow:
    chosen = generator.choice(len(fields), size=_BATCH, p=chances)
    drawn = [draw_window(fields[k], generator) for k in chosen]
    return TrainingWindow(*(torch.stack(parts).to(device) for parts in zip(*drawn, strict=True)))


def _risk_of(
    window: TrainingWindow, hidden_share: float, rejected_weight: float, answer: Tensor
) -> Tensor:
    return risk(answer, window, hidden_share, rejected_weight)


def risk(
    answer: Tensor, window: TrainingWindow, hidden_share: float, rejected_weight: float
) -> Tensor:
    """Positive-unlabelled risk of an answer, and how far its ways miss the centres.

    Parameters
    ----------
    answer
        (b, 3, g, g) of the network.
    window
        What is known there.
    hidden_share
        Particles that are not marked over those that are.
    rejected_weight
        How much a rejected particle counts as none.
    """
    logit, positive = answer[:, 0], window.positive
    yes, no = functional.softplus(-logit), functional.softplus(logit)
    area = window.unlabelled.sum() + positive.sum() + 1e-6
    marked = (yes * window.weight).sum() / area
    marked_as_empty = (no * positive).sum() / area
    unknown_as_empty = (no * window.unlabelled).sum() / area
    empty = (unknown_as_empty - hidden_share * marked_as_empty).clamp_min(0)
    rejected = rejected_weight * (no * window.rejected).sum() / area
    miss = ((answer[:, 1:] - window.way).abs().sum(1) * positive).sum() / (positive.sum() + 1e-6)
    return POSITIVE * (1 + hidden_share) * marked + empty + rejected + _WAY * miss * 0.1


def _pace(progress: float) -> float:
    if progress < _WARM:
        return progress / _WARM + 0.02
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - _WARM) / (1 - _WARM)))) + 0.01


def _chances(fields: Sequence[TrainingField]) -> NDArray[np.float64]:
    """How often each field is drawn: between alike and as its particles are many."""
    counts = np.array([len(f.particles) + 5.0 for f in fields])
    chances = np.sqrt(counts)
    return np.asarray(chances / chances.sum())


def draw_window(field: TrainingField, generator: np.random.Generator) -> TrainingWindow:
    """Cut a window at random, turn, mirror and scale it, and change its contrast and spectrum.

    Parameters
    ----------
    field
        To cut from; beyond its edge there is nothing.
    generator
        Source of randomness.
    """
    scale = float(np.exp(generator.uniform(*np.log(_SCALES)))) if generator.random() < 0.5 else 1.0
    corner = _draw_corner(field, WINDOW * scale, generator)
    if scale == 1.0:
        corner = np.round(corner)  # no interpolation then
    image, valid, known = _cut(field, corner, scale)
    turn, mirror = int(generator.integers(4)), bool(generator.random() < 0.5)
    placed = [
        _turn_points((points - corner) / scale, turn, mirror=mirror)
        for points in (field.particles, field.rejected, field.ignored)
    ]
    image, valid, known = (_turn_image(i, turn, mirror=mirror) for i in (image, valid, known))
    image = _vary(image, generator) * (valid > 0.5)
    weights = field.particle_weights, field.rejected_weights
    return _label(image, valid > 0.5, known > 0.5, placed, weights)


def _draw_corner(field: TrainingField, side: float, generator: np.random.Generator) -> Points:
    shape = np.array(field.image.shape, np.float64)
    if len(field.particles) and generator.random() < _ON_PARTICLE:
        middle = field.particles[generator.integers(len(field.particles))]
        corner = middle - side / 2 + generator.uniform(-0.45, 0.45, 2) * side
    else:
        corner = generator.uniform(0, 1, 2) * np.maximum(shape - side, 0)
    return np.asarray(np.clip(corner, np.minimum(0, shape - side), np.maximum(shape - side, 0)))


def _cut(field: TrainingField, corner: Points, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Window of the field, (WINDOW, WINDOW), where it is valid and known; from the corner on."""
    height, width = field.image.shape
    steps = torch.arange(WINDOW, dtype=torch.float32) * scale
    y, x = float(corner[0]) + steps, float(corner[1]) + steps
    grid = torch.stack(
        [
            (2 * x / max(1, width - 1) - 1)[None, :].expand(WINDOW, WINDOW),
            (2 * y / max(1, height - 1) - 1)[:, None].expand(WINDOW, WINDOW),
        ],
        dim=-1,
    )
    layers = torch.stack([field.image, field.is_valid.float(), field.is_known.float()])
    cut: Tensor = functional.grid_sample(layers[None], grid[None], align_corners=True)[0]
    return cut[0], cut[1], cut[2]


def _turn_image(image: Tensor, turn: int, *, mirror: bool) -> Tensor:
    turned: Tensor = torch.rot90(image, turn, (0, 1))
    return turned.flip(1) if mirror else turned


def _turn_points(points: Points, turn: int, *, mirror: bool) -> Points:
    """Positions (n, 2) in a window after `_turn_image`."""
    y, x = points[:, 0], points[:, 1]
    for _ in range(turn):  # the first row becomes the first column, from below
        y, x = WINDOW - 1 - x, y
    return np.stack([y, WINDOW - 1 - x if mirror else x], axis=1)


def _vary(image: Tensor, generator: np.random.Generator) -> Tensor:
    """Change gain, envelope and noise at random, as another defocus, ice or dose would."""
    frequency = torch.hypot(torch.fft.fftfreq(WINDOW)[:, None], torch.fft.rfftfreq(WINDOW)[None, :])
    wave, phase = generator.uniform(2, 12), generator.uniform(0, 2 * math.pi)
    depth = generator.uniform(0, 0.35)
    gain = 1 + depth * torch.cos(2 * math.pi * wave * frequency + phase)
    gain = gain * torch.exp(float(generator.uniform(-6, 6)) * frequency.square())
    is_smooth = generator.random() < _SMOOTH_SHARE  # as if denoised
    blur = float(generator.uniform(*_SMOOTH)) if is_smooth else 0.0
    gain = gain * torch.exp(-2 * (math.pi * blur * frequency).square())
    changed = torch.fft.irfft2(torch.fft.rfft2(image) * gain, s=(WINDOW, WINDOW))
    noise = torch.from_numpy(generator.standard_normal((WINDOW, WINDOW), dtype=np.float32))
    gain_of_all = float(np.exp(generator.uniform(-0.2, 0.2)))
    if is_smooth:
        _, spread = middle_and_spread(changed)
        smooth: Tensor = (gain_of_all * changed / spread.clamp_min(0.05)).clamp(-_CLIP, _CLIP)
        return smooth
    varied: Tensor = gain_of_all * changed + noise * float(generator.uniform(0, 0.4))
    return varied


def _label(
    image: Tensor,
    valid: Tensor,
    known: Tensor,
    placed: Sequence[Points],
    weights: tuple[Points | None, Points | None],
) -> TrainingWindow:
    """Say what is known at each point of the network's grid."""
    size = WINDOW // STRIDE
    particles, rejected, ignored = placed
    distance, way, weight = _nearest(particles, size, weights[0])
    positive = (distance <= _MARKED * PARTICLE) * valid[::STRIDE, ::STRIDE].float()
    unlabelled = known[::STRIDE, ::STRIDE].float() * (distance > _SPARED * PARTICLE)
    distance, _, wrong = _nearest(rejected, size, weights[1])
    is_rejected = distance <= _SPARED * PARTICLE
    unlabelled = unlabelled * (_nearest(ignored, size)[0] > _IGNORED * PARTICLE)
    return TrainingWindow(
        image,
        positive,
        unlabelled,
        is_rejected.float() * unlabelled * wrong,
        way * positive,
        positive * weight,
    )


def _nearest(
    points: Points, size: int, weights: Points | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Distance (g, g), way (2, g, g) and weight (g, g) of the point nearest to each grid point."""
    reach = _IGNORED * PARTICLE
    inside = ((points > -reach) & (points < WINDOW + reach)).all(1)
    near = torch.from_numpy(points[inside]).float()
    if not len(near):
        nothing = torch.zeros(size, size)
        return torch.full((size, size), math.inf), torch.zeros(2, size, size), nothing
    steps = torch.arange(size, dtype=torch.float32) * STRIDE
    down = near[:, 0, None] - steps
    across = near[:, 1, None] - steps
    square = down.square()[:, :, None] + across.square()[:, None, :]
    least, which = square.min(0)
    way = torch.stack([down.gather(0, which.T).T, across.gather(0, which)])
    of_each = torch.ones(len(near))
    if weights is not None:
        of_each = torch.from_numpy(weights[inside]).float()
    return least.sqrt(), way, of_each[which]
