"""How much of the machine a command may use."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, option

__all__ = ["WORKER_BASE_BYTES", "ComputeParameters", "check_execution"]

_DEVICE = re.compile(r"(cpu|cuda|mps)(:\d+)?")
_EXECUTION = re.compile(r"serial|local|dask:.+|slurm(:.+)?")
WORKER_BASE_BYTES = 400 << 20  # a worker process with its libraries loaded


@dataclass(frozen=True, kw_only=True)
class ComputeParameters(Parameters):
    """Devices, processes, threads and memory of a compute command."""

    device: str = option(
        "cpu", help="Where to compute: cpu, cuda, or a list such as cuda:0,cuda:1."
    )
    workers: int = option(0, help="Processes side by side; 0 is one per core.", minimum=0)
    threads: int = option(0, help="Threads of each process; 0 shares the cores.", minimum=0)
    memory: float = option(
        0.0,
        help="Most memory to use; fewer workers run when it is tight; 0 is no limit.",
        unit="GB",
        minimum=0,
    )

    execution: str = option(
        "local",
        help="Where to run: serial, local, dask:ADDRESS of a scheduler, or slurm[:CONFIG], a TOML "
        "file that says what jobs to ask for.",
    )

    @property
    def is_remote(self) -> bool:
        """Whether the work is done by a cluster."""
        return self.execution not in ("serial", "local")

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices asked for, in order."""
        return tuple(d.strip() for d in self.device.split(",") if d.strip())

    @property
    def uses_gpu(self) -> bool:
        """Whether any device is not the CPU."""
        return any(d != "cpu" for d in self.devices)

    def check_together(self) -> None:
        """Check the names of the devices, and that they go with where the work is done.

        Raises
        ------
        ParameterError
            If a device is neither cpu nor cuda nor mps, with or without a number; or if the
            place to run is unknown, or has a say itself in what is asked for.
        """
        check_execution(self.execution)
        if self.execution != "local":
            self._check_place()
        for name in self.devices or ("",):
            if not _DEVICE.fullmatch(name):
                raise ParameterError(
                    "device",
                    must="be cpu, cuda, mps or a list such as cuda:0,cuda:1",
                    got=self.device or "nothing",
                    remedy="Change --device",
                )

    def _check_place(self) -> None:
        """Refuse what would have no effect."""
        kind = self.execution.partition(":")[0]
        rules = {
            "serial": {"workers": self.workers > 1},
            "dask": {"workers": self.workers > 0, "memory": self.memory > 0},
            "slurm": {"memory": self.memory > 0},
        }
        for name, is_set in rules[kind].items():
            if is_set:
                raise ParameterError(
                    name,
                    must=f"be left out with --execution {kind}",
                    got=f"{getattr(self, name):g}",
                    remedy=f"Leave out --{name}",
                )
        if self.is_remote and self.device not in ("cpu", "cuda"):
            raise ParameterError(
                "device",
                must=f"be cpu or cuda with --execution {kind}, which gives each worker its GPU",
                got=self.device,
                remedy="Change --device",
            )

    def fitting(self, bytes_per_item: int) -> int:
        """How many items of this size fit in the memory limit at once.

        Raises
        ------
        ParameterError
            If not even one fits.
        """
        if not self.memory:
            return 1 << 30
        wanted = bytes_per_item + WORKER_BASE_BYTES
        count = int(self.memory * 1e9 // wanted)
        if count < 1:
            raise ParameterError(
                "memory",
                must=f"be at least {wanted / 1e9:.1f} GB for these images",
                got=f"{self.memory:g} GB",
                remedy="Raise --memory",
            )
        return count


def check_execution(execution: str) -> None:
    """Check where the work is to be done.

    Raises
    ------
    ParameterError
        If it is none of the places known.
    """
    if not _EXECUTION.fullmatch(execution):
        raise ParameterError(
            "execution",
            must="be serial, local, dask:ADDRESS or slurm[:CONFIG]",
            got=execution or "nothing",
            remedy="Change --execution",
        )
