"""Compare what a project says with what its folder holds."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cryopick.errors import CryopickError, ProjectError
from cryopick.io.atomic import find_leftovers
from cryopick.io.mrc import read_mrc_header
from cryopick.pipeline.project_aliases import read_aliases, wrong_links
from cryopick.pipeline.project_decisions import read_decisions
from cryopick.pipeline.project_index import Index
from cryopick.pipeline.project_layout import (
    ALIASES,
    DECISIONS,
    INDEX,
    JOBS,
    LEDGER,
    list_job_folders,
    parse_job_folder,
)
from cryopick.pipeline.project_records import LedgerLine, StepRecord, read_ledger, read_step
from cryopick.pipeline.project_stacks import find_absent_images

__all__ = ["verify_project"]

_MRC = (".mrc", ".mrcs", ".ctf")  # files whose header says how long they must be


def verify_project(project: Path) -> list[str]:
    """Look for what is missing, broken or left over in a project; nothing is changed.

    Every file that a ledger or a finished job promises must be there, with the size that was
    recorded or that its own header says; and every image that its tables name.

    Parameters
    ----------
    project
        The folder.

    Returns
    -------
    list of str
        A sentence for each fault; empty if all is well.
    """
    project = Path(project)
    return [
        *_folders(project),
        *_records(project),
        *find_absent_images(_tables(project)),
        *_aliases(project),
        *_decisions(project),
        *_leftovers(project),
        *_index(project),
    ]


def _folders(project: Path) -> Iterator[str]:
    names = sorted(p.name for p in (project / JOBS).iterdir()) if (project / JOBS).exists() else []
    parsed = {name: parse_job_folder(name) for name in names}
    for name, found in parsed.items():
        if found is None and not name.startswith("."):
            yield f"{project / JOBS / name} is no folder of a job."
    numbers = Counter(found[0] for found in parsed.values() if found)
    for number, count in numbers.items():
        if count > 1:
            yield f"Job {number} has {count} folders; only the first by name is used."


def _records(project: Path) -> Iterator[str]:
    for folder in list_job_folders(project).values():
        try:
            record = read_step(folder)
        except ProjectError as error:
            yield str(error)
            continue
        yield from _promises(folder, record)


def _tables(project: Path) -> Iterator[Path]:
    """List the tables of jobs that are done, but for those of single micrographs."""
    for folder in list_job_folders(project).values():
        with contextlib.suppress(ProjectError):
            if read_step(folder).is_done:
                yield from sorted(p for p in folder.glob("*.star") if p.is_file())


def _promises(folder: Path, record: StepRecord) -> Iterator[str]:
    """Check the files of a job: those of its items, and those that join them."""
    last: dict[str, int] = {}  # of each item only its last line counts
    for line in read_ledger(folder / LEDGER):
        last[line.key] = line.end
    for line in read_ledger(folder / LEDGER):
        if line.end == last[line.key] and not line.error:
            yield from _item_files(folder, line)
    if record.is_done:
        for name, size in record.files.items():
            yield from _file(folder / name, size, f"job {record.number}")


def _item_files(folder: Path, line: LedgerLine) -> Iterator[str]:
    for name in line.files:
        yield from _file(folder / name, line.sizes.get(name), line.key)


def _file(path: Path, size: int | None, owner: str) -> Iterator[str]:
    if not path.is_file():
        yield f"{path} of {owner} is missing."
        return
    found = path.stat().st_size
    if size is not None and found != size:
        yield f"{path} of {owner} has {found} bytes instead of {size}."
    elif path.suffix in _MRC:
        try:
            read_mrc_header(path)
        except CryopickError as error:
            yield str(error)


def _aliases(project: Path) -> Iterator[str]:
    try:
        aliases = read_aliases(project)
    except ProjectError as error:
        yield str(error)
        return
    folders = list_job_folders(project)
    for name, number in aliases.items():
        if number not in folders:
            yield f"Alias {name} of {project / ALIASES} stands for job {number}, which is missing."
    for name, target in wrong_links(project, aliases).items():
        yield f"Link {project / name} leads to {target}, which is not the job of its alias."


def _decisions(project: Path) -> Iterator[str]:
    path = project / DECISIONS
    if path.exists():
        n_lines = sum(bool(line.strip()) for line in path.read_bytes().splitlines())
        n_bad = n_lines - len(read_decisions(project))
        if n_bad:
            yield f"{path} has {n_bad} of {n_lines} lines that cannot be read."


def _leftovers(project: Path) -> Iterator[str]:
    for path in find_leftovers(project):
        yield f"{path} was left by a process that was killed; it may be removed."


def _index(project: Path) -> Iterator[str]:
    """Compare the index, brought up to date, with one made from the files alone."""
    if not (project / INDEX).exists():
        yield f"{project / INDEX} is missing. Make it with: cryopick project rebuild {project}."
        return
    with Index.for_reading(project) as stored, Index.from_files(project) as fresh:
        if stored.note:
            yield stored.note
            return
        n_other = sum((Counter(stored.dump()) - Counter(fresh.dump())).values())
        n_absent = sum((Counter(fresh.dump()) - Counter(stored.dump())).values())
    if n_other or n_absent:
        yield (
            f"{project / INDEX} has {n_other} rows that the files do not say, and lacks "
            f"{n_absent}. Make it anew with: cryopick project rebuild {project}."
        )
