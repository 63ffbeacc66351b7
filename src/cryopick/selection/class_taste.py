"""Learn from a person's choices of classes how that person would score them.

The person's choice is taken as a draw with probability expit(slope logit(score) + offset + hidden
values . turn), the form of `Taste`. Its maximum a posteriori is found with a Gaussian prior around
"change nothing", whose width is chosen by cross-validation: few choices, or choices that follow
the score already, change little or nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from cryopick.errors import DataError
from cryopick.selection.class_agreement import Agreement, measure_agreement
from cryopick.selection.class_scorer import Taste, certain_logit

__all__ = [
    "FEWEST_CLASSES",
    "FREEDOMS",
    "NOTHING",
    "Freedom",
    "JudgedClasses",
    "LearnedTaste",
    "Trial",
    "fit_taste",
    "learn_taste",
]

FEWEST_CLASSES: Final = 10
_FOLDS = 10  # of the classes of a single run
_SURELY = 2.0  # standard errors
_STEPS, _SETTLED = 100, 1e-9

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Freedom:
    """Width of the prior: how far choices may move scores, in logits of a typical class."""

    level: float  # by slope and offset, which keep the order of the classes
    turn: float  # by the hidden values


NOTHING: Final = Freedom(level=0.0, turn=0.0)
FREEDOMS: Final = (  # the least change first
    NOTHING,
    *(Freedom(level=level, turn=0.0) for level in (1.0, 3.0)),
    *(Freedom(level=3.0, turn=turn) for turn in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)),
)


@dataclass(frozen=True, kw_only=True)
class JudgedClasses:
    """Classes of one run, and which of them a person has chosen."""

    score: Floats  # (k,) without any taste; NaN for classes that are empty
    hidden: Floats  # (k, v) of `cryopick.selection.class_scorer.hidden_values`
    is_selected: Flags  # (k,)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What cross-validation measured of one width of the prior."""

    freedom: Freedom
    log_loss: float  # of classes held out
    excess: float  # over the best width that is any good
    error: float  # standard error of the excess
    is_good: (
        bool  # foretells choices, and agrees with more of them, or with as many in a better order
    )


@dataclass(frozen=True, kw_only=True)
class LearnedTaste:
    """A taste, and how well it foretells choices that it has not seen."""

    taste: Taste | None  # None: nothing is changed
    freedom: Freedom
    trials: tuple[Trial, ...]
    before: Agreement  # of the score without taste; runs count alike
    after: Agreement  # of scores that were learned without the run, or the fold
    score_before: tuple[Floats, ...]  # (k,) for each run; NaN for classes that are empty
    score_after: tuple[Floats, ...]  # held out, likewise
    is_selected: tuple[Flags, ...]  # (k,) for each run, as they were given
    n_classes: int  # not empty
    n_selected: int


@dataclass(frozen=True, kw_only=True)
class _Table:
    """Classes of all runs, one row each, in an order that depends on nothing but themselves."""

    logit: Floats  # (n,)
    hidden: Floats  # (n, v)
    is_selected: Flags  # (n,)
    run: NDArray[np.int64]  # (n,) place of the run among those given
    place: NDArray[np.int64]  # (n,) of the class in its run

    @property
    def weights(self) -> Floats:
        """Weight of each class, runs counting alike; their sum is Kish's effective number."""
        counts = np.bincount(self.run)
        harmonic_mean = 1 / np.mean(1 / counts[counts > 0])
        return np.asarray(harmonic_mean / counts[self.run])

    def take(self, rows: Flags) -> _Table:
        return _Table(
            logit=self.logit[rows],
            hidden=self.hidden[rows],
            is_selected=self.is_selected[rows],
            run=self.run[rows],
            place=self.place[rows],
        )


