"""How a 2D classification is run: on what, with how much, and how much of it is kept."""

from __future__ import annotations

import os
from dataclasses import dataclass

from cryopick.errors import ParameterError
from cryopick.execution.parameters import ComputeParameters
from cryopick.parameters import Parameters, option

__all__ = ["ClassificationRunParameters", "ClusterMachineParameters", "MachineParameters"]


@dataclass(frozen=True, kw_only=True)
class MachineParameters(Parameters):
    """Machine."""

    device: str = option(
        "cpu", help="Where to compute: cpu, cuda, or a list such as cuda:0,cuda:1."
    )
    threads: int = option(0, help="Threads on the CPU; 0 is one per core.", minimum=0)
    memory: float = option(
        0.0, help="Most memory to use; 0 is nine tenths of what is free.", unit="GB", minimum=0
    )

    def check_together(self) -> None:
        """Check the names of the devices.

        Raises
        ------
        ParameterError
            If a device is neither cpu nor cuda nor mps, with or without a number.
        """
        ComputeParameters(device=self.device)

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices asked for, in order."""
        return ComputeParameters(device=self.device).devices

    @property
    def n_threads(self) -> int:
        """Threads to use: as many as cores that this process may use if none are given."""
        if self.threads:
            return self.threads
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class ClusterMachineParameters(MachineParameters):
    """Machine, or cluster."""

    execution: str = option(
        "local",
        help="Where to align: serial, local, dask:ADDRESS of a scheduler, or slurm[:CONFIG], a "
        "TOML file that says what jobs to ask for.",
    )

    @property
    def is_remote(self) -> bool:
        """Whether images are aligned by a cluster."""
        return ComputeParameters(execution=self.execution).is_remote

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices to use here; the GPUs of a cluster are its workers'."""
        return ("cpu",) if self.is_remote else super().devices

    @property
    def n_threads(self) -> int:
        """Threads to use here."""
        return 1 if self.execution == "serial" else super().n_threads

    def check_together(self) -> None:
        """Check the devices and where to align.

        Raises
        ------
        ParameterError
            If one is unknown, or they contradict each other.
        """
        super().check_together()
        ComputeParameters(execution=self.execution, device=self.device)
        if self.execution == "serial" and self.threads > 1:
            raise ParameterError(
                "threads",
                must="be left out with --execution serial",
                got=self.threads,
                remedy="Leave out --threads",
            )


@dataclass(frozen=True, kw_only=True)
class ClassificationRunParameters(ClusterMachineParameters):
    """Machine and files."""

    write_every: int = option(
        0, help="Write the files of every so many iterations; 0 writes only the last.", minimum=0
    )
