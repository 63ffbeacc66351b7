"""A project as a project of RELION: the same files under the names that RELION gives to jobs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from cryopick.io.atomic import make_folder, output_errors, writing
from cryopick.pipeline.project import Project
from cryopick.pipeline.project_export_jobs import exported_jobs
from cryopick.pipeline.project_records import StepRecord
from cryopick.tables.paths import micrograph_key, resolve_path
from cryopick.tables.relion_paths import rename_files
from cryopick.tables.relion_pipeline import RelionProcess, write_pipeline

__all__ = ["export_to_relion"]

_IMPORT = "Import/job001"
_OURS = ("step.json", "job.json", "ledger.jsonl", "checkpoint.npz")  # of no use to RELION
_SUFFIX_FILE = "coords_suffix_autopick.star"  # one line, no STAR file


def export_to_relion(project: Project, out: Path, *, copies: bool) -> list[str]:
    """Write a folder that RELION opens as a project.

    STAR files are written anew with names that hold from `out`; all other files are links to
    those of the project, or copies. What lies outside of the project goes to ``Import/job001``.

    Parameters
    ----------
    project
        Its current jobs are exported, and those they are made from.
    out
        A new or empty folder.
    copies
        Copy files instead of linking to them.

    Returns
    -------
    list of str
        Names of the jobs in RELION.

    Raises
    ------
    ProjectError
        If no job is done.
    OutputError
        If a file cannot be written.
    """
    export = _Export(project, Path(out), copies=copies)
    return export.write()


class _Export:
    def __init__(self, project: Project, out: Path, *, copies: bool) -> None:
        self._project, self._out, self._copies = project, out, copies
        self._jobs = exported_jobs(project)
        numbered = enumerate(self._jobs, start=2)  # 1 is what comes from outside
        self._names = {job.number: f"{kind}/job{n:03d}" for n, (job, kind) in numbered}
        self._places = {
            project.job_folder(number).resolve(): name for number, name in self._names.items()
        }
        self._renamed: dict[str, str] = {}
        self._imported: dict[str, str] = {}  # file: kind of node

    def write(self) -> list[str]:
        make_folder(self._out)
        for job, _ in self._jobs:
            self._write_job(self._project.job_folder(job.number), self._names[job.number])
        processes = [self._process(job) for job, _ in self._jobs]
        make_folder(self._out / _IMPORT)
        first = RelionProcess(name=_IMPORT, made=self._imported)
        write_pipeline(self._out, [first, *processes])
        return [process.name for process in (first, *processes)]

    def _write_job(self, folder: Path, name: str) -> None:
        for where, folders, files in os.walk(folder):
            folders[:] = [f for f in folders if not f.startswith(".")]
            for file in files:
                path = Path(where) / file
                if not file.startswith(".") and file not in _OURS:
                    self._put(path, f"{name}/{path.relative_to(folder)}")

    def _put(self, path: Path, name: str) -> None:
        """Write a file under its name in RELION."""
        target = self._out / name
        if path.name == _SUFFIX_FILE:
            with writing(target, "w") as handle:
                handle.write(self._rename(path.read_text().strip(), path) + "\n")
        elif path.suffix == ".star":
            with path.open() as lines, writing(target, "w") as handle:
                handle.writelines(rename_files(lines, lambda n: self._rename(n, path)))
        else:
            make_folder(target.parent)
            with output_errors(target):
                if self._copies:
                    shutil.copyfile(path, target)
                else:
                    target.symlink_to(os.path.relpath(path.resolve(), target.parent.resolve()))

    def _rename(self, name: str, table: Path) -> str:
        """Give the name that a file has in RELION's project."""
        if name not in self._renamed:
            path = resolve_path(name, table)
            real = path.parent.resolve() / path.name
            inside = [folder for folder in real.parents if folder in self._places]
            if inside:
                new = f"{self._places[inside[0]]}/{real.relative_to(inside[0])}"
            else:
                new = self._import(path, name) if path.is_file() else name
            self._renamed[name] = new
        return self._renamed[name]

    def _import(self, path: Path, name: str) -> str:
        """Take in a file from outside; the results of a micrograph keep their names."""
        key = micrograph_key(name)
        new = f"{_IMPORT}/{key}{path.name.removeprefix(Path(key).name)}"
        self._renamed[name] = new  # a table may name itself
        self._put(path, new)
        if path.suffix == ".star":
            text = path.read_text()
            is_particles = "_rlnImageName" in text
            self._imported[new] = "particles" if is_particles else "micrographs"
        return new

    def _process(self, job: StepRecord) -> RelionProcess:
        folder, name = self._project.job_folder(job.number), self._names[job.number]
        made = {f"{name}/{file}": kind for file, kind in _made(folder).items()}
        used = [self._rename(i, folder / "job.json") for i in _inputs(folder)]
        for other, kind in self._jobs:  # of picks, RELION 3 and 4 want different files
            is_upstream = (other.step, other.identity) in job.upstream.items()
            nodes = self._nodes_of(self._names[other.number])
            is_named = bool(set(nodes) & set(used))
            if (is_named and kind == "AutoPick") or (is_upstream and not is_named):
                used += nodes
        return RelionProcess(name=name, made=made, used=tuple(dict.fromkeys(used)))

    def _nodes_of(self, name: str) -> list[str]:
        return [f"{name}/{file}" for file in _made(self._out / name)]


def _inputs(folder: Path) -> Sequence[str]:
    try:
        return [str(i) for i in json.loads((folder / "job.json").read_bytes())["inputs"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _made(folder: Path) -> dict[str, str]:
    """Files of a job that others take as input, with the kind of node that they are."""
    kinds = {
        "micrographs_ctf.star": "micrographs",
        "micrographs.star": "micrographs",
        "autopick.star": "coordinates",
        _SUFFIX_FILE: "coordinates",
        "particles.star": "particles",
        "class_averages.star": "averages",
    }
    found = {name: kind for name, kind in kinds.items() if (folder / name).is_file()}
    optimisers = sorted(p.name for p in folder.glob("run_it[0-9][0-9][0-9]_optimiser.star"))
    for last in optimisers[-1:]:
        found[last] = "optimiser"
        found[last.replace("_optimiser", "_data")] = "particles"
        found[last.replace("_optimiser", "_model")] = "model"
    return found
