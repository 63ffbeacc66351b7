"""CPU time of Topaz on many micrographs: one process for all, or one for each as RELION starts.

Both get the same prepared fields of real apoferritin, the same model and one thread. The program
is found as ``cryopick pick topaz`` finds it. Nothing is asserted.

    python benchmarks/topaz_processes.py --data ../shared/data --model resnet8_u32
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

from cryopick.picking.topaz_scale import choose_scale
from cryopick.pipeline.topaz_fields import FieldFile, field_name, write_field
from cryopick.pipeline.topaz_program import TopazProgram, TopazRun, find_topaz

_DIAMETER, _PIXEL_SIZE = 125.0, 1.5  # A


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    beside = Path(__file__).parents[2] / "shared" / "data"
    named = os.environ.get("CRYOPICK_TEST_DATA", str(beside))
    options.add_argument("--data", type=Path, default=Path(named), help="Folder of real data.")
    options.add_argument("--model", default="resnet8_u32", help="Topaz's name of a model.")
    given = options.parse_args()
    program = find_topaz()
    scale = choose_scale(diameter=_DIAMETER, pixel_size=_PIXEL_SIZE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        micrographs = sorted((given.data / "apoferritin" / "micrographs").glob("*.mrc"))
        files = [folder / f"{field_name(n)}.mrc" for n in range(1, len(micrographs) + 1)]
        for micrograph, file in zip(micrographs, files, strict=True):
            write_field(_field(micrograph, file, scale.pixel_size))
        words = ["extract", "-r", str(scale.picking_radius), "-t", "-6", "-d", "-1"]
        words += ["-m", given.model]
        groups = {"one process": [files], "one for each": [[file] for file in files]}
        seconds = {n: _cpu(program, words, g, folder) for n, g in groups.items()}
    print(f"Topaz {program.version}, {given.model}, {len(files)} fields, 1 thread")
    for name, (cpu, wall) in seconds.items():
        print(f"{name:14} {cpu:7.1f} CPU-s {wall:7.1f} s")
    print(f"ratio          {seconds['one for each'][0] / seconds['one process'][0]:7.1f}")


def _field(path: Path, target: Path, working_pixel_size: float) -> FieldFile:
    return FieldFile(
        path=path,
        target=target,
        pixel_size=_PIXEL_SIZE,
        working_pixel_size=working_pixel_size,
        white_particles=False,
    )


def _cpu(
    program: TopazProgram, words: list[str], groups: list[list[Path]], folder: Path
) -> tuple[float, float]:
    """CPU and wall seconds of a process for each group of files."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    for files in groups:
        arguments = [*words, *(str(f) for f in files)]
        with TopazRun(program, arguments, folder=folder, log=folder / "log", threads=1) as run:
            for _ in run.lines():
                pass
            run.finish()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.monotonic() - start


if __name__ == "__main__":
    main()
