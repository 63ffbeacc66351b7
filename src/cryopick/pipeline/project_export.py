"""A project for another program: RELION's folder, or the tables of Scipion or cryoSPARC."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from cryopick.errors import FormatError, ProjectError
from cryopick.io.atomic import make_folder
from cryopick.pipeline.convert import ConvertResult, convert
from cryopick.pipeline.convert_parameters import ConvertParameters
from cryopick.pipeline.project import Project
from cryopick.pipeline.project_export_jobs import exported_jobs, require_empty_folder
from cryopick.pipeline.project_particles import find_micrographs, find_particles, find_picks
from cryopick.pipeline.project_relion import export_to_relion

__all__ = ["ExportResult", "Layout", "export_project"]

Layout = Literal["relion", "scipion", "cryosparc"]
_Target = tuple[Path, Path, str | None]  # source, file or folder to write, its format
_NO_POSITIONS = "positions in micrographs are left out"


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What was written."""

    folder: str
    layout: Layout
    written: tuple[str, ...]  # jobs of RELION, or files
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self)


def export_project(
    project: Project, out: Path, *, layout: Layout, copies: bool = False
) -> ExportResult:
    """Write a project as another program reads it.

    Parameters
    ----------
    project
        Opened for reading or writing.
    out
        A new or empty folder.
    layout
        ``relion``: a whole project. ``scipion``: ``particles.xmd`` and a folder
        ``coordinates`` of ``.pos`` files. ``cryosparc``: ``particles.cs``. The particles are
        those of the alias selection, else classes, else particles.
    copies
        RELION: copy images instead of linking to them.

    Raises
    ------
    CryopickError
        If the project has nothing to export, or `out` holds something or cannot be written.
    """
    out = Path(out)
    require_empty_folder(out)
    jobs = exported_jobs(project)
    particles = find_particles(project, jobs)
    doubts = particles.notes if particles else ()
    if layout == "relion":
        names = export_to_relion(project, out, copies=copies)
        return ExportResult(folder=str(out), layout=layout, written=tuple(names), notes=doubts)
    picks = find_picks(project, jobs, particles)
    targets: list[_Target] = []
    if particles:
        suffix = ".xmd" if layout == "scipion" else ".cs"
        targets.append((particles.table, out / f"particles{suffix}", None))
    if picks and layout == "scipion":
        targets.append((picks, out / "coordinates", "xmipp"))
    if not targets:
        raise ProjectError(
            str(project.folder),
            must="hold a finished extraction, to be exported",
            got="none",
            remedy="Look at it with: cryopick project status",
        )
    make_folder(out)
    micrographs = find_micrographs(project, jobs)
    done = [_convert(target, micrographs) for target in targets]
    notes = [*doubts, *(note for one in done for note in one.notes)]
    return ExportResult(
        folder=str(out),
        layout=layout,
        written=tuple(str(file) for one in done for file in one.files),
        notes=tuple(dict.fromkeys(notes)),
    )


def _convert(wanted: _Target, micrographs: Path | None) -> ConvertResult:
    """Convert one table; without positions if the micrographs, whose sizes they need, are gone."""
    source, target, form = wanted
    convert_with = partial(convert, source, target, parameters=ConvertParameters(), to_format=form)
    reason = "no table of the project names the micrographs"
    if micrographs is not None:
        try:
            return convert_with(micrographs=str(micrographs))
        except FormatError as error:
            reason = f"{error.what} must {error.must}; got {error.got}"
    done = convert_with()
    if target.suffix != ".cs":
        return done
    notes = tuple(n for n in done.notes if not n.startswith(_NO_POSITIONS))
    is_lost = len(notes) < len(done.notes)
    return replace(done, notes=(*notes, f"{_NO_POSITIONS}: {reason}") if is_lost else notes)