def learn_taste(runs: Sequence[JudgedClasses]) -> LearnedTaste:
    """Learn a taste from choices, as freely as they warrant.

    Every width of `FREEDOMS` is tried on choices that were held out: of one run after the other,
    or, if there is but one run, of one tenth of its classes after the other. A change is good if
    it foretells choices better than the mere share of chosen classes does, by two standard errors
    of the log-loss, and keeps more classes as chosen than no change does, or as many and orders
    them better.
    The least change is taken whose log-loss is within one standard error of that of the best good
    one. Standard errors are those of differences over the same classes.

    Parameters
    ----------
    runs
        At least one; empty classes are left out. Within a run classes count alike, and so do
        runs. The result does not depend on the order of runs or classes.

    Raises
    ------
    DataError
        If there are fewer than `FEWEST_CLASSES` classes, or all or none are chosen.

    Notes
    -----
    The rule of one standard error is that of Breiman, Friedman, Olshen & Stone, Classification
    and Regression Trees, 1984, section 3.4.3.
    """
    table = _gather(runs)
    _require_choices(table)
    folds = _folds(table)
    logits = [_held_out(table, folds, freedom) for freedom in FREEDOMS]
    trials = _compare(table, logits, _held_out_share(table, folds))
    chosen = _least_change(trials)
    freedom = FREEDOMS[chosen]
    before, after = expit(table.logit), expit(logits[chosen])
    return LearnedTaste(
        taste=None if freedom == NOTHING else _fit(table, freedom),
        freedom=freedom,
        trials=trials,
        before=measure_agreement(before, table.is_selected, table.weights),
        after=measure_agreement(after, table.is_selected, table.weights),
        score_before=_scatter(table, before, runs),
        score_after=_scatter(table, after, runs),
        is_selected=tuple(run.is_selected for run in runs),
        n_classes=len(table.logit),
        n_selected=int(table.is_selected.sum()),
    )


def fit_taste(runs: Sequence[JudgedClasses], freedom: Freedom) -> Taste:
    """Find the taste of the largest posterior probability for one width of the prior.

    Parameters
    ----------
    runs
        As for `learn_taste`.
    freedom
        With 0 for both widths the taste changes nothing.

    Raises
    ------
    DataError
        As `learn_taste`.
    """
    table = _gather(runs)
    _require_choices(table)
    return _fit(table, freedom)


def _gather(runs: Sequence[JudgedClasses]) -> _Table:
    """Join the runs; their order, and that of the classes, follows from their values."""
    parts = []
    for number, run in enumerate(runs):
        places = np.flatnonzero(np.isfinite(run.score))
        values = np.column_stack(
            [run.score[places], run.is_selected[places], run.hidden[places].astype(np.float64)]
        )
        order = np.lexsort(values.T[::-1])
        parts.append((values[order], np.full(len(places), number), places[order]))
    parts.sort(key=lambda part: part[0].tobytes())
    values, run_numbers, places = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _Table(
        logit=certain_logit(values[:, 0]),
        is_selected=values[:, 1] > 0,
        hidden=values[:, 2:],
        run=run_numbers,
        place=places,
    )


def _require_choices(table: _Table) -> None:
    count, chosen = len(table.logit), int(table.is_selected.sum())
    if count < FEWEST_CLASSES:
        raise DataError(
            "the choices",
            must=f"be of at least {FEWEST_CLASSES} classes with particles",
            got=f"{count}",
            remedy="Choose classes of more runs, and give their folders too",
        )
    if chosen in (0, count):
        raise DataError(
            "the choices",
            must="keep some classes and leave out others",
            got=f"{'all' if chosen else 'none'} of {count} kept",
            remedy="Choose again, or give folders of more runs",
        )


def _folds(table: _Table) -> list[Flags]:
    """Rows to hold out together: runs, or with a single run tenths, each with its share chosen."""
    numbers = list(dict.fromkeys(table.run.tolist()))
    if len(numbers) > 1:
        return [table.run == number for number in numbers]
    order = np.lexsort((table.logit, table.is_selected))
    dealt = np.empty(len(order), np.int64)
    dealt[order] = np.arange(len(order)) % _FOLDS
    return [dealt == fold for fold in range(_FOLDS)]


def _held_out(table: _Table, folds: Sequence[Flags], freedom: Freedom) -> Floats:
    """Logit of each class, (n,), learned from the other folds."""
    logit = np.empty(len(table.logit))
    for fold in folds:
        taste, unseen = _fit(table.take(~fold), freedom), table.take(fold)
        logit[fold] = taste.slope * unseen.logit + taste.offset + unseen.hidden @ taste.turn
    return logit


def _held_out_share(table: _Table, folds: Sequence[Flags]) -> Floats:
    """Logit of the share of chosen classes in the other folds, (n,), by Laplace's rule."""
    logit = np.empty(len(table.logit))
    for fold in folds:
        rest = table.take(~fold)
        chosen = rest.weights @ rest.is_selected
        logit[fold] = np.log((chosen + 1) / (rest.weights.sum() - chosen + 1))
    return logit


