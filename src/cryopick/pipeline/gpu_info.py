"""What is to be known of the GPUs of this machine."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GpuInfo", "gpu_lines", "list_gpus"]


@dataclass(frozen=True, kw_only=True)
class GpuInfo:
    """One GPU."""

    device: str  # as --device takes it
    name: str
    memory: int  # bytes in all
    free: int  # bytes
    capability: str  # of CUDA
    multiprocessors: int


def list_gpus() -> list[GpuInfo]:
    """Ask CUDA for all devices."""
    import torch

    found = []
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        found.append(
            GpuInfo(
                device=f"cuda:{number}",
                name=properties.name,
                memory=total,
                free=free,
                capability=f"{properties.major}.{properties.minor}",
                multiprocessors=properties.multi_processor_count,
            )
        )
    return found


def gpu_lines() -> list[str]:
    """Say what `list_gpus` finds, a line for each."""
    lines = [
        f"--device {g.device}: {g.name}, {g.free / 1e9:.1f} of {g.memory / 1e9:.1f} GB free, "
        f"compute capability {g.capability}, {g.multiprocessors} multiprocessors"
        for g in list_gpus()
    ]
    return lines or ["No GPU that CUDA knows; --device cpu works on every machine."]
