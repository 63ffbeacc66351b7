"""A project for another program: RELION's folder, or the tables of Scipion or cryoSPARC."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cryopick.errors import ProjectError
from cryopick.io.atomic import make_folder
from cryopick.pipeline.convert import convert
from cryopick.pipeline.convert_parameters import ConvertParameters
from cryopick.pipeline.project import Project
from cryopick.pipeline.project_export_jobs import exported_jobs, require_empty_folder
from cryopick.pipeline.project_relion import export_to_relion

__all__ = ["ExportResult", "Layout", "export_project"]

Layout = Literal["relion", "scipion", "cryosparc"]
_TABLES = ("Extract", "Class2D", "Select")  # whose particles are taken, the latest job's


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
        those of the latest job that made some.
    copies
        RELION: copy images instead of linking to them.

    Raises
    ------
    CryopickError
        If the project has nothing to export, or `out` holds something or cannot be written.
    """
    out = Path(out)
    require_empty_folder(out)
    if layout == "relion":
        names = export_to_relion(project, out, copies=copies)
        return ExportResult(folder=str(out), layout=layout, written=tuple(names))
    jobs = [(project.job_folder(job.number), kind) for job, kind in exported_jobs(project)]
    particles = [f / "particles.star" for f, kind in jobs if kind in _TABLES]
    particles = [path for path in particles if path.is_file()]
    picks = [f / "autopick.star" for f, kind in jobs if kind == "AutoPick"]
    tables = [f / "micrographs_ctf.star" for f, kind in jobs if kind == "CtfFind"]
    targets: list[tuple[Path, Path, str | None]] = []
    if particles:
        suffix = ".xmd" if layout == "scipion" else ".cs"
        targets.append((particles[-1], out / f"particles{suffix}", None))
    if picks and layout == "scipion":
        targets.append((picks[-1], out / "coordinates", "xmipp"))
    if not targets:
        raise ProjectError(
            str(project.folder),
            must="hold a finished extraction, to be exported",
            got="none",
            remedy="Look at it with: cryopick project status",
        )
    make_folder(out)
    done = [
        convert(
            source,
            target,
            parameters=ConvertParameters(),
            to_format=form,
            micrographs=str(tables[-1]) if tables else None,
        )
        for source, target, form in targets
    ]
    return ExportResult(
        folder=str(out),
        layout=layout,
        written=tuple(str(file) for one in done for file in one.files),
        notes=tuple(dict.fromkeys(note for one in done for note in one.notes)),
    )
