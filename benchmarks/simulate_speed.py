"""Time the simulator on one core: micrographs of 2048 x 2048 and stacks of 128 px.

    python benchmarks/simulate_speed.py

Start-up and the making of phantoms are reported apart; files are not written.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from cryopick.simulation.micrographs import simulate_micrograph
from cryopick.simulation.parameters import (
    MicrographSimulationParameters,
    MicroscopeParameters,
    ParticleSimulationParameters,
    SpecimenParameters,
)
from cryopick.simulation.particles import BATCH_SIZE, calibrate, simulate_particles
from cryopick.simulation.phantoms import make_phantom, phantom_names

SPECIMEN, MICROSCOPE = SpecimenParameters(), MicroscopeParameters()
SERIES = {"one species": ("barrel",), "three species": ("barrel", "ring", "asymmetric")}


def seconds(work: Callable[[int], object], *, repeats: int) -> tuple[float, float]:
    """Median wall and CPU time of one call, after one that is not counted."""
    work(0)
    wall, cpu = [], []
    for index in range(1, repeats + 1):
        start = time.perf_counter(), time.process_time()
        work(index)
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    return statistics.median(wall), statistics.median(cpu)


def main() -> None:
    torch.set_num_threads(1)
    for name in phantom_names():
        start = time.process_time()
        model = make_phantom(name)
        used = time.process_time() - start
        print(f"phantom {name:10s} {len(model.positions):6d} residues  {used:5.2f} CPU s")
    fields = MicrographSimulationParameters(carbon_fraction=1.0)
    for title, names in SERIES.items():
        models = [make_phantom(n) for n in names]
        wall, cpu = seconds(
            lambda index, models=models: simulate_micrograph(
                models, index=index, specimen=SPECIMEN, microscope=MICROSCOPE, parameters=fields
            ),
            repeats=5,
        )
        print(f"micrograph 2048 x 2048, {title:13s}  {wall:5.2f} s  {cpu:5.2f} CPU s")
    images = ParticleSimulationParameters()
    models = [make_phantom("barrel")]
    chosen = {"specimen": SPECIMEN, "microscope": MICROSCOPE, "parameters": images}
    scale = calibrate(models, **chosen)
    wall, cpu = seconds(
        lambda batch: simulate_particles(models, batch=batch % 3, scale=scale, **chosen), repeats=3
    )
    factor = 1000 / BATCH_SIZE
    print(
        f"1000 images of 128 px                 {wall * factor:5.2f} s  {cpu * factor:5.2f} CPU s"
    )


if __name__ == "__main__":
    main()
