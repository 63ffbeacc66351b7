"""What a user can choose about the networks that a consensus trains."""

from __future__ import annotations

from dataclasses import dataclass

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, describe, option

__all__ = ["GENERAL", "NEW", "ConsensusTraining"]

GENERAL, NEW = "general", "new"
_STEPS, _STEPS_OF_NEW = 200, 1000  # of each training


@dataclass(frozen=True, kw_only=True)
class ConsensusTraining(Parameters):
    """Training of the networks of a consensus."""

    model: str = option(
        GENERAL,
        help="What training begins from: general, the model that is shipped; new, random weights; "
        "a file of pick train, of other micrographs; or the folder of an earlier consensus.",
    )
    skip_training: bool = option(
        default=False, help="Score with the model as it is. One set is enough then."
    )
    steps: int | None = option(
        None,
        help="Steps of each training at most; 200 if not given, and 1000 with --model new; 0 is "
        "--skip-training. A step sees 8 windows of 6.7 diameters; about 25 see as many particles "
        "as an epoch of Deep Consensus, 50 batches of 64 boxes.",
        minimum=0,
    )
    learning_rate: float = option(
        2e-3, help="Largest rate of learning (AdamW, along a cosine).", above=0, maximum=1
    )
    auto_stop: bool = option(
        default=True,
        help="End a training after three looks at the micrographs held out that were no better.",
    )
    stop_accuracy: float | None = option(
        None,
        help="End a training when the average precision on the micrographs held out reaches this; "
        "what is not marked there counts as wrong.",
        above=0,
        maximum=1,
    )
    l2: float = option(
        1e-4,
        help="Decay of the weights: each step takes the rate of learning times this of them.",
        minimum=0,
        maximum=1,
    )
    ensemble: int = option(
        1,
        help="Networks for each half of the micrographs; the mean of their log-odds counts.",
        minimum=1,
        maximum=5,
    )
    training_particles: int = option(
        20_000,
        help="Likely candidates that a network learns from at most, drawn at random; -1 for all.",
        minimum=-1,
    )
    positive_weight: float = option(
        1.0,
        help="How much each particle of --positives counts beside a likely candidate; -1 makes "
        "all of them count as much as all candidates.",
        minimum=-1,
    )
    negative_weight: float = option(
        1.0, help="The same for --negatives, beside unlikely candidates.", minimum=-1
    )
    shipped_negatives: bool = option(
        default=False,
        help="Learn also from fields of ice, carbon and aggregates without a particle, simulated "
        "for the pixel size and the defocus of the micrographs.",
    )

    def check_together(self) -> None:
        """Check what joins several values.

        Raises
        ------
        ParameterError
            If random weights are to score, a weight is none, or nothing is to be learned from.
        """
        if self.model == NEW and self.is_skipped:
            raise ParameterError(
                "model",
                must="name a trained model with --skip-training or --steps 0",
                got=f"--model {NEW}, random weights",
                remedy="Let it train, or leave out --model",
            )
        if self.training_particles == 0:
            raise ParameterError(
                "training_particles", must="be at least 1, or -1", got=0, remedy="Try -1 for all"
            )
        for name in ("positive_weight", "negative_weight"):
            value = getattr(self, name)
            if value <= 0 and value != -1:
                raise ParameterError(
                    name,
                    must="be above 0, or -1",
                    got=f"{value:g}",
                    remedy=f"Change --{name.replace('_', '-')}",
                )
        if self.is_skipped:
            self._require_nothing_to_learn()

    def _require_nothing_to_learn(self) -> None:
        """Refuse options of a training where there is none."""
        for one in self.given():
            if one not in ("model", "skip_training", "steps"):
                raise ParameterError(
                    one,
                    must="be left out where nothing is trained",
                    got=f"{getattr(self, one)}",
                    remedy="Leave it out, or let networks be trained",
                )

    def given(self) -> tuple[str, ...]:
        """Names of the values that are not the usual ones."""
        return tuple(d.name for d in describe(type(self)) if getattr(self, d.name) != d.default)

    @property
    def is_skipped(self) -> bool:
        """Whether nothing is trained."""
        return self.skip_training or self.steps == 0

    @property
    def most_steps(self) -> int:
        """Of each training."""
        usual = _STEPS_OF_NEW if self.model == NEW else _STEPS
        return usual if self.steps is None else self.steps
