"""Micrographs to pick, and all that was written of the picks, to compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cryopick.execution.parameters import ComputeParameters
from cryopick.io.mrc import write_mrc
from cryopick.picking.log_parameters import LogParameters
from cryopick.pipeline.pickers import LogPicker
from cryopick.pipeline.picking import pick_micrographs


def make_fields(folder: Path, count: int = 8) -> list[str]:
    """Micrographs of noise with dark discs of 120 A; the fourth is cut off."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:400, :400]
    for number in range(count):
        field = random.standard_normal((400, 400), np.float32)
        for cx, cy in random.integers(50, 350, (5, 2)):
            field[(x - cx) ** 2 + (y - cy) ** 2 < 900] -= 0.8
        write_mrc(folder / f"m{number}.mrc", field, pixel_size=2.0)
    whole = (folder / "m3.mrc").read_bytes()
    (folder / "m3.mrc").write_bytes(whole[:5000])
    return [str(folder / f"m{number}.mrc") for number in range(count)]


def picks(fields: list[str], out: Path, progress: Any = None, **compute: Any) -> dict[str, bytes]:
    """Run ``pick log`` and read every file of picks and peaks."""
    picker = LogPicker(parameters=LogParameters(min_diameter=100, max_diameter=140))
    result = pick_micrographs(
        fields,
        out,
        picker=picker,
        ctf=picker.ctf,
        compute=ComputeParameters(threads=1, **compute),
        progress=progress,
    )
    assert [m.micrograph for m in result.failed] == [fields[3]]
    lines = (out / "ledger.jsonl").read_text().splitlines()
    assert len(lines) == len(fields)  # each micrograph exactly once
    return files_of(out)


def files_of(out: Path) -> dict[str, bytes]:
    """Read every file of picks and peaks of a run."""
    return {p.name: p.read_bytes() for p in sorted(out.rglob("*_*.star")) if "suffix" not in p.name}
