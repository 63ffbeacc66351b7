"""What each step of an unattended run does in the folder of its job.

All of it is the work of commands that a user could give one by one; here are their parameters,
derived from those of the run and from what the steps before have found. Each step can be killed
and called again, as these commands can.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cryopick.class2d.em_parameters import ClassificationParameters
from cryopick.errors import CryopickError, DataError, OutputError
from cryopick.execution.parameters import ComputeParameters
from cryopick.execution.whole import is_elsewhere, run_whole
from cryopick.extraction.extraction_parameters import ExtractionParameters
from cryopick.image.fourier import good_size
from cryopick.io.atomic import tells_of_disk
from cryopick.io.star import read_star
from cryopick.picking.blob_parameters import BlobParameters
from cryopick.picking.log_parameters import LogParameters
from cryopick.picking.network_parameters import NetworkParameters, NetworkTrainingParameters
from cryopick.picking.template_parameters import TemplateParameters
from cryopick.picking.topaz_parameters import TopazPickParameters, TopazTrainParameters
from cryopick.pipeline.accepted_fields import write_accepted
from cryopick.pipeline.class2d import classify_particles
from cryopick.pipeline.class2d_parameters import ClassificationRunParameters
from cryopick.pipeline.class2d_run import ClassificationProgress
from cryopick.pipeline.ctf_estimate import estimate_ctfs
from cryopick.pipeline.extraction import extract
from cryopick.pipeline.growing import is_growing
from cryopick.pipeline.network_picker import make_network_picker
from cryopick.pipeline.pick_train import train_picker
from cryopick.pipeline.pick_train_result import PickTraining
from cryopick.pipeline.pickers import BlobPicker, LogPicker, Picker, make_template_picker
from cryopick.pipeline.picking import PickingResult, pick_micrographs
from cryopick.pipeline.picking_ctf_parameters import PickingCtfParameters
from cryopick.pipeline.picking_diameter import estimate_diameter
from cryopick.pipeline.run_consensus import join_picks
from cryopick.pipeline.run_context import Outcome, RunContext, write_first, write_searchable
from cryopick.pipeline.run_parameters import ALSO_PICKERS
from cryopick.pipeline.select_classes import select_classes
from cryopick.pipeline.select_classes_output import GALLERY
from cryopick.pipeline.topaz_pick import pick_with_topaz
from cryopick.pipeline.topaz_train import train_topaz
from cryopick.selection.select_classes_parameters import SelectClassesParameters
from cryopick.tables.micrographs import micrograph_path, open_micrographs, pixel_sizes
from cryopick.tables.model import Micrographs, Particles
from cryopick.tables.relion import (
    read_micrographs,
    read_particles,
    read_picks,
    write_particles,
)

__all__ = ["STEPS", "StepFunction", "all_refused", "box_size_for"]

StepFunction = Callable[[RunContext, Path, Sequence[Path]], Outcome]
_BOX_PER_DIAMETER = 1.5  # leaves a rim of background to normalise on
_MASK_PER_LARGEST = 1.05  # of the classes, over the largest diameter
_PIXELS_PER_DIAMETER, _COARSEST = 32.0, 5.0  # of the first particles; A
_FIRST = (40, 10, 50)  # particles for a class, fewest and most classes
_FINAL = (60, 10, 100)
_HOPELESS = 0.1  # score of a class: its particles are rather none
_FEWEST = 50  # first particles, to classify and to learn from


def box_size_for(diameter: float, *, pixel_size: float) -> int:
    """Choose a box, px, for particles of a diameter in A.

    Examples
    --------
    >>> box_size_for(180.0, pixel_size=1.5)
    180
    """
    return good_size(max(8, math.ceil(_BOX_PER_DIAMETER * diameter / pixel_size)), even=True)


def _ctf(run: RunContext, folder: Path, wanted: Sequence[Path]) -> Outcome:
    table = write_first(run.table, folder / "subset.star", wanted=wanted)
    result = estimate_ctfs(
        [str(table)], folder, compute=run.compute, progress=run.counted("Estimating the CTF")
    )
    facts = _plain(result.to_dict())
    _require_disk(folder, facts["failed"])
    if not result.estimated and not is_growing():
        raise all_refused([one.error for one in result.failed])
    return Outcome(content=(result.table,), facts=facts)


def _diameter(run: RunContext, folder: Path, wanted: Sequence[Path]) -> Outcome:
    table = write_searchable(run, folder / "subset.star", wanted=wanted)
    found = estimate_diameter(
        [str(table)],
        folder,
        parameters=BlobParameters(white_particles=run.parameters.white_particles),
        ctf=_picking_ctf(run, table),
        compute=run.compute,
        progress=run.counted("Estimating the diameter"),
    )
    sizes = {n: getattr(found, n) for n in ("diameter", "min_diameter", "max_diameter")}
    facts = sizes | {"warnings": list(found.warnings)}
    return Outcome(content=(folder / "diameter.json",), facts=facts)


def _first_picks(run: RunContext, folder: Path, wanted: Sequence[Path]) -> Outcome:
    picker = _first_picker(run, run.parameters.first_picker)
    table = write_first(run.micrographs(), folder / "subset.star", wanted=wanted)
    are_more = len(wanted) < len(read_micrographs(run.table).rows)
    if are_more and not len(read_micrographs(table).rows):  # their CTF could not be estimated
        return _picked(PickingResult(folder=folder, micrographs=()), may_be_none=True)
    return _pick(run, folder, table, picker, may_be_none=are_more)


def _first_picker(run: RunContext, name: str) -> Picker:
    """Make a picker that needs no more than sizes."""
    low, high = run.sizes.min_diameter, run.sizes.max_diameter
    white = run.parameters.white_particles
    if name == "log":
        of_log = LogParameters(min_diameter=low, max_diameter=high, white_particles=white)
        return LogPicker(parameters=of_log)
    of_blob = BlobParameters(min_diameter=low, max_diameter=high, white_particles=white)
    return BlobPicker(parameters=of_blob)


def _picks(run: RunContext, folder: Path, wanted: Sequence[Path]) -> Outcome:
    parameters, diameter = run.parameters, run.sizes.diameter
    table = write_first(run.micrographs(), folder / "subset.star", wanted=wanted)
    white = parameters.white_particles
    if parameters.picker == "topaz":
        model = str(run.folders["training"] / "model.sav") if parameters.is_trained else ""
        result = pick_with_topaz(
            [str(table)],
            folder,
            parameters=TopazPickParameters(diameter=diameter, model=model, white_particles=white),
            progress=run.counted("Picking with Topaz"),
        )
        return _picked(result)
    if parameters.picker == "template":
        templates = TemplateParameters(diameter=run.sizes.max_diameter, white_particles=white)
        picker: Picker = make_template_picker(run.folders["first_selection"], parameters=templates)
    else:
        path = run.folders["training"] if parameters.is_trained else None
        of_network = NetworkParameters(diameter=diameter, white_particles=white)
        picker = make_network_picker(path, parameters=of_network)
    return _pick(run, folder, table, picker)


def _also_picks(kind: str) -> StepFunction:
    """Make the step of one more picker of all micrographs."""

    def pick(run: RunContext, folder: Path, wanted: Sequence[Path]) -> Outcome:
        alone = replace(run.parameters, training=False, also_pick="")
        if kind == "general":
            run = replace(run, parameters=replace(alone, picker="general"))
            return _picks(run, folder, wanted)
        if kind == "topaz":
            run = replace(run, parameters=replace(alone, picker="topaz"))
            return _picks(run, folder, wanted)
        table = write_first(run.micrographs(), folder / "subset.star", wanted=wanted)
        return _pick(run, folder, table, _first_picker(run, kind))

    return pick


def _consensus(run: RunContext, folder: Path, _: Sequence[Path]) -> Outcome:
    result = join_picks(run, folder)
    return _picked(result)


def _pick(
    run: RunContext, folder: Path, table: Path, picker: Picker, *, may_be_none: bool = False
) -> Outcome:
    uses_ctf = not isinstance(picker, LogPicker) and picker.name != "pick network"
    result = pick_micrographs(
        [str(table)],
        folder,
        picker=picker,
        ctf=_picking_ctf(run, table) if uses_ctf else None,
        compute=run.compute,
        progress=run.counted("Picking"),
    )
    return _picked(result, may_be_none=may_be_none)


def _picked(result: PickingResult, *, may_be_none: bool = False) -> Outcome:
    """Tell what was picked; that nothing was, where no other micrographs can take their place."""
    facts = _plain(result.to_dict())
    _require_disk(result.folder, facts["failed"])
    if is_growing():  # the lists of all are somebody else's
        return Outcome(content=(), facts=facts)
    if not result.picked and not may_be_none:
        raise all_refused([one.error for one in result.failed])
    table = result.folder / "autopick.star"
    files = (table, *sorted(result.folder.rglob("*_autopick.star")))
    return Outcome(content=tuple(f for f in files if f.exists()), facts=facts)


def all_refused(errors: Sequence[str]) -> CryopickError:
    """Say that no micrograph is of use, and why the first is not."""
    return CryopickError(
        "micrographs",
        must="be readable, one at least",
        got=f"{len(errors)} refused",
        remedy=f"The first: {errors[0].rstrip('.')}",
    )


def _first_particles(run: RunContext, folder: Path, wanted: Sequence[Path]) -> Outcome:
    table = write_first(run.micrographs(), folder / "subset.star", wanted=wanted)
    finest = _finest_pixel(table)
    box = box_size_for(run.sizes.max_diameter, pixel_size=finest)
    coarse = run.parameters.coarse_pixel_size
    coarse = coarse or min(run.sizes.diameter / _PIXELS_PER_DIAMETER, _COARSEST)
    small = good_size(max(16, math.ceil(box * finest / coarse)), even=True)
    parameters = ExtractionParameters(
        box_size=box,
        rescale=0 if small >= box else small,
        invert_contrast=not run.parameters.white_particles,
        float16=run.parameters.float16,
    )
    return _extract(run, folder, table, run.folders["first_picks"], parameters)


def _particles(run: RunContext, folder: Path, wanted: Sequence[Path]) -> Outcome:
    chosen = run.parameters
    table = write_first(run.micrographs(), folder / "subset.star", wanted=wanted)
    box = chosen.box_size or box_size_for(run.sizes.max_diameter, pixel_size=_finest_pixel(table))
    parameters = ExtractionParameters(
        box_size=box,
        rescale=chosen.rescale,
        invert_contrast=not chosen.white_particles,
        float16=chosen.float16,
        minimum_fom=chosen.threshold,
    )
    picks = run.folders.get("consensus", run.folders["picks"])
    return _extract(run, folder, table, picks, parameters)


def _extract(
    run: RunContext, folder: Path, table: Path, picks: Path, parameters: ExtractionParameters
) -> Outcome:
    coordinates = picks / "autopick.star"
    result = extract(
        open_micrographs([str(table)]),
        read_picks(coordinates),
        folder,
        parameters=parameters,
        compute=run.compute,
        inputs=[str(table), str(coordinates)],
        progress=run.counted("Extracting"),
    )
    facts = _plain({**result.to_dict(), "box_size": parameters.box_size})
    _require_disk(folder, facts["failed"])
    if result.particles is None:
        raise DataError(
            str(coordinates),
            must="give particles that can be cut out",
            got="none",
            remedy="Look at the report; change the diameters, or choose another picker",
        )
    return Outcome(content=(Path(result.particles),), facts=facts)


def _accepted(run: RunContext, folder: Path, _: Sequence[Path]) -> Outcome:
    facts = write_accepted(run.table.parent, run.folders["particles"], folder)
    return Outcome(content=(folder / "particles.star",), facts=facts)


def _first_classes(run: RunContext, folder: Path, _: Sequence[Path]) -> Outcome:
    return _classify(
        run, folder, run.folders["first_particles"], run.parameters.first_classes, _FIRST
    )


def _classes(run: RunContext, folder: Path, _: Sequence[Path]) -> Outcome:
    source = run.folders.get("accepted", run.folders["particles"])
    return _classify(run, folder, source, run.parameters.classes, _FINAL)


def _classify(
    run: RunContext, folder: Path, source: Path, given: int | None, rule: tuple[int, int, int]
) -> Outcome:
    path = source / "particles.star"
    particles = read_particles(path)
    if len(particles) < _FEWEST:
        raise DataError(
            str(path),
            must=f"hold at least {_FEWEST} particles to be classified",
            got=f"{len(particles)}",
            remedy="Give more micrographs, look at the picks, or use --picker general",
        )
    each, fewest, most = rule
    result = classify_particles(
        particles,
        folder,
        parameters=ClassificationParameters(
            classes=given or min(max(len(particles) // each, fewest), most),
            diameter=run.sizes.diameter,
            mask_diameter=_MASK_PER_LARGEST * run.sizes.max_diameter,
            ctf="full" if run.uses_ctf(_places(particles)) else "none",
            seed=run.parameters.seed,
        ),
        compute=_machine(run.compute),
        inputs=[str(path)],
        progress=_classifying(run),
        tell=run.say,
    ).values
    return Outcome(content=(Path(result["particles"]),), facts=_plain(result))


def _machine(compute: ComputeParameters) -> ClassificationRunParameters:
    return ClassificationRunParameters(
        device=compute.device,
        threads=0 if compute.execution == "serial" else compute.threads,
        memory=compute.memory,
        execution=compute.execution,
    )


def _classifying(run: RunContext) -> Callable[[ClassificationProgress], None]:
    def tell(now: ClassificationProgress) -> None:
        share = now.done / max(now.total, 1)
        if not now.n_iterations:
            run.tell(now.step, share, "")
            return
        found = "" if now.resolution is None else f", {now.resolution:.1f} A"
        note = f"iteration {now.iteration + 1} of {now.n_iterations}{found}"
        run.tell("Classifying", (now.iteration + share) / now.n_iterations, note)

    return tell


def _first_selection(run: RunContext, folder: Path, _: Sequence[Path]) -> Outcome:
    return _select(run, folder, run.folders["first_classes"])


def _selection(run: RunContext, folder: Path, _: Sequence[Path]) -> Outcome:
    return _select(run, folder, run.folders["classes"])


def _select(run: RunContext, folder: Path, classes: Path) -> Outcome:
    run.tell("Scoring the classes", 0.0, "")
    chosen = SelectClassesParameters(minimum_score=run.parameters.minimum_score)
    try:
        result = select_classes(classes, folder, chosen, overwrite=True).values
    except DataError as error:  # what `select classes` asks for is no option of a run
        error.remedy = (
            f"Look at {folder / GALLERY}; lower --minimum-score, give more micrographs, or check "
            "the diameter and the picks in the report"
        )
        raise
    run.tell("Scoring the classes", 1.0, "")
    return Outcome(content=(folder / "particles.star",), facts=_plain(result))


def _training(run: RunContext, folder: Path, _: Sequence[Path]) -> Outcome:
    labels = run.folders["first_selection"] / "particles.star"
    table, diameter = run.micrographs(), run.sizes.diameter
    white = run.parameters.white_particles
    if run.parameters.picker == "topaz":
        topaz = train_topaz(
            [str(table)],
            labels,
            folder,
            parameters=TopazTrainParameters(
                diameter=diameter, white_particles=white, seed=run.parameters.seed
            ),
            progress=run.counted("Training Topaz"),
        )
        return Outcome(content=(topaz.model,), facts=_plain(topaz.to_dict()))
    parameters = NetworkTrainingParameters(
        diameter=diameter, white_particles=white, seed=run.parameters.seed
    )
    if run.parameters.training_steps is not None:
        parameters = replace(parameters, steps=run.parameters.training_steps)
    rejected, unsure = _not_selected(run, folder)
    train = partial(
        _train,
        labels=labels,
        folder=folder,
        parameters=parameters,
        micrographs=[str(table)],
        rejected=rejected,
        unsure=unsure,
    )
    if is_elsewhere(run.compute):
        run.tell("Training", 0.0, "on a worker with a GPU")
    else:
        train = partial(train, progress=run.tell)
    trained = run_whole(run.compute, train)
    return Outcome(content=(trained.model,), facts=_plain(trained.to_dict()))


def _train(compute: ComputeParameters, **given: Any) -> PickTraining:
    return train_picker(compute=compute, **given)


def _not_selected(run: RunContext, folder: Path) -> tuple[Path | None, Path | None]:
    """Write the first particles of hopeless classes, and those of classes that are only not good.

    The others that were not selected may well be particles, so the picker must not learn that
    they are none.
    """
    scores = read_star(run.folders["first_selection"] / "class_scores.star")["classes"]
    hopeless = scores["cryopickClassScore"].astype(float) < _HOPELESS
    is_kept = scores["rlnSelected"].astype(int) == 1
    numbers = scores["rlnClassNumber"].astype(int)
    all_of_them = read_particles(max(run.folders["first_classes"].glob("run_it*_data.star")))
    classes = all_of_them.rows["class_number"]
    is_rejected = classes.isin({0, *numbers[hopeless & ~is_kept]})
    is_unsure = ~is_rejected & ~classes.isin(set(numbers[is_kept]))
    written: list[Path | None] = []
    for name, chosen in (("rejected.star", is_rejected), ("unsure.star", is_unsure)):
        rows = all_of_them.rows[chosen].reset_index(drop=True)
        written.append(folder / name if len(rows) else None)
        if len(rows):
            write_particles(folder / name, replace(all_of_them, rows=rows))
    return written[0], written[1]


def _picking_ctf(run: RunContext, table: Path) -> PickingCtfParameters:
    uses_ctf = run.uses_ctf(_places(read_micrographs(table)))
    return PickingCtfParameters(ctf="table" if uses_ctf else "ignore")


def _places(listed: Micrographs | Particles) -> set[Path]:
    """Where the micrographs lie that a table names."""
    names = listed.rows["micrograph"].unique()
    return {micrograph_path(str(name), listed.source) for name in names}


def _finest_pixel(table: Path) -> float:
    """Of several pixel sizes, A, the finest gives a box that is large enough for all."""
    return float(pixel_sizes(open_micrographs([str(table)])).min())


def _require_disk(folder: Path, failed: Mapping[str, str]) -> None:
    """Refuse to go on without micrographs that are good, and for which a disk is not."""
    of_disk = [sentence for sentence in failed.values() if tells_of_disk(sentence)]
    if of_disk:
        raise OutputError(
            str(folder),
            must="lie on a disk with room for the results of every micrograph",
            got=f"{len(of_disk)} that it did not take",
            remedy="Free some space or mend the disk; the same command then goes on",
        )


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers and words of a result, without what is long."""
    kept = (int, float, str, bool, type(None))
    small = {k: v for k, v in values.items() if isinstance(v, kept)}
    failed = values.get("failed") or values.get("failures") or {}
    return small | {"failed": dict(failed), "warnings": list(values.get("warnings") or ())}


STEPS: Mapping[str, StepFunction] = {
    "ctf": _ctf,
    "diameter": _diameter,
    "first_picks": _first_picks,
    "first_particles": _first_particles,
    "first_classes": _first_classes,
    "first_selection": _first_selection,
    "training": _training,
    "picks": _picks,
    **{f"{kind}_picks": _also_picks(kind) for kind in ALSO_PICKERS},
    "consensus": _consensus,
    "particles": _particles,
    "accepted": _accepted,
    "classes": _classes,
    "selection": _selection,
}
