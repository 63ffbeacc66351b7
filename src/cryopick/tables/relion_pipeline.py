"""RELION's own record of a project: jobs, the files they make, and who uses them.

Labels and numbers are those that RELION 3.1 writes; later versions read them and write their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cryopick.io.atomic import write_text
from cryopick.io.star import write_star

__all__ = ["NODE_TYPES", "PROCESS_TYPES", "RelionProcess", "write_pipeline"]

PROCESS_TYPES = {
    "Import": 0,
    "CtfFind": 2,
    "AutoPick": 4,
    "Extract": 5,
    "Select": 7,
    "Class2D": 8,
}
NODE_TYPES = {
    "micrographs": 1,
    "coordinates": 2,
    "particles": 3,
    "averages": 5,
    "model": 8,
    "optimiser": 9,
}
_SUCCEEDED = 2
_INPUTS = {  # options of RELION's jobs: kind of node that they take
    "CtfFind": {"input_star_mics": "micrographs"},
    "AutoPick": {"fn_input_autopick": "micrographs"},
    "Extract": {"star_mics": "micrographs", "coords_suffix": "coordinates"},
    "Class2D": {"fn_img": "particles"},
    "Select": {"fn_model": "model"},
}


@dataclass(frozen=True, kw_only=True)
class RelionProcess:
    """One job of a pipeline."""

    name: str  # for example CtfFind/job001
    made: dict[str, str]  # file: kind of node
    used: tuple[str, ...] = ()  # files

    @property
    def kind(self) -> str:
        """Its type, for example CtfFind."""
        return self.name.split("/")[0]


def write_pipeline(folder: Path, processes: Sequence[RelionProcess]) -> None:
    """Write ``default_pipeline.star``, and what RELION's interface looks for beside it.

    Parameters
    ----------
    folder
        The project of RELION.
    processes
        In the order of their numbers, from 1 without a gap.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    nodes = {file: NODE_TYPES[kind] for p in processes for file, kind in p.made.items()}
    inputs = [(file, f"{p.name}/") for p in processes for file in p.used if file in nodes]
    outputs = [(f"{p.name}/", file) for p in processes for file in p.made]
    blocks = {
        "pipeline_general": _table(("rlnPipeLineJobCounter",), [(len(processes) + 1,)]),
        "pipeline_processes": _table(
            (
                "rlnPipeLineProcessName",
                "rlnPipeLineProcessAlias",
                "rlnPipeLineProcessType",
                "rlnPipeLineProcessStatus",
            ),
            [(f"{p.name}/", "None", PROCESS_TYPES[p.kind], _SUCCEEDED) for p in processes],
        ),
        "pipeline_nodes": _table(
            ("rlnPipeLineNodeName", "rlnPipeLineNodeType"), list(nodes.items())
        ),
        "pipeline_input_edges": _table(
            ("rlnPipeLineEdgeFromNode", "rlnPipeLineEdgeProcess"), inputs
        ),
        "pipeline_output_edges": _table(
            ("rlnPipeLineEdgeProcess", "rlnPipeLineEdgeToNode"), outputs
        ),
    }
    for file, kind in nodes.items():  # the interface offers these as inputs of new jobs
        write_text(folder / ".Nodes" / str(kind) / file, "")
    for process in processes:
        _write_job(folder / process.name, process, nodes)
        write_text(folder / process.name / "RELION_JOB_EXIT_SUCCESS", "")
    kept = {name: table for name, table in blocks.items() if len(table)}
    write_star(folder / "default_pipeline.star", kept, as_pairs=("pipeline_general",))


def _write_job(folder: Path, process: RelionProcess, nodes: Mapping[str, int]) -> None:
    """Write what the interface opens for a job: its inputs; all else is at RELION's defaults."""
    options = [("other_args", "")]
    for option, kind in _INPUTS.get(process.kind, {}).items():
        fits = [file for file in process.used if nodes.get(file) == NODE_TYPES[kind]]
        options += [(option, fits[-1])] if fits else []
    blocks = {
        "job": _table(("rlnJobType", "rlnJobIsContinue"), [(PROCESS_TYPES[process.kind], 0)]),
        "joboptions_values": _table(("rlnJobOptionVariable", "rlnJobOptionValue"), options),
    }
    write_star(folder / "job.star", blocks, as_pairs=("job",))


def _table(labels: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(labels))
