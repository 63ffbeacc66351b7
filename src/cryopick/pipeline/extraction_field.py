"""Extract the particles of one micrograph: read it, cut, write its stack."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.errors import DataError
from cryopick.extraction.extract import (
    CtfValues,
    ParticleBatch,
    extract_particles,
    level_micrograph_,
    require_contrast,
)
from cryopick.extraction.extraction_parameters import ExtractionParameters
from cryopick.image.crop import place_boxes
from cryopick.io.micrograph import read_micrograph
from cryopick.io.mrc import MrcStackWriter
from cryopick.pipeline.extraction_plan import Field

__all__ = ["FieldCtf", "FieldPayload", "extract_field", "stack_path", "table_path"]


@dataclass(frozen=True, kw_only=True)
class FieldCtf:
    """CTF of the particles of one micrograph, as it is sent to a worker."""

    per_particle: dict[str, NDArray[np.float32]]  # columns of the particle table, (n,) each
    voltage: float  # kV
    spherical_aberration: float  # mm
    amplitude_contrast: float

    def to(self, device: str) -> CtfValues:
        """Turn the columns into tensors."""
        return CtfValues(
            per_particle={
                name: torch.from_numpy(column).to(device)
                for name, column in self.per_particle.items()
            },
            voltage=self.voltage,
            spherical_aberration=self.spherical_aberration,
            amplitude_contrast=self.amplitude_contrast,
        )


@dataclass(frozen=True, kw_only=True)
class FieldPayload:
    """All that a worker needs for one micrograph."""

    field: Field
    folder: Path
    centers_yx: NDArray[np.float64]  # (n, 2) px, whole numbers
    ctf: FieldCtf | None  # None where no CTF is applied
    parameters: ExtractionParameters
    device: str


def stack_path(folder: Path, key: str) -> Path:
    """Where the stack of a micrograph goes."""
    return folder / f"{key}.mrcs"


def table_path(folder: Path, key: str) -> Path:
    """Where the table of a micrograph goes."""
    return folder / f"{key}_extract.star"


def extract_field(payload: FieldPayload) -> dict[str, Any]:
    """Cut the particles of one micrograph and write their stack.

    Parameters
    ----------
    payload
        The micrograph and where its particles are.

    Returns
    -------
    dict
        For the ledger: counts, the particles that were dropped, the files.

    Raises
    ------
    CryopickError
        If the micrograph is broken, or its results cannot be written.
    """
    folder, key = payload.folder, payload.field.key
    micrograph = _read(payload)
    centers = torch.from_numpy(payload.centers_yx).to(payload.device)
    batches = extract_particles(
        micrograph,
        centers,
        parameters=payload.parameters,
        pixel_size=payload.field.pixel_size,
        ctf=None if payload.ctf is None else payload.ctf.to(payload.device),
        seeds=_seeds(payload),
    )
    path = stack_path(folder, key)
    kept, n_flat = _write_stack(path, batches, payload)
    if not len(kept):
        path.unlink(missing_ok=True)  # what an earlier run left
    height, width = micrograph.shape
    placement = place_boxes(centers, shape=(height, width), box_size=payload.parameters.box_size)
    n_outside = int(placement.is_outside.sum())
    is_dropped = np.ones(len(centers), bool)
    is_dropped[kept] = False
    files = [path, table_path(folder, key)] if len(kept) else []
    return {
        "n_particles": len(kept),
        "n_outside": n_outside,
        "n_flat": n_flat,
        "n_edge": int(is_dropped.sum()) - n_outside - n_flat,
        "dropped": np.flatnonzero(is_dropped).tolist(),
        "files": [str(p.relative_to(folder)) for p in files],
    }


def _read(payload: FieldPayload) -> Tensor:
    path = payload.field.path
    micrograph = torch.from_numpy(read_micrograph(path)).to(payload.device)
    try:
        if payload.parameters.normalize:
            return level_micrograph_(micrograph)
        require_contrast(micrograph)
    except DataError as error:
        raise DataError(str(path), must=error.must, got=error.got, remedy=error.remedy) from error
    return micrograph


def _seeds(payload: FieldPayload) -> Tensor:
    """Seed each particle by its micrograph and place, so that no order of work changes it."""
    text = f"{payload.parameters.seed} {payload.field.key}"
    digest = hashlib.blake2b(text.encode(), digest_size=7).digest()
    first = int.from_bytes(digest, "little")
    return first + torch.arange(len(payload.centers_yx), device=payload.device)


def _write_stack(
    path: Path, batches: Iterator[ParticleBatch], payload: FieldPayload
) -> tuple[NDArray[np.int64], int]:
    """Write the images that have contrast; returns their rows, and how many had none."""
    parameters = payload.parameters
    writer: MrcStackWriter | None = None
    kept = [np.zeros(0, np.int64)]
    n_flat = 0
    with contextlib.ExitStack() as stack:
        for images, indices, is_flat in batches:
            if bool(is_flat.any()):
                n_flat += int(is_flat.sum())
                images, indices = images[~is_flat], indices[~is_flat]
            if not len(images):
                continue
            if writer is None:
                writer = stack.enter_context(
                    MrcStackWriter(
                        path,
                        box_size=parameters.image_size,
                        pixel_size=payload.field.pixel_size * parameters.scale,
                        dtype=np.float16 if parameters.float16 else np.float32,
                    )
                )
            writer.append(images.cpu().numpy())
            kept.append(indices.cpu().numpy())
    return np.concatenate(kept), n_flat
