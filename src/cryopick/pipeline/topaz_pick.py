"""Pick micrographs with Topaz: the job and the files of the other pickers, one process for all."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.errors import CryopickError, ParameterError, ProjectError
from cryopick.io.atomic import make_folder
from cryopick.io.micrograph import read_micrograph_size
from cryopick.picking.topaz_field import picks_of_peaks
from cryopick.picking.topaz_parameters import TopazComputeParameters, TopazPickParameters
from cryopick.picking.topaz_scale import TopazScale, choose_scale
from cryopick.pipeline.job import Job, ProgressCallback, Task, identity_of
from cryopick.pipeline.picking import PICKING_FILES, PickingResult, gather_picks, store_picks
from cryopick.pipeline.topaz_fields import FieldFile
from cryopick.pipeline.topaz_program import TopazProgram, find_topaz
from cryopick.pipeline.topaz_stream import TopazField, TopazStream
from cryopick.tables.micrographs import micrograph_path, open_micrographs, pixel_sizes
from cryopick.tables.model import Micrographs
from cryopick.tables.paths import micrograph_key
from cryopick.tables.pick_scores import LOG_ODDS

__all__ = ["pick_with_topaz"]

_FLOOR = -6.0  # least score of a stored peak: a probability of 0.0025
_PRETRAINED = re.compile(r"resnet(8|16)(_u(32|64))?")
_PATCHED = 1024  # px of a side, above which Topaz is told to work in patches: memory
_PATCH = 512
_SIZED = 20  # micrographs whose size is looked up
_FIELDS = "fields"
_LOG = "topaz.log"
_TOLERANCE = 0.1  # relative, of the pixel size a model was trained at
_OLD = re.compile(r"0\.[012](\.|$)")  # versions that do not say which micrograph is done


def pick_with_topaz(
    inputs: Sequence[str],
    folder: Path,
    *,
    parameters: TopazPickParameters,
    compute: TopazComputeParameters | None = None,
    pixel_size: float | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> PickingResult:
    """Find particles with a model of Topaz and write their positions.

    Parameters
    ----------
    inputs
        One STAR file of micrographs; or paths, folders and globs of images.
    folder
        Where the results go. Started again with the same parameters, only micrographs that are
        new, changed or failed are picked.
    parameters
        Of the picking.
    compute
        Device and threads.
    pixel_size
        A/px of all micrographs, instead of what their table or headers say.
    overwrite
        Throw away what a job with other parameters left in `folder`.
    progress
        Called with the number of micrographs done and in all.

    Returns
    -------
    PickingResult
        One entry per micrograph. One that cannot be read is refused with a sentence.

    Raises
    ------
    ProjectError
        If Topaz is missing, too old or fails, or `folder` holds another job or is in use.
    ParameterError
        If there is no such model, it was trained at another pixel size, or a radius is below
        1 px.
    TableError, FormatError
        If the table of the micrographs is broken.
    OutputError
        If `folder` cannot be written.
    """
    compute = compute or TopazComputeParameters()
    micrographs = open_micrographs(inputs, pixel_size=pixel_size)
    scale = choose_scale(
        diameter=parameters.diameter,
        pixel_size=float(pixel_sizes(micrographs).max()),
        downscale=parameters.downscale,
    )
    model = _model(parameters.model, scale)
    program = _program(parameters.executable)
    folder = Path(folder)
    job = _job(folder, parameters, program, model, pixel_size, inputs, micrographs, overwrite)
    with job:
        shutil.rmtree(folder / _FIELDS, ignore_errors=True)
        make_folder(folder / _FIELDS)
        try:
            stream = _stream(folder, program, parameters, compute, scale, model, micrographs)
            store = partial(_store, folder=folder, parameters=parameters)
            records = job.run(stream, store, _tasks(micrographs), progress=progress)
        finally:
            shutil.rmtree(folder / _FIELDS, ignore_errors=True)
        return gather_picks(folder, micrographs, records, score=LOG_ODDS)


def _program(executable: str) -> TopazProgram:
    program = find_topaz(executable)
    if _OLD.match(program.version):
        raise ProjectError(
            str(program.path),
            must="be version 0.3 or later to pick",
            got=program.version,
            remedy="Install it with: cryopick pick topaz setup --out FOLDER",
        )
    return program


def _model(name: str, scale: TopazScale) -> str:
    """Check a model: the path of a file, or a name that Topaz knows."""
    if not name or (_PRETRAINED.fullmatch(name) and not Path(name).exists()):
        return name
    path = Path(name)
    if path.is_dir() and (path / "model.sav").is_file():
        path = path / "model.sav"
    if not path.is_file():
        raise ParameterError(
            "model",
            must="be a file, or the name of a model that comes with Topaz",
            got=name,
            remedy="Such names are resnet8_u32, resnet8_u64, resnet16_u32 and resnet16_u64",
        )
    _require_trained_scale(path, scale)
    return str(path.absolute())


def _require_trained_scale(path: Path, scale: TopazScale) -> None:
    """Compare the pixel size with that of the training, where cryopick trained the model."""
    try:
        stored = json.loads((path.parent / "result.json").read_bytes())
        trained = float(stored["pixel_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    if abs(scale.pixel_size / trained - 1) > _TOLERANCE:
        factor = max(1, round(trained * scale.downscale / scale.pixel_size))
        raise ParameterError(
            "model",
            must=f"be used at the pixel size it was trained at, {trained:g} A",
            got=f"{scale.pixel_size:g} A after shrinking {scale.downscale} times",
            remedy=f"Add --downscale {factor}, or give the --diameter of the training",
        )


def _job(
    folder: Path,
    parameters: TopazPickParameters,
    program: TopazProgram,
    model: str,
    pixel_size: float | None,
    inputs: Sequence[str],
    micrographs: Micrographs,
    overwrite: bool,  # noqa: FBT001
) -> Job:
    lists = (*PICKING_FILES, *(() if micrographs.source is not None else ("micrographs.star",)))
    is_file = bool(model) and Path(model).is_file()
    return Job(
        folder,
        name="pick topaz pick",
        parameters={
            **parameters.to_dict(),
            "pixel_size": pixel_size,
            "topaz": program.version,
            "model_identity": identity_of(Path(model)) if is_file else "",
        },
        inputs=inputs,
        results=[*lists, _LOG],
        overwrite=overwrite,
        adjustable=("executable",),
    )


def _tasks(micrographs: Micrographs) -> list[Task]:
    rows = zip(micrographs.rows["micrograph"], pixel_sizes(micrographs), strict=True)
    tasks = []
    for name, size in rows:
        field = TopazField(
            path=micrograph_path(str(name), micrographs.source),
            key=micrograph_key(str(name)),
            pixel_size=float(size),
        )
        identity = f"{identity_of(field.path)} {field.pixel_size:g}"
        tasks.append(Task(key=field.key, identity=identity, payload=field))
    return tasks


def _stream(
    folder: Path,
    program: TopazProgram,
    parameters: TopazPickParameters,
    compute: TopazComputeParameters,
    scale: TopazScale,
    model: str,
    micrographs: Micrographs,
) -> TopazStream:
    side = _largest_side(micrographs, scale)
    arguments = [
        *("-r", str(scale.picking_radius)),
        *("-t", f"{min(_FLOOR, parameters.threshold):g}"),
        *("-d", str(compute.number)),
        *(("-m", model) if model else ()),
        *(("-p", str(_PATCH)) if side > _PATCHED else ()),
        "-v",
        *parameters.arguments,
    ]
    template = FieldFile(
        path=folder,
        target=folder,
        pixel_size=1.0,
        working_pixel_size=scale.pixel_size,
        white_particles=parameters.white_particles,
        diameter=parameters.diameter,
        edge_distance=parameters.edge_distance * parameters.diameter,
        mask=parameters.mask,
    )
    return TopazStream(
        program=program,
        arguments=tuple(arguments),
        template=template,
        folder=(folder / _FIELDS).absolute(),
        log=folder / _LOG,
        threads=compute.threads,
        needs_gpu=compute.number >= 0,
    )


def _largest_side(micrographs: Micrographs, scale: TopazScale) -> float:
    """Side of the largest of some micrographs as Topaz gets it, px."""
    rows = list(zip(micrographs.rows["micrograph"], pixel_sizes(micrographs), strict=True))
    largest = 0.0
    for name, size in rows[:: max(1, len(rows) // _SIZED)]:
        try:
            side = max(read_micrograph_size(micrograph_path(str(name), micrographs.source)))
        except CryopickError:
            continue  # its task says so
        largest = max(largest, side * float(size) / scale.pixel_size)
    return largest


def _store(field: TopazField, *, folder: Path, parameters: TopazPickParameters) -> dict[str, Any]:
    """Bring the peaks of a field to its micrograph and write them."""
    assert field.written is not None
    assert field.written.area is not None
    columns, rows, scores = np.array(field.peaks, np.float64).reshape(-1, 3).T
    found = picks_of_peaks(
        columns,
        rows,
        scores,
        scale=field.written.scale,
        area=field.written.area,
        diameter=parameters.diameter,
        threshold=parameters.threshold,
    )
    field.written, field.peaks = None, []
    return store_picks(found, folder=folder, key=field.key, score=LOG_ODDS)
