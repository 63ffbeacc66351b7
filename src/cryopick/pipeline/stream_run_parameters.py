"""How a stream is watched, when it ends, and what is written beside RELION's files."""

from __future__ import annotations

from dataclasses import dataclass

from cryopick.parameters import option
from cryopick.pipeline.class2d_parameters import ClusterMachineParameters

__all__ = ["StreamRunParameters"]


@dataclass(frozen=True, kw_only=True)
class StreamRunParameters(ClusterMachineParameters):
    """Machine, end and files."""

    close: bool = option(
        default=False, help="Take what is there and end, instead of waiting for more."
    )
    idle: float = option(
        0.0, help="End after so long without a new particle; 0 waits for a file named close in "
        "--out.", unit="min", minimum=0,
    )  # fmt: skip
    poll: float = option(5.0, help="Pause between two looks for new particles.", unit="s", above=0)
    full_pass: bool = option(
        default=False, help="At the end, classify all particles once more, as class2d em does from "
        "a cold start, and tell the difference.",
    )  # fmt: skip
    xmd: bool = option(default=False, help="Write Xmipp's tables as well.")
    scipion: bool = option(
        default=False, help="Write a set of classes that Scipion opens (SQLite) as well."
    )
