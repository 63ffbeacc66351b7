"""Streams of the small stack of `classification_world`, and what they are compared by."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from classification_world import DIAMETER, make_particles

from cryopick.class2d.stream_parameters import StreamParameters
from cryopick.io.mrc import read_mrc
from cryopick.pipeline.stream import StreamResult, classify_stream
from cryopick.pipeline.stream_run_parameters import StreamRunParameters
from cryopick.tables.model import Particles
from cryopick.tables.relion import read_particles, write_particles

__all__ = ["cut", "members", "parameters", "particles_in", "results_of", "stream", "whole"]

_COMMAND = re.compile(rb"# .*\n")  # of the optimiser file
_TIMES = re.compile(rb'"(?:seconds|identity)": [^,}]*')


def parameters(**changes: Any) -> StreamParameters:
    values = {
        "classes": 4,
        "diameter": DIAMETER,
        "junk": False,
        "iterations": 8,
        "first_batch": 120,
        "batch": 60,
        "growth": 1.2,
        "resolution_limit": 14.0,
    }
    return StreamParameters(**(values | changes))


def stream(*inputs: str, out: str = "out", **changes: Any) -> StreamResult:
    """Take all that is there; `changes` go to where they belong."""
    own = {k: changes.pop(k) for k in ("references", "overwrite", "tell") if k in changes}
    names = ("full_pass", "xmd", "scipion", "idle", "poll", "close", "threads", "execution")
    run = {k: changes.pop(k) for k in names if k in changes}
    return classify_stream(
        inputs or ["particles.star"],
        Path(out),
        parameters=parameters(**changes),
        compute=StreamRunParameters(**({"threads": 1, "close": True} | run)),
        **own,
    )


def whole(n: int = 200, *, noise: float = 0.15) -> Particles:
    """Write all particles into the working folder."""
    return make_particles(Path.cwd(), n=n, noise=noise)


def cut(particles: Particles, first: int, stop: int, path: str) -> None:
    """Write some of the particles as a table of their own."""
    rows = particles.rows.iloc[first:stop]
    part = Particles(rows=rows, optics=particles.optics, source=particles.source)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_particles(Path(path), part)


def particles_in(out: str = "out") -> Any:
    """Rows of the last round."""
    found = next(Path(out, "current").glob("run_it*_data.star"))
    return read_particles(found).rows


def averages_in(out: str = "out") -> np.ndarray:
    found = next(Path(out, "current").glob("run_it*_unmasked_classes.mrcs"))
    return np.asarray(read_mrc(found), np.float64)


def members(out: str = "out") -> dict[str, int]:
    """Class of each particle, by the name of its image."""
    rows = particles_in(out)
    names = [f"{i}@{Path(n).name}" for i, n in zip(rows["image_index"], rows["image"], strict=True)]
    return dict(zip(names, rows["class_number"], strict=True))


def results_of(out: str = "out") -> dict[str, bytes]:
    """All files of a stream but for times and command lines."""
    found = {}
    for path in sorted(Path(out).rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_symlink() or not path.is_file() or name in (".lock", "job.json", "report.html"):
            continue
        if name.startswith("current/"):
            continue
        data = path.read_bytes()
        if path.suffix in (".mrcs", ".npz"):
            data = _numbers_of(path)
        found[name] = _TIMES.sub(b"", _COMMAND.sub(b"", data))
    return found


def _numbers_of(path: Path) -> bytes:
    if path.suffix == ".mrcs":
        return np.ascontiguousarray(read_mrc(path)).tobytes()
    with np.load(path) as arrays:
        return b"".join(n.encode() + arrays[n].tobytes() for n in sorted(arrays.files))
