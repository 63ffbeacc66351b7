"""What a training of the picking network came to, and the files that say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryopick.io.atomic import writing
from cryopick.picking.network_fit import TrainedModel, chances
from cryopick.picking.network_parameters import NetworkTrainingParameters
from cryopick.pipeline.pick_models import MODEL, write_model
from cryopick.report.figures import figure_to_png
from cryopick.report.training_chart import plot_training

__all__ = ["CHART", "MODEL", "PickTraining", "write_training"]

CHART = "training.png"


@dataclass(frozen=True, kw_only=True)
class PickTraining:
    """What came of a training."""

    folder: Path
    average_precision: float  # on what was held out; what is not labelled counts as wrong
    first_average_precision: float | None  # of the model that training began from
    threshold: float  # probability from which a peak is a pick
    n_expected: float  # particles in a micrograph
    steps: int  # after which the model was taken; 0 is the one that training began from
    n_train: int  # micrographs
    n_train_labels: int
    n_held_out: int  # micrographs
    n_held_out_labels: int
    n_rejected: int  # particles that were not kept, in use
    n_outside: int  # labels outside their micrographs
    n_masked: int  # labels where a field is not valid
    n_unlisted: int  # micrographs that only the labels name
    n_unlabelled: int  # micrographs without a label
    n_unused: int  # labelled micrographs that were not needed
    n_repeated: int  # labels of a particle that has one already
    edge_band: float  # A from the edges of micrographs in which nothing is labelled
    history: Sequence[Mapping[str, float | None]]  # step, loss, average_precision, success
    failed: Mapping[str, str]  # reasons, by micrograph

    @property
    def model(self) -> Path:
        """The model to pick with."""
        return self.folder / MODEL

    @property
    def chart(self) -> Path:
        """The picture of the training."""
        return self.folder / CHART

    def to_dict(self) -> dict[str, Any]:
        """All numbers, ready for JSON."""
        values = {k: v for k, v in self.__dict__.items() if k != "folder"}
        return {
            "model": str(self.model),
            **values,
            "history": [dict(h) for h in self.history],
            "failed": dict(self.failed),
        }


def write_training(
    folder: Path, trained: TrainedModel, parameters: NetworkTrainingParameters
) -> None:
    """Write the model, with numbers and no names on how it was made, and its chart.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    notes = {
        "made_by": "cryopick pick train",
        "diameter": parameters.diameter,
        "white_particles": parameters.white_particles,
        "seed": parameters.seed,
        "steps": trained.taken.step,
        "held_out_labels": trained.validation.n_marked,
        "held_out_average_precision": round(trained.taken.precision, 6),
        "particles_in_a_micrograph": round(trained.n_expected, 3),
    }
    write_model(folder / MODEL, trained.model, notes)
    found = trained.validation
    model = trained.model
    chance = chances(found, slope=model.slope, offset=model.offset, prior=model.prior)
    looks = trained.history
    figure = plot_training(
        [look.step for look in looks],
        [look.loss or 0.0 for look in looks],
        [look.success for look in looks],
        taken=trained.taken.step,
        labelled=chance[found.is_marked],
        others=chance[~found.is_marked],
        threshold=trained.model.threshold,
    )
    with writing(folder / CHART) as handle:
        handle.write(figure_to_png(figure))