def _compare(table: _Table, logits: Sequence[Floats], share: Floats) -> tuple[Trial, ...]:
    sign = np.where(table.is_selected, 1.0, -1.0)
    weights = table.weights / table.weights.sum()
    losses = [np.logaddexp(0, -sign * logit) for logit in logits]
    is_good = _which_are_good(table, logits, np.logaddexp(0, -sign * share) - np.array(losses))
    means = [float(weights @ loss) for loss in losses]
    best = min(np.flatnonzero(is_good), key=means.__getitem__)
    trials = []
    for k, loss in enumerate(losses):
        excess, error = _difference(loss - losses[best], weights)
        trials.append(
            Trial(
                freedom=FREEDOMS[k],
                log_loss=means[k],
                excess=excess,
                error=error,
                is_good=bool(is_good[k]),
            )
        )
    return tuple(trials)


def _which_are_good(table: _Table, logits: Sequence[Floats], gains: Floats) -> Flags:
    """Tell which widths are worth a change; `gains`, (widths, n), are over the mere share."""
    weights = table.weights / table.weights.sum()
    before = _worth(table, logits[FREEDOMS.index(NOTHING)])
    is_good = []
    for freedom, logit, gain in zip(FREEDOMS, logits, gains, strict=True):
        mean, error = _difference(gain, weights)
        is_better = _worth(table, logit) > before
        is_good.append(freedom == NOTHING or (mean > _SURELY * error and is_better))
    return np.array(is_good)


def _worth(table: _Table, logit: Floats) -> tuple[float, float]:
    """Share of the classes kept as chosen; where that is equal, the order decides."""
    found = measure_agreement(expit(logit), table.is_selected, table.weights)
    return round(found.accuracy, 9), round(found.auc, 9)


def _difference(values: Floats, weights: Floats) -> tuple[float, float]:
    """Mean, and its standard error."""
    mean = float(weights @ values)
    return mean, float(np.sqrt(np.sum((weights * (values - mean)) ** 2)))


def _least_change(trials: Sequence[Trial]) -> int:
    return next(k for k, t in enumerate(trials) if t.is_good and t.excess <= t.error)


def _fit(table: _Table, freedom: Freedom) -> Taste:
    """Find the maximum of the posterior; all columns are scaled to have a prior of width 1."""
    weights = table.weights
    share = weights / weights.sum()
    middle = share @ table.hidden
    spread = np.sqrt(share @ (table.hidden - middle) ** 2)
    scale = np.zeros_like(spread)
    varies = spread > 1e-6 * (1 + np.abs(middle))
    scale[varies] = freedom.turn / (spread[varies] * np.sqrt(varies.sum()))
    slope_scale = freedom.level / max(1.0, float(np.sqrt(share @ table.logit**2)))
    design = np.column_stack(
        [
            slope_scale * table.logit,
            np.full(len(share), freedom.level),
            scale * (table.hidden - middle),
        ]
    )
    found = _ascend(table.logit, design, table.is_selected, weights)
    turn = found[2:] * scale
    return Taste(
        slope=float(1 + slope_scale * found[0]),
        offset=float(freedom.level * found[1] - turn @ middle),
        turn=turn,
    )


def _ascend(base: Floats, design: Floats, is_selected: Flags, weights: Floats) -> Floats:
    """Newton's method for logistic regression with an offset and a prior of width 1.

    Steps are halved until the posterior grows; it has one maximum, as its logarithm is concave.
    """
    sign = np.where(is_selected, 1.0, -1.0)

    def cost(values: Floats) -> float:
        loss = np.logaddexp(0, -sign * (base + design @ values))
        return float(weights @ loss + values @ values / 2)

    found = np.zeros(design.shape[1])
    lowest = cost(found)
    for _ in range(_STEPS):
        chance = expit(base + design @ found)
        gradient = design.T @ (weights * (chance - is_selected)) + found
        if np.abs(gradient).max() < _SETTLED:
            break
        curvature = (design.T * (weights * chance * (1 - chance))) @ design
        step = np.linalg.solve(curvature + np.eye(len(found)), gradient)
        length = 1.0
        while cost(found - length * step) > lowest and length > _SETTLED:
            length /= 2
        found = found - length * step
        lowest = cost(found)
    return found


def _scatter(table: _Table, values: Floats, runs: Sequence[JudgedClasses]) -> tuple[Floats, ...]:
    """Give values back to the runs and classes as they were given."""
    scattered = []
    for number, run in enumerate(runs):
        column = np.full(len(run.score), np.nan)
        rows = table.run == number
        column[table.place[rows]] = values[rows]
        scattered.append(column)
    return tuple(scattered)
