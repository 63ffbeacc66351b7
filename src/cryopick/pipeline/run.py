"""From micrographs to particles and a report, unattended: pick, extract, report.

A project is a folder with ``pick`` and ``extract``, one job each, and ``report.html``. The same
command again goes on where it was stopped, and takes up micrographs that were added.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryopick.execution.parameters import ComputeParameters
from cryopick.extraction.extraction_parameters import ExtractionParameters
from cryopick.image.fourier import good_size
from cryopick.io.atomic import make_folder
from cryopick.picking.log_parameters import LogParameters
from cryopick.pipeline.extraction import ExtractionResult, extract
from cryopick.pipeline.job import ProgressCallback
from cryopick.pipeline.pickers import LogPicker
from cryopick.pipeline.picking import PickingResult, pick_micrographs
from cryopick.pipeline.report import write_report
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.tables.micrographs import open_micrographs, pixel_sizes
from cryopick.tables.model import Micrographs
from cryopick.tables.relion import read_picks

__all__ = ["ProgressMaker", "RunResult", "box_size_for", "run_project"]

ProgressMaker = Callable[[str], AbstractContextManager[ProgressCallback | None]]
_BOX_PER_DIAMETER = 1.5  # leaves a rim of background to normalise on


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What an unattended run made."""

    folder: Path
    picking: PickingResult
    extraction: ExtractionResult | None  # None where there was no pick
    report: Path
    report_problems: list[str]  # a sentence for each part that could not be drawn

    @property
    def n_refused(self) -> int:
        """Micrographs and files that were left out with a reason."""
        return len(self.picking.failed) + (len(self.extraction.failures) if self.extraction else 0)

    def to_dict(self) -> dict[str, Any]:
        """Gather the results of the steps, ready for JSON."""
        return {
            "folder": str(self.folder),
            "pick": self.picking.to_dict(),
            "extract": self.extraction.to_dict() if self.extraction else None,
            "report": str(self.report),
            "report_problems": self.report_problems,
        }


def run_project(
    inputs: Sequence[str],
    folder: Path,
    *,
    parameters: RunParameters,
    compute: ComputeParameters | None = None,
    pixel_size: float | None = None,
    overwrite: bool = False,
    progress: ProgressMaker = lambda _: nullcontext(None),
) -> RunResult:
    """Pick, extract and report.

    Parameters
    ----------
    inputs
        One STAR file of RELION; or paths, folders and globs of images.
    folder
        Of the project.
    parameters
        What to look for and what to write.
    compute
        How much of the machine to use.
    pixel_size
        A/px of all micrographs, instead of what their table or headers say.
    overwrite
        Throw away what other parameters left in `folder`.
    progress
        Given the name of a step, opens what its progress is told to.

    Returns
    -------
    RunResult
        Micrographs that were refused are listed in the results of the steps.

    Raises
    ------
    CryopickError
        If the inputs, the project folder or the parameters do not allow a run.
    """
    folder, compute = Path(folder), compute or ComputeParameters()
    micrographs = open_micrographs(inputs, pixel_size=pixel_size)
    for_picking = LogParameters(
        min_diameter=parameters.min_diameter,
        max_diameter=parameters.max_diameter,
        white_particles=parameters.white_particles,
    )
    for_extraction = _extraction_parameters(parameters, micrographs)
    make_folder(folder)
    with progress("Picking") as tell:
        picking = pick_micrographs(
            inputs,
            folder / "pick",
            picker=LogPicker(parameters=for_picking),
            compute=compute,
            pixel_size=pixel_size,
            overwrite=overwrite,
            progress=tell,
        )
    extraction = None
    if any(m.n_picks for m in picking.picked):
        coordinates = picking.folder / "autopick.star"
        with progress("Extracting") as tell:
            extraction = extract(
                micrographs,
                read_picks(coordinates),
                folder / "extract",
                parameters=for_extraction,
                compute=compute,
                inputs=[*inputs, str(coordinates)],
                overwrite=overwrite,
                progress=tell,
            )
    report = folder / "report.html"
    problems = write_report(
        report,
        title=f"Particles of {folder.resolve().name}",
        micrographs=micrographs,
        picking=picking,
        extraction=extraction,
        parameters=for_picking,
    )
    return RunResult(
        folder=folder,
        picking=picking,
        extraction=extraction,
        report=report,
        report_problems=problems,
    )


def box_size_for(diameter: float, *, pixel_size: float) -> int:
    """Choose a box, px, for particles of a diameter in A.

    Examples
    --------
    >>> box_size_for(180.0, pixel_size=1.5)
    180
    """
    return good_size(max(8, math.ceil(_BOX_PER_DIAMETER * diameter / pixel_size)), even=True)


def _extraction_parameters(
    parameters: RunParameters, micrographs: Micrographs
) -> ExtractionParameters:
    # Of several pixel sizes the finest gives a box that is large enough for all.
    finest = float(pixel_sizes(micrographs).min())
    return ExtractionParameters(
        box_size=parameters.box_size or box_size_for(parameters.max_diameter, pixel_size=finest),
        rescale=parameters.rescale,
        invert_contrast=not parameters.white_particles,
        float16=parameters.float16,
    )
