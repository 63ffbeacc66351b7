"""A small stack of four views of a particle, under a CTF, in noise; and runs on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from particle_world import optics_table, particles_of, write_stack

from cryopick.class2d.stable_parameters import StableOptions
from cryopick.ctf.evaluate import evaluate_ctf
from cryopick.pipeline.class2d_stable import classify_stably
from cryopick.pipeline.class2d_stable_parameters import StableRunParameters
from cryopick.simulation.orientations import euler_matrices
from cryopick.simulation.projection import Model, project
from cryopick.tables.model import Particles
from cryopick.tables.relion import read_particles, write_particles

N, SIZE, PIXEL, VIEWS = 320, 32, 5.0, 4
DIAMETER = 110.0  # A
LENS = {"voltage": 300.0, "spherical_aberration": 2.7, "amplitude_contrast": 0.1}
CHOSEN: dict[str, Any] = {
    "target_radius": 11, "target_nx": 32, "img_per_grp": 60, "init_iter": 2, "maxit": 8,
    "indep_run": 2, "stab_ali": 3, "seed": 3, "main_iter_limit": 1,
}  # fmt: skip


def make_views(
    folder: Path, *, n: int = N, noise: float = 0.5, n_noise: int = 0, seed: int = 0
) -> Particles:
    """Write ``particles.star`` and its stack; rlnView and rlnTruePsi are the truth, -1 is noise."""
    rng = np.random.default_rng(seed)
    spots = torch.from_numpy(np.random.default_rng(7).normal(0, 20, (9, 3))).float()
    model = Model(
        name="blobs", positions=spots, weights=torch.linspace(0.6, 1.6, 9), blur=7.0,
        symmetry="C1", diameter=DIAMETER,
    )  # fmt: skip
    view = rng.integers(0, VIEWS, n)
    tilt = np.linspace(20, 160, VIEWS)[view]
    angles = np.stack([90.0 * view, tilt, rng.uniform(-180, 180, n)], axis=1)
    shift = rng.normal(0, 4.0, (n, 2))  # A, centres the image
    clean = project(
        model, euler_matrices(angles), shifts_yx=-shift[:, ::-1] / PIXEL, box_size=SIZE,
        pixel_size=PIXEL,
    )  # fmt: skip
    clean = clean / clean.std()
    clean[n - n_noise :] = 0
    view[n - n_noise :] = -1
    columns = {
        "defocus_u": rng.uniform(9000, 20000, n) + 1000,
        "defocus_angle": np.full(n, 30.0),
    }
    columns["defocus_v"] = columns["defocus_u"] - 1000
    ctf = evaluate_ctf(
        (SIZE, SIZE), pixel_size=PIXEL, **LENS,
        **{name: torch.from_numpy(values).float() for name, values in columns.items()},
    )  # type: ignore[arg-type] # fmt: skip
    images = torch.fft.irfft2(torch.fft.rfft2(clean) * ctf, s=(SIZE, SIZE)).numpy()
    images = (images + noise * rng.standard_normal(images.shape)).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    write_stack(folder / "stack.mrcs", images)
    particles = particles_of(
        folder, {"stack.mrcs": n}, optics=optics_table().assign(pixel_size=PIXEL, box_size=SIZE),
        micrograph=[f"m{k // 80}.mrc" for k in range(n)], rlnView=view,
        rlnTruePsi=angles[:, 2], **columns,
    )  # fmt: skip
    write_particles(folder / "particles.star", particles)
    return read_particles(folder / "particles.star")


def stable(
    particles: Particles, out: Path | str, *, overwrite: bool = False, restart: int = -1,
    skip_ordering: bool = False, threads: int = 1, execution: str = "local", **changes: Any,
) -> dict[str, Any]:  # fmt: skip
    """Run the command's function."""
    return classify_stably(
        particles,
        Path(out),
        options=StableOptions(**(CHOSEN | changes)),
        compute=StableRunParameters(
            threads=threads, restart=restart, skip_ordering=skip_ordering, execution=execution
        ),
        diameter=DIAMETER,
        overwrite=overwrite,
    ).values


def files_of(out: Path) -> dict[str, bytes]:
    """All results by name, less what tells times and commands."""
    told = ("job.json", "result.json", "report.html", ".lock")
    return {
        str(path.relative_to(out)): path.read_bytes()[1024 if path.suffix == ".mrcs" else 0 :]
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in told
    }
