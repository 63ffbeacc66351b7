"""Join the sets of several pickers into one, written as a picking job writes its picks.

The folder holds what the folder of a picking job holds (see `cryopick.pipeline.picking`), with
all candidates in ``peaks/``; ``consensus.json``, how far each picker can be trusted;
``coordinates.xmd`` for Xmipp; ``report.html``; and ``particles/``, what was extracted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryopick.execution.parameters import ComputeParameters
from cryopick.picking.consensus_parameters import ConsensusParameters
from cryopick.picking.consensus_training_parameters import ConsensusTraining
from cryopick.pipeline.consensus_chances import ShareCallback
from cryopick.pipeline.consensus_finish import ConsensusInput, judge, write_consensus
from cryopick.pipeline.consensus_output_parameters import ConsensusOutputParameters
from cryopick.pipeline.consensus_plan import TrainingFiles, plan_training
from cryopick.pipeline.consensus_request import ConsensusRequest
from cryopick.pipeline.consensus_result import ConsensusResult, PickerRecord
from cryopick.pipeline.consensus_sets import find_candidates
from cryopick.tables.micrographs import open_micrographs

__all__ = ["ConsensusResult", "PickerRecord", "join_request", "join_sets"]

_NAME = "pick consensus"


def join_sets(
    sets: Sequence[Path],
    micrographs: Sequence[str],
    folder: Path,
    *,
    parameters: ConsensusParameters,
    output: ConsensusOutputParameters | None = None,
    set_pixel_sizes: Sequence[float | None] = (),
    compute: ComputeParameters | None = None,
    pixel_size: float | None = None,
    training: ConsensusTraining | None = None,
    files: TrainingFiles | None = None,
    overwrite: bool = False,
    progress: ShareCallback | None = None,
) -> ConsensusResult:
    """Join coordinate sets and write the result; the order of the sets changes nothing.

    Parameters
    ----------
    sets
        Files or folders of picks of any program, two or more; one, if nothing is trained.
    micrographs
        One STAR file; or paths, folders and globs of images.
    folder
        Where the results go. Started again with the same sets, only what is missing is written.
    parameters
        Of the consensus.
    output
        What to write beside the picks; particles are extracted only where this asks for them.
    set_pixel_sizes
        A/px that each set is in; that of the micrographs where None, or if not given.
    compute
        How much of the machine to use.
    pixel_size
        A/px of all micrographs, instead of what their table or headers say.
    training
        Of the networks.
    files
        That the networks learn from or are tested on beside the sets.
    overwrite
        Throw away what a job with other parameters left in `folder`.
    progress
        Called with the step and the share of it that is done.

    Raises
    ------
    ParameterError
        If there are fewer than two sets, not as many pixel sizes as sets, more votes are asked
        for than there are sets, options of networks contradict each other or have no say, or a
        device is not there.
    DataError
        If the sets hold no picks, or what networks are to learn from or be tested on is of no use.
    TableError, FormatError
        If a set or the table of micrographs is missing, broken, or of other micrographs.
    ProjectError, OutputError
        If `folder` holds another job or is in use, or cannot be written.
    """
    request = ConsensusRequest(
        sets=tuple(map(Path, sets)),
        micrographs=tuple(micrographs),
        parameters=parameters,
        training=training or ConsensusTraining(),
        files=files or TrainingFiles(),
        output=output or ConsensusOutputParameters(particles=False),
        compute=compute or ComputeParameters(),
        set_pixel_sizes=tuple(set_pixel_sizes),
        pixel_size=pixel_size,
        overwrite=overwrite,
    )
    return join_request(request, folder, progress=progress)


def join_request(
    request: ConsensusRequest, folder: Path, *, progress: ShareCallback | None = None
) -> ConsensusResult:
    """Join coordinate sets as `join_sets` does, with everything that is asked in one value.

    Parameters
    ----------
    request
        What is asked.
    folder, progress
        As for `join_sets`.

    Raises
    ------
    CryopickError
        As `join_sets`.
    """
    request.check()
    given = _read(request)
    plan = None
    if request.parameters.method == "network":
        plan = plan_training(
            given.table,
            given.fields,
            parameters=request.parameters,
            training=request.training,
            files=request.files,
        )
    tell = progress or (lambda step, share: None)
    has_table = given.table.source is not None
    job = request.job(Path(folder), name=_NAME, plan=plan, has_table=has_table)
    with job:
        judged = judge(job.folder, request, given, plan, progress=tell)
        return write_consensus(job, request, given, judged, plan, progress=tell)


def _read(request: ConsensusRequest) -> ConsensusInput:
    """Read micrographs and sets, and join the picks."""
    table = open_micrographs(request.micrographs, pixel_size=request.pixel_size)
    sets = request.read_sets(table)
    box = request.box(sets, table)
    side = request.box_size(box, table)
    radius = request.radius(box)
    fields = find_candidates(table, sets, radius=radius)
    return ConsensusInput(table=table, sets=sets, fields=fields, radius=radius, box_size=side)
