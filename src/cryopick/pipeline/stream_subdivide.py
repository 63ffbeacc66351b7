"""Part a class of a stream into several, on request."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from cryopick.class2d.stream_parameters import StreamParameters
from cryopick.errors import ProjectError
from cryopick.execution.local import require_devices
from cryopick.execution.parameters import ComputeParameters
from cryopick.pipeline.class2d_parameters import MachineParameters
from cryopick.pipeline.class2d_run import Report, Tell
from cryopick.pipeline.stream import NAME, Stream, StreamResult, stream_job
from cryopick.pipeline.stream_run_parameters import StreamRunParameters

__all__ = ["subdivide_class"]


def subdivide_class(
    out: Path,
    class_number: int,
    parts: int,
    *,
    compute: MachineParameters,
    progress: Report,
    tell: Tell,
) -> StreamResult:
    """Part a class, as a round of its own; the stream goes on with the parts.

    Parameters
    ----------
    out
        Folder of a stream that is not at work.
    class_number
        From 1. The largest part keeps the number; the others get new ones at the end.
    parts
        At least 2.
    compute
        How much of the machine to use.
    progress, tell
        Called with where the round is, and with sentences for the user.

    Raises
    ------
    ProjectError
        If the folder holds no stream, or one that is at work.
    ParameterError
        If there is no such class, or it has too few members.
    """
    require_devices(ComputeParameters(device=compute.device))
    stored = _stored(Path(out))
    names = {f.name for f in fields(StreamParameters)}
    parameters = StreamParameters.from_dict(
        {n: v for n, v in stored["parameters"].items() if n in names}
    )
    machine = {f.name: getattr(compute, f.name) for f in fields(MachineParameters)}
    job = stream_job(out, stored["parameters"], inputs=stored["inputs"], overwrite=False)
    with job:
        stream = Stream(
            stored["inputs"],
            job,
            parameters,
            StreamRunParameters(**machine),
            None,
            stored["parameters"].get("pixel_size"),
            progress=progress,
            tell=tell,
        )
        return StreamResult(values=stream.subdivide(class_number - 1, parts))


def _stored(out: Path) -> dict[str, Any]:
    try:
        stored = json.loads((out / "job.json").read_bytes())
        is_stream = stored["name"] == NAME
    except (OSError, ValueError, KeyError, TypeError):
        is_stream = False
    if not is_stream or not (out / "rounds").is_dir():
        raise ProjectError(
            str(out),
            must="hold a stream with a round",
            got="none",
            remedy="Begin with: cryopick class2d stream",
        )
    return dict(stored)
