"""Pick tomograms: one task each, then the coordinate files, kinds and report of all of them.

The folder of the job holds:

    particles.star, particles.csv, ...  picks of all tomograms, in each format asked for
    picks/a.npz                         what was found in tomogram a
    boxes/a_boxes.mrcs                  boxes about its picks, if asked for
    masks/a_mask.mrc                    where particles may be, if asked for
    report.html                         slices with picks, sizes, scores and kinds
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryopick.errors import CryopickError, FormatError, ParameterError
from cryopick.execution.local import make_executor
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.volumes import open_volume
from cryopick.pipeline.job import Job, ProgressCallback, Record, Task, identity_of
from cryopick.pipeline.tomo_pick_output import write_picks_of_all
from cryopick.pipeline.tomo_pick_parameters import TomogramPickOutput
from cryopick.pipeline.tomo_pick_task import PickTask, pick_tomogram
from cryopick.pipeline.tomo_report import write_tomogram_report
from cryopick.tables.tomograms import tomogram_name
from cryopick.tomogram.locate_parameters import TomogramPickParameters

__all__ = ["TomogramPickResult", "pick_tomograms"]

_BLOCK_BYTES = 60  # per voxel of a block with its halo, at the peak
_HALO = 24  # voxels on each side of a block, typically
_BASE_BYTES = 300 << 20


@dataclass(frozen=True, kw_only=True)
class TomogramPickResult:
    """What a picking job found in tomograms."""

    folder: Path
    tomograms: tuple[dict[str, Any], ...]  # of each: tomogram, and n_picks or error
    n_kinds: int
    coordinates: tuple[Path, ...]

    @property
    def failed(self) -> dict[str, str]:
        """Why tomograms were refused, by path."""
        return {t["path"]: t["error"] for t in self.tomograms if t["error"]}

    def to_dict(self) -> dict[str, Any]:
        """Gather the numbers that count, ready for JSON."""
        done = [t for t in self.tomograms if not t["error"]]
        return {
            "folder": str(self.folder),
            "n_tomograms": len(self.tomograms),
            "n_failed": len(self.failed),
            "n_picks": sum(t["n_picks"] for t in done),
            "n_extended": sum(t["n_extended"] for t in done),
            "n_beads": sum(t["n_beads"] for t in done),
            "n_kinds": self.n_kinds,
            "coordinates": [str(p) for p in self.coordinates],
            "tomograms": list(self.tomograms),
            "failed": self.failed,
        }


def pick_tomograms(
    tomograms: Sequence[Path],
    folder: Path,
    *,
    parameters: TomogramPickParameters | None = None,
    output: TomogramPickOutput | None = None,
    segmentation: Path | None = None,
    workflow: str = "",
    clusters: Sequence[int] = (),
    voxel_size: float | None = None,
    compute: ComputeParameters | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> TomogramPickResult:
    """Find particles in tomograms and write their positions.

    Parameters
    ----------
    tomograms
        Volumes; without any, those that were segmented.
    folder
        Where the results go. Started again with the same parameters, only tomograms that are
        new, changed or failed are picked.
    parameters, output
        How, and what is written.
    segmentation
        Folder of ``tomo segment``, for method `segment`.
    workflow
        Of the segmentation, such as ``gabor_gmm``; its only one if not given.
    clusters
        Numbers of the clusters that are particles, instead of those that the segmentation took.
    voxel_size
        A, instead of what the files say.
    compute
        How much of the machine to use.
    overwrite
        Throw away what a job with other parameters left in `folder`.
    progress
        Called with the number of tomograms done and in all.

    Returns
    -------
    TomogramPickResult
        A tomogram that cannot be worked on is refused with a sentence; the others are picked.

    Raises
    ------
    CryopickError
        Before anything is computed, if a value is wrong, an input missing or the folder taken.
    """
    parameters = parameters or TomogramPickParameters()
    output, compute = output or TomogramPickOutput(), compute or ComputeParameters()
    tasks = _tasks(
        tomograms, Path(folder), parameters, output, segmentation, workflow, clusters, voxel_size
    )
    devices = compute.devices
    tasks = [replace(t, device=devices[n % len(devices)]) for n, t in enumerate(tasks)]
    job = Job(
        folder,
        name="tomo pick",
        parameters={
            **parameters.to_dict(),
            **output.to_dict(),
            "segmentation": str(segmentation) if segmentation else None,
            "workflow": workflow,
            "clusters": list(clusters),
            "voxel_size": voxel_size,
        },
        inputs=[str(t.path) for t in tasks],
        results=("particles.star", "report.html"),
        overwrite=overwrite,
    )
    with job:
        waiting = [Task(key=t.key, identity=_identity(t), payload=t) for t in tasks]
        side = parameters.block + 2 * _HALO
        executor = make_executor(
            compute, n_items=len(tasks), bytes_per_item=_BASE_BYTES + _BLOCK_BYTES * side**3
        )
        records = job.run(executor, pick_tomogram, waiting, progress=progress)
        return _gather(Path(folder), tasks, records, parameters, output)


def _tasks(
    tomograms: Sequence[Path],
    folder: Path,
    parameters: TomogramPickParameters,
    output: TomogramPickOutput,
    segmentation: Path | None,
    workflow: str,
    clusters: Sequence[int],
    voxel_size: float | None,
) -> list[PickTask]:
    """Plan the tasks, and refuse what can be known to fail."""
    segmented = _segmented(segmentation, workflow, clusters, parameters)
    paths = [Path(t) for t in tomograms] or [Path(p) for p in segmented]
    if not paths:
        raise ParameterError(
            "tomograms", must="be given", got="none", remedy="Name one or more volumes"
        )
    keys = [tomogram_name(p) for p in paths]
    doubled = sorted({k for k in keys if keys.count(k) > 1})
    if doubled:
        raise ParameterError(
            "tomograms",
            must="have names of their own",
            got=f"{doubled[0]} twice",
            remedy="Rename one, or pick them into folders of their own",
        )
    tasks = []
    for key, path in zip(keys, paths, strict=True):
        found = next((v for p, v in segmented.items() if tomogram_name(p) == key), None)
        if parameters.method == "segment" and found is None:
            raise ParameterError(
                "segmentation",
                must=f"hold {path.name}",
                got=", ".join(Path(p).name for p in list(segmented)[:3]) or "nothing",
                remedy="Run cryopick tomo segment and name its folder with --segmentation",
            )
        tasks.append(
            PickTask(
                path=path,
                key=key,
                voxel_size=voxel_size,
                segmentation=found,
                clusters=tuple(clusters) or None,
                parameters=parameters,
                output=output,
                folder=folder,
            )
        )
    _check_volumes(tasks)
    return tasks


def _check_volumes(tasks: Sequence[PickTask]) -> None:
    """Refuse a single tomogram by its header; of several, each is refused on its own."""
    if len(tasks) == 1:
        volume = open_volume(tasks[0].path, voxel_size=tasks[0].voxel_size)
        tasks[0].parameters.slab(volume.shape[0])


def _segmented(
    folder: Path | None,
    workflow: str,
    clusters: Sequence[int],
    parameters: TomogramPickParameters,
) -> dict[str, Path]:
    """Volumes of a segmentation by the path of their tomogram."""
    if folder is None:
        return {}
    if parameters.method != "segment":
        raise ParameterError(
            "segmentation",
            must="be left out unless the method is segment",
            got=f"method {parameters.method}",
            remedy="Add --method segment",
        )
    path = Path(folder) / "segmentation.json"
    try:
        record = json.loads(path.read_bytes())
        names = [w["name"] for w in record["workflows"]]
        tomograms = record["tomograms"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(
            str(path),
            must="be the record of a finished cryopick tomo segment",
            got=type(error).__name__,
            remedy="Name the folder with --segmentation",
        ) from error
    chosen = workflow or (names[0] if len(names) == 1 else "")
    if chosen not in names:
        raise ParameterError(
            "workflow",
            must="be one of " + ", ".join(names),
            got=workflow or "none",
            remedy="Choose one with --workflow",
        )
    kind = "labels" if clusters else "posterior"
    found: dict[str, Path] = {}
    for tomogram in tomograms:
        volumes = sorted(Path(folder).glob(f"{tomogram['key']}_{chosen}_{kind}.*"))
        if volumes:
            found[str(tomogram["path"])] = volumes[0]
    return found


def _identity(task: PickTask) -> str:
    paths = [task.path] + ([task.segmentation] if task.segmentation else [])
    return identity_of(*paths)


def _gather(
    folder: Path,
    tasks: Sequence[PickTask],
    records: Sequence[Record],
    parameters: TomogramPickParameters,
    output: TomogramPickOutput,
) -> TomogramPickResult:
    tomograms = tuple(
        {"tomogram": t.key, "path": str(t.path), "error": r.error}
        | {k: v for k, v in r.summary.items() if k != "files"}
        for t, r in zip(tasks, records, strict=True)
    )
    done = [t for t in tomograms if not t["error"]]
    written = write_picks_of_all(folder, done, parameters=parameters, output=output)
    result = TomogramPickResult(
        folder=folder,
        tomograms=tomograms,
        n_kinds=written.kinds.number,
        coordinates=written.files,
    )
    if output.report:
        try:
            write_tomogram_report(
                folder / "report.html", done, written, parameters=parameters, folder=folder
            )
        except CryopickError as error:
            error.add_note("while writing report.html")
            raise
    return result
