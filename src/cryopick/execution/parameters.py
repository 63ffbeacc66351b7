"""How much of the machine a command may use."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, option

__all__ = ["WORKER_BASE_BYTES", "ComputeParameters"]

_DEVICE = re.compile(r"(cpu|cuda|mps)(:\d+)?")
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

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices asked for, in order."""
        return tuple(d.strip() for d in self.device.split(",") if d.strip())

    @property
    def uses_gpu(self) -> bool:
        """Whether any device is not the CPU."""
        return any(d != "cpu" for d in self.devices)

    def check_together(self) -> None:
        """Check the names of the devices.

        Raises
        ------
        ParameterError
            If a device is neither cpu nor cuda nor mps, with or without a number.
        """
        for name in self.devices or ("",):
            if not _DEVICE.fullmatch(name):
                raise ParameterError(
                    "device",
                    must="be cpu, cuda, mps or a list such as cuda:0,cuda:1",
                    got=self.device or "nothing",
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
