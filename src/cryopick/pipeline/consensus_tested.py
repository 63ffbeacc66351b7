"""Test the networks of a consensus on examples that were held back for that.

``testing.json`` holds the numbers and ``roc.png`` the curve. The network alone is tested, without
the votes of the pickers.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.io.atomic import write_json, writing
from cryopick.picking.consensus_learning import Learning
from cryopick.picking.consensus_network import ConsensusField, CrossFit, score_with
from cryopick.picking.consensus_testing import roc_curve, score_tests
from cryopick.picking.network_pick import PickModel
from cryopick.pipeline.consensus_examples import Examples
from cryopick.pipeline.consensus_plan import TrainingPlan
from cryopick.pipeline.consensus_prepare import PreparedCandidates

__all__ = ["ROC", "TESTING", "read_tests", "write_tests"]

TESTING, ROC = "testing.json", "roc.png"

Floats = NDArray[np.float64]


def write_tests(
    folder: Path,
    plan: TrainingPlan,
    prepared: Sequence[PreparedCandidates],
    fit: CrossFit,
    learning: Learning,
    *,
    diameter: float,
    radius: float,
    identity: str,
) -> None:
    """Score the examples of a plan and write what came of it; nothing if it has none.

    Parameters
    ----------
    folder
        Of the job.
    plan
        With tests.
    prepared, fit
        The micrographs, and the networks that were trained on them, in the same order.
    learning
        What networks began from.
    diameter
        Of the particle, A.
    radius
        How far a centre may lie from its place, diameters.
    identity
        Of all that was tested, by which it is found again.

    Raises
    ------
    FormatError
        If a stack cannot be read any more.
    OutputError
        If the result cannot be written.
    """
    if plan.tests.positives is None or plan.tests.negatives is None:
        return
    judges = [
        [t.model for t in fit.models[fold]] or learning.judges(p.seen.name)
        for fold, p in zip(fit.fold.tolist(), prepared, strict=True)
    ]
    every = [t.model for own in fit.models for t in own] or [s.model for s in learning.start]
    logits = [
        _logits(kind, prepared, judges, every, diameter=diameter, radius=radius)
        for kind in (plan.tests.positives, plan.tests.negatives)
    ]
    if not all(map(len, logits)):
        return  # on micrographs that could not be read
    scores = score_tests(*logits)
    with contextlib.suppress(Exception):  # no fault of drawing may cost the numbers
        from cryopick.report.figures import figure_to_png
        from cryopick.report.roc_chart import draw_roc

        _, wrong, right = roc_curve(*logits)
        title = f"{len(logits[0]):,} particles, {len(logits[1]):,} non-particles"
        content = figure_to_png(draw_roc(wrong, right, area=scores.roc_auc, title=title))
        with writing(folder / ROC) as handle:
            handle.write(content)
    write_json(folder / TESTING, {**scores.to_dict(), "identity": identity})


def read_tests(folder: Path, *, identity: str | None = None) -> dict[str, Any] | None:
    """Read what came of a test.

    Parameters
    ----------
    folder
        Of the job.
    identity
        Of what was tested; None takes any.

    Returns
    -------
    dict or None
        The numbers of `TestScores`; None if there are none of this identity.
    """
    try:
        stored: dict[str, Any] = json.loads((folder / TESTING).read_bytes())
        is_same = stored.pop("identity") == identity or identity is None
        return stored if is_same else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _logits(
    examples: Examples,
    prepared: Sequence[PreparedCandidates],
    judges: Sequence[Sequence[PickModel]],
    every: Sequence[PickModel],
    *,
    diameter: float,
    radius: float,
) -> Floats:
    """Log-odds of examples: on a micrograph from networks that have not learned from it."""
    found = [np.empty(0)]
    for one, own in zip(prepared, judges, strict=True):
        places = examples.in_field(one.seen.name)
        if len(places) and own:
            field = one.seen._replace(candidates=one.in_image(places))
            found.append(score_with(own, field, radius=radius).logits)
    for sheet in examples.sheets(diameter=diameter) if every else ():
        field = ConsensusField(sheet.image, sheet.is_valid, sheet.centres)
        found.append(score_with(every, field, radius=radius).logits)
    return np.concatenate(found)
