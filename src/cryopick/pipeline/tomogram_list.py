"""The tomograms that jobs of a project worked on, with their segmentations and picks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryopick.errors import CryopickError
from cryopick.io.json_files import read_object
from cryopick.io.volumes import open_volume
from cryopick.pipeline.field_table import job_kind
from cryopick.pipeline.project_places import list_results
from cryopick.tables.paths import resolve_path
from cryopick.tables.tomograms import tomogram_name

__all__ = ["ListedTomogram", "list_tomograms"]

_RECORD = "segmentation.json"


@dataclass(kw_only=True)
class ListedTomogram:
    """One tomogram, and what was made of it."""

    id: str
    name: str
    path: Path
    shape: tuple[int, int, int]  # (z, y, x)
    voxel_size: float  # A
    labels: Path | None = None  # numbers of clusters, 255 where there is none
    clusters: list[dict[str, Any]] = field(default_factory=list)
    picks: Path | None = None  # folder of the job


def list_tomograms(project: Path) -> dict[str, ListedTomogram]:
    """Find all tomograms by id; a later job takes the place of an earlier one.

    Parameters
    ----------
    project
        Its folder. Jobs lie in it as results (`list_results`) or right inside it.
    """
    found: dict[str, ListedTomogram] = {}
    for folder in _folders(project):
        kind = job_kind(folder)
        if kind not in ("tomo segment", "tomo pick"):
            continue
        record = (read_object(folder / _RECORD) or {}) if kind == "tomo segment" else {}
        for name in (read_object(folder / "job.json") or {}).get("inputs") or []:
            one = _known(found, resolve_path(str(name), folder / "job.json"))
            if one is None:
                continue
            if kind == "tomo pick":
                one.picks = folder
            else:
                _add_labels(one, folder, record)
    return found


def _known(found: dict[str, ListedTomogram], path: Path) -> ListedTomogram | None:
    identity = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    if identity not in found:
        try:
            volume = open_volume(path)
        except CryopickError:
            return None
        found[identity] = ListedTomogram(
            id=identity,
            name=tomogram_name(path),
            path=path,
            shape=volume.shape,
            voxel_size=volume.voxel_size,
        )
    return found[identity]


def _add_labels(one: ListedTomogram, folder: Path, record: dict[str, Any]) -> None:
    for workflow in record.get("workflows") or []:
        for suffix in (".mrc", ".zarr"):
            path = folder / f"{one.name}_{workflow['name']}_labels{suffix}"
            if path.exists():
                one.labels, one.clusters = path, list(workflow.get("clusters") or [])
                return


def _folders(project: Path) -> Iterator[Path]:
    project = Path(project)
    for folder in sorted(project.iterdir()):
        if folder.is_dir() and not folder.is_symlink() and (folder / "job.json").is_file():
            yield folder
    yield from list_results(project).values()
