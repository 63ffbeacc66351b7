"""The images of a stable classification: from a STAR table or an HDF stack, with their angles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cryopick.class2d.stable_images import plan_shrink
from cryopick.class2d.stable_parameters import StableOptions, StableParameters
from cryopick.errors import ParameterError, TableError
from cryopick.io.eman_image_stacks import is_eman_stack
from cryopick.pipeline.class2d_source import ParticleSource
from cryopick.pipeline.class2d_stable_parameters import StableRunParameters
from cryopick.pipeline.memory_plan import MemoryPlan, memory_limit, plan_memory
from cryopick.tables.eman_particles import read_eman_particles
from cryopick.tables.model import Particles
from cryopick.tables.relion import read_particles

__all__ = [
    "filament_angles",
    "limit_gpu",
    "plan_stable_memory",
    "read_stable_particles",
    "require_filament_angles",
    "with_radius",
]

_PRIOR = "rlnAnglePsiPrior"
_ROW_BYTES = 3000  # of a table, of the state and of its copies
_AT_WORK_BYTES = 4 << 20  # of an image while it is compared, in a block of 128 for each thread
_BATCH = 128
_FIRST_BYTES, _FIRST_OF_IMAGE = 1 << 29, 16  # that a partition may keep as it begins; of a pixel


def read_stable_particles(path: Path, *, pixel_size: float | None = None) -> Particles:
    """Read a STAR table, or the attributes of an HDF stack of EMAN2 or SPHIRE.

    Raises
    ------
    FormatError
        If the file is missing, broken, or a BDB.
    TableError
        If it holds no particles, or no pixel size is known.
    """
    if is_eman_stack(path):
        return read_eman_particles(path, pixel_size=pixel_size)
    return read_particles(path, pixel_size=pixel_size)


def with_radius(
    options: StableOptions,
    *,
    diameter: float | None,
    radius: float | None,
    pixel_size: float,
    box_size: int,
) -> StableParameters:
    """Fill in the radius of the particle.

    Parameters
    ----------
    options
        All other parameters.
    diameter, radius
        Of the particle: A, or px of the input; one of the two.
    pixel_size, box_size
        Of the input, A/px and px.

    Raises
    ------
    ParameterError
        If both or none is given, or the particle does not fit in its box.
    """
    if (diameter is None) == (radius is None):
        raise ParameterError(
            "diameter", must="be given, or --radius in pixels",
            got="neither" if diameter is None else "both",
            remedy="Give the diameter of the particle in Angstrom",
        )  # fmt: skip
    if diameter is not None and 0.5 * diameter > 0.5 * box_size * pixel_size:
        raise ParameterError(
            "diameter", must=f"be at most the box, {box_size * pixel_size:.4g} A",
            got=f"{diameter:g} A", remedy="Lower --diameter",
        )  # fmt: skip
    pixels = radius if radius is not None else 0.5 * (diameter or 0.0) / pixel_size
    parameters = StableParameters(radius=pixels, **options.to_dict())
    plan_shrink(parameters, box_size=box_size, pixel_size=pixel_size)
    return parameters


def require_filament_angles(particles: Particles, parameters: StableParameters) -> None:
    """Refuse filaments without angles.

    Raises
    ------
    TableError
        If filaments are wanted and the table has no column of angles.
    """
    if parameters.filament_width > 0 and _PRIOR not in particles.rows.columns:
        raise TableError(
            str(particles.source or "particles"),
            must=f"have a column {_PRIOR} (segment_angle in HDF stacks) for filaments",
            got="none", remedy="Extract helical segments, or leave out --filament-width",
        )  # fmt: skip


def filament_angles(
    source: ParticleSource, parameters: StableParameters
) -> NDArray[np.float64] | None:
    """Angles of filaments from x towards y, deg: minus RELION's prior of psi; None without any.

    Raises
    ------
    TableError
        If filaments are wanted and the table has no such column.
    """
    if parameters.filament_width <= 0:
        return None
    particles = source.images.particles
    require_filament_angles(particles, parameters)
    angles: NDArray[np.float64] = -particles.rows[_PRIOR].to_numpy(np.float64)[source.rows]
    return angles


def plan_stable_memory(
    source: ParticleSource, parameters: StableParameters, compute: StableRunParameters
) -> MemoryPlan:
    """See whether the images, shrunk, fit in memory beside what compares them.

    Raises
    ------
    ParameterError
        If they do not.
    """
    n, size = len(source), parameters.working_size
    bins = size // 2 + 1
    per_image = 2 * size**2 + (2 * bins + 72 if parameters.ctf != "none" else 0) + 4 * bins
    return plan_memory(
        bytes_per_image=12.0 * source.box_size**2,
        fixed={
            "shrunk images": float(n * per_image),
            "tables": float(n * _ROW_BYTES),
            "first classes": float(min(_FIRST_BYTES, n * _FIRST_OF_IMAGE * size**2)),
            "comparison": float(compute.n_threads * _BATCH * _AT_WORK_BYTES / 4),
        },
        limit=memory_limit(compute.memory),
        minimum=16,
        maximum=256,
    )


def limit_gpu(compute: StableRunParameters) -> None:
    """Keep to the share of the memory of the GPU."""
    device = compute.devices[0]
    if device.startswith("cuda"):
        torch.cuda.set_per_process_memory_fraction(compute.gpu_share, torch.device(device))
