"""Score the classes of a 2D classification in a folder, and keep the good ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import DataError, OutputError, ParameterError
from cryopick.io.atomic import write_json
from cryopick.pipeline.job import Job, identity_of
from cryopick.pipeline.scored_classes import SCORES, weights_file, write_scored_classes
from cryopick.pipeline.select_classes_output import (
    AVERAGE_TABLE,
    AVERAGES,
    FILES,
    GALLERY,
    PARTICLES,
    RESULT,
    remove_results,
    selected_best_first,
    write_averages,
    write_rank,
    write_selection,
)
from cryopick.pipeline.select_classes_particles import (
    CentredAverages,
    move_particles,
    recenter_averages,
    regroup,
    select_members,
)
from cryopick.pipeline.select_classes_source import (
    SAVED_SELECTION,
    ClassSource,
    SavedSelection,
    read_class_source,
    read_selection,
)
from cryopick.pipeline.select_classes_warnings import hint_of_particles, warnings_of
from cryopick.report.score_gallery import write_score_gallery
from cryopick.selection.class_choice import (
    EMPTY,
    ClassChoice,
    best_first,
    choose_by_score,
    choose_these,
    classes_of_numbers,
)
from cryopick.selection.class_features import class_inputs
from cryopick.selection.class_scorer import (
    ClassScorer,
    read_scorer,
    score_classes,
    to_weights,
)
from cryopick.selection.class_scores import ClassInputs, ClassScores
from cryopick.selection.score_words import show_score, show_threshold
from cryopick.selection.select_classes_parameters import (
    SelectClassesParameters,
    parse_class_numbers,
)
from cryopick.tables.relion import write_particles

__all__ = ["ClassSelection", "select_classes"]

_NAME = "select classes"
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ClassSelection:
    """What was kept; `values` are ready for JSON."""

    values: dict[str, Any]

    @property
    def classes(self) -> list[dict[str, Any]]:
        """One record for each class, the best score first."""
        return list(self.values["classes"])


@dataclass(frozen=True, kw_only=True)
class _Scored:
    """All that is known of the classes before anything is written."""

    source: ClassSource
    inputs: ClassInputs
    scores: ClassScores
    choice: ClassChoice
    warnings: list[str]

    @property
    def counts(self) -> NDArray[np.float64]:
        """Particles of each class; NaN where unknown."""
        return self.inputs.features["particle_count"].to_numpy(np.float64)

    @property
    def n_unclassed(self) -> int:
        """Particles of the run that are in no class."""
        run = self.source.run
        return 0 if run is None else len(run.particles) - int(self.counts.sum())


def select_classes(
    classes: Path,
    out: Path,
    parameters: SelectClassesParameters,
    *,
    selection: Path | None = None,
    weights: Path | None = None,
    mask_diameter: float | None = None,
    pixel_size: float | None = None,
    overwrite: bool = False,
) -> ClassSelection:
    """Score classes, and write those that are kept, with their particles.

    Parameters
    ----------
    classes
        A file or the folder of a 2D classification of RELION or cryopick, or a stack of averages.
    out
        Folder of the job.
    parameters
        What to keep.
    selection
        An earlier selection to keep instead, a ``backup_selection.star`` or the folder with it.
    weights
        Of the score, or the folder of ``select learn`` with them; those shipped if not given.
    mask_diameter
        A, instead of what the run says; where nobody says it, it is found from the averages.
    pixel_size
        A/px of the averages of a stack, instead of what its header says.
    overwrite
        Replace what another selection left in `out`.

    Returns
    -------
    ClassSelection
        Counts, scores, files and warnings; also in ``result.json``.

    Raises
    ------
    DataError
        If no class is kept. Scores, their gallery and ``backup_selection.star`` are written
        before, so that somebody can look and choose.
    CryopickError
        If the classes cannot be read, the parameters do not go with them, or `out` cannot be
        written or holds something else.
    """
    out, weights = Path(out), weights_file(weights)
    source = read_class_source(classes, mask_diameter=mask_diameter, pixel_size=pixel_size)
    _require_particles(source, parameters)
    chosen = _chosen(parameters, selection, source.particle_count)
    _protect(out, source, selection)
    scorer = read_scorer(weights)
    job = Job(
        out,
        name=_NAME,
        parameters={
            "classes of": f"{classes} ({source.identity})",
            **parameters.to_dict(),
            "selection": None if selection is None else f"{selection} ({_identity(selection)})",
            "weights": f"{weights or 'shipped'} ({_digest(scorer)})",
            "mask_diameter": mask_diameter,
            "pixel_size": pixel_size,
        },
        inputs=[str(p) for p in (classes, selection, weights) if p is not None],
        results=FILES,
        overwrite=overwrite,
    )
    job.stored_parameters()  # refuses a folder before there is work
    inputs = class_inputs(
        source.averages,
        pixel_size=source.pixel_size,
        mask_diameter=source.mask_diameter,
        classification=source.run,
    )
    scores = score_classes(inputs, scorer)
    choice = _choose(chosen, scores, inputs, parameters)
    scored = _Scored(
        source=source,
        inputs=inputs,
        scores=scores,
        choice=choice,
        warnings=warnings_of(source, scores, choice, parameters, chosen, selection),
    )
    with job:
        remove_results(out)
        try:
            return ClassSelection(values=_write(out, scored, parameters))
        finally:
            job.results = [name for name in FILES if (out / name).exists()]


def _identity(path: Path) -> str:
    path = Path(path)
    return identity_of(path / SAVED_SELECTION if path.is_dir() else path)


def _digest(scorer: ClassScorer) -> str:
    """Tell weights apart by their values: those shipped change with the version."""
    digest = hashlib.sha256()
    for name, values in sorted(to_weights(scorer, {}).arrays.items()):
        digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]


def _require_particles(source: ClassSource, parameters: SelectClassesParameters) -> None:
    """Refuse what only the particles of a run can give."""
    if source.run is not None:
        return
    for name, value in (
        ("regroup", parameters.regroup),
        ("minimum_particles", parameters.minimum_particles),
    ):
        if value:
            raise ParameterError(
                name,
                must="come with a run, which has particles",
                got=f"the stack {source.path}",
                remedy=f"Give the folder of the run, or leave out --{name.replace('_', '-')}",
            )


def _chosen(
    parameters: SelectClassesParameters, selection: Path | None, counts: NDArray[np.float64]
) -> SavedSelection | None:
    """Classes that were chosen before; None if scores decide."""
    if parameters.classes is not None:
        if selection is not None:
            raise ParameterError(
                "selection",
                must="not come with --classes, which says what is kept",
                got=str(selection),
                remedy="Leave out one of them",
            )
        numbers = parse_class_numbers(parameters.classes)
        by_hand = classes_of_numbers(numbers, n_classes=len(counts))
        return SavedSelection(is_selected=by_hand, is_by_score=False)
    if selection is None:
        return None
    parameters.require_no_rule("--selection")
    return read_selection(selection, particle_count=counts)


def _choose(
    chosen: SavedSelection | None,
    scores: ClassScores,
    inputs: ClassInputs,
    parameters: SelectClassesParameters,
) -> ClassChoice:
    counts = inputs.features["particle_count"].to_numpy(np.float64)
    if chosen is None:
        return choose_by_score(scores.score, counts, parameters)
    return choose_these(chosen.is_selected, scores.score, counts, by_score=chosen.is_by_score)


def _protect(out: Path, source: ClassSource, selection: Path | None) -> None:
    """Refuse to write among the inputs."""
    inputs = [f.resolve().parent for f in source.files]
    if selection is not None:
        path = Path(selection).resolve()
        inputs.append(path if path.is_dir() else path.parent)
    if out.resolve() in inputs:
        raise OutputError(
            str(out),
            must="be another folder than that of the input",
            got="the same",
            remedy="Choose another --out",
        )


def _write(out: Path, scored: _Scored, parameters: SelectClassesParameters) -> dict[str, Any]:
    """Write all files; those to look at first, so that they are there if no class is kept."""
    source, choice, scores = scored.source, scored.choice, scored.scores
    files = write_scored_classes(out, scored.inputs, scores, choice)
    files += write_selection(out, choice)
    write_score_gallery(
        out / GALLERY,
        source.averages,
        scores,
        choice,
        counts=scored.counts,
        n_unclassed=scored.n_unclassed,
        resolutions=_resolutions(source),
        pixel_size=source.pixel_size,
        title=Path(*source.path.resolve().parts[-2:]).as_posix(),
    )
    files.append(GALLERY)
    _require_any(out, scored, parameters)
    centred = _centred(source) if parameters.recenter else None
    files += write_averages(out, source, scores, choice, centred)
    values = _values(out, scored)
    if source.run is not None:
        files += write_rank(out, source.run, scores)
        values["n_groups"] = _write_particles(out, source, choice, parameters, centred)
        files.append(PARTICLES)
    values["warnings"] = scored.warnings
    values["files"] = [*files, RESULT]
    write_json(out / RESULT, values)
    return values


def _centred(source: ClassSource) -> CentredAverages:
    diameter, size = source.mask_diameter, source.pixel_size
    radius = diameter / (2 * size) if diameter and size else None
    return recenter_averages(source.averages, mask_radius=radius)


def _write_particles(
    out: Path,
    source: ClassSource,
    choice: ClassChoice,
    parameters: SelectClassesParameters,
    centred: CentredAverages | None,
) -> int:
    """Write the particles that are kept; returns the number of their groups."""
    run, path = source.run, out / PARTICLES
    assert run is not None
    particles = select_members(run, choice.is_selected, target=path)
    if centred is not None:
        particles = move_particles(particles, centred, pixel_size=run.model.pixel_size)
    if parameters.regroup is not None:
        particles = regroup(particles, run.groups, n_groups=parameters.regroup)
    write_particles(path, particles)
    return int(particles.rows["group_number"].nunique())


def _resolutions(source: ClassSource) -> NDArray[np.float64] | None:
    if source.run is None or "estimated_resolution" not in source.run.classes.columns:
        return None
    return source.run.classes["estimated_resolution"].to_numpy(np.float64)


def _require_any(out: Path, scored: _Scored, parameters: SelectClassesParameters) -> None:
    choice, score = scored.choice, scored.scores.score
    if choice.is_selected.any():
        return
    look = f"Look at {out / GALLERY}, then"
    is_by_score = choice.threshold is not None
    if not np.isfinite(score).any() and (is_by_score or scored.source.run is None):
        _refuse_flat(scored, look)
    if choice.threshold is None:
        raise DataError(
            "--selection" if parameters.classes is None else "--classes",
            must="name a class with particles",
            got="none that has any",
            remedy=f"{look} choose others, with --overwrite",
        )
    best = best_first(score, scored.counts)[0]
    remedy = f"{look} lower --minimum-score or choose with --classes, and add --overwrite"
    if hint := hint_of_particles(scored.source, scored.scores):
        remedy += f". {hint.removesuffix('.')}"
    raise DataError(
        "the score of a class",
        must=f"be at least {show_threshold(choice.threshold)} for it to be kept",
        got=f"{show_score(score[best], choice.threshold)} for the best, class {best + 1}",
        remedy=remedy,
    )


def _refuse_flat(scored: _Scored, look: str) -> NoReturn:
    """Say that no average can be scored; a threshold has nothing to do with it."""
    is_run = scored.source.run is not None
    n_flat = int((scored.counts > 0).sum()) if is_run else len(scored.counts)
    raise DataError(
        "class averages",
        must="vary inside the mask to have a score",
        got=f"{n_flat} flat {'average' if n_flat == 1 else 'averages'}",
        remedy=f"{look} choose with --classes and --overwrite, or classify again"
        if is_run
        else "Give averages that hold images",
    )


def _values(out: Path, scored: _Scored) -> dict[str, Any]:
    source, choice, counts = scored.source, scored.choice, scored.counts
    is_run = source.run is not None
    order = best_first(scored.scores.score, counts)
    why = np.asarray(choice.why, dtype=object)
    return {
        "classes_of": str(source.path),
        "n_classes": len(why),
        "n_occupied": int((why != EMPTY).sum()),
        "n_selected": int(choice.is_selected.sum()),
        "n_particles": len(source.run.particles) if source.run is not None else None,
        "n_particles_in_classes": int(counts.sum()) if is_run else None,
        "n_particles_selected": int(counts[choice.is_selected].sum()) if is_run else None,
        "threshold": choice.threshold,
        "is_by_hand": choice.is_by_hand,
        "selected": (selected_best_first(scored.scores, choice, source) + 1).tolist(),
        "particles": str(out / PARTICLES) if is_run else None,
        "averages": str(out / AVERAGES),
        "average_table": str(out / AVERAGE_TABLE),
        "scores": str(out / SCORES),
        "gallery": str(out / GALLERY),
        "selection": str(out / SAVED_SELECTION),
        "classes": [_record(scored, int(k)) for k in order],
    }


def _record(scored: _Scored, place: int) -> dict[str, Any]:
    resolutions = _resolutions(scored.source)
    scores, count = scored.scores, scored.counts[place]
    score = scores.score[place]
    return {
        "number": place + 1,
        "score": float(score) if np.isfinite(score) else None,  # rounded, it could pass
        "purity": _plain(scores.purity[place]),
        "quality": _plain(scores.quality[place]),
        "n_particles": int(count) if np.isfinite(count) else None,
        "resolution": None if resolutions is None else _plain(resolutions[place]),
        "is_selected": bool(scored.choice.is_selected[place]),
        "why": scored.choice.why[place],
        "reasons": [
            {"group": r.group, "effect": _plain(r.effect), "text": r.text}
            for r in scores.reasons[place]
        ],
    }


def _plain(value: float) -> float | None:
    """Make a number as JSON takes it; what is not known is None."""
    return round(float(value), 4) if np.isfinite(value) else None
