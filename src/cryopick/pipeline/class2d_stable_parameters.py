"""How a stable classification is run: on what, from where, and what is written."""

from __future__ import annotations

from dataclasses import dataclass

from cryopick.errors import ParameterError
from cryopick.parameters import option
from cryopick.pipeline.class2d_parameters import ClusterMachineParameters

__all__ = ["StableRunParameters"]

_GPU_SHARE = 0.9  # of the memory of a GPU, where nobody says it


@dataclass(frozen=True, kw_only=True)
class StableRunParameters(ClusterMachineParameters):
    """Machine, or cluster, and course of the run."""

    gpu_memory_use: float | None = option(
        None, help="Share of the memory of the GPU of this machine that may be used; 0.9 if not "
        "given.", above=0,
        maximum=1,
    )  # fmt: skip
    restart: int = option(
        -1, help="Begin again after so many main iterations; 0: after the last one that is "
        "finished; -1: go on where the run was stopped.", minimum=-1,
    )  # fmt: skip
    skip_ordering: bool = option(default=False, help="Do not put the averages in order.")

    @property
    def gpu_share(self) -> float:
        """Share of the memory of the GPU that may be used."""
        return self.gpu_memory_use or _GPU_SHARE

    def check_together(self) -> None:
        """Check the device.

        Raises
        ------
        ParameterError
            If it is unknown, there are several, it contradicts where to align, or a share of
            memory is given without a GPU.
        """
        super().check_together()
        if len(self.devices) > 1:
            raise ParameterError(
                "device", must="be one device for this command", got=self.device,
                remedy=f"Give --device {self.devices[0]}",
            )  # fmt: skip
        if self.gpu_memory_use is not None and not self.devices[0].startswith("cuda"):
            where = f" --execution {self.execution}" if self.is_remote else ""
            raise ParameterError(
                "gpu_memory_use", must="come with a GPU of this machine",
                got=f"--device {self.device}{where}",
                remedy="Leave it out" if self.is_remote else "Give --device cuda, or leave it out",
            )  # fmt: skip
