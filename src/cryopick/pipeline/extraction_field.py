"""Extract the particles of one micrograph: read it, cut, write its stack and its table."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.errors import DataError, TableError
from cryopick.extraction.extract import (
    CtfValues,
    ParticleBatch,
    extract_particles,
    level_micrograph,
)
from cryopick.extraction.extraction_parameters import ExtractionParameters
from cryopick.image.crop import place_boxes
from cryopick.io.micrograph import read_micrograph
from cryopick.io.mrc import MrcStackWriter
from cryopick.pipeline.extraction_plan import Field
from cryopick.tables.model import Particles
from cryopick.tables.relion import write_particles

__all__ = ["FieldPayload", "extract_field", "stack_path"]

_LENS = ("voltage", "spherical_aberration", "amplitude_contrast")
_CTF = ("defocus_u", "defocus_v", "defocus_angle", "phase_shift", "ctf_bfactor", "ctf_scale")


@dataclass(frozen=True, kw_only=True)
class FieldPayload:
    """All that a worker needs for one micrograph."""

    field: Field
    folder: Path
    table: pd.DataFrame  # rows of this micrograph
    optics: pd.DataFrame  # of all particles
    centers_yx: NDArray[np.float64]
    parameters: ExtractionParameters
    device: str


def stack_path(folder: Path, key: str) -> Path:
    """Where the stack of a micrograph goes."""
    return folder / f"{key}.mrcs"


def extract_field(payload: FieldPayload) -> dict[str, Any]:
    """Cut the particles of one micrograph, write their stack and their table.

    Parameters
    ----------
    payload
        The micrograph and its rows.

    Returns
    -------
    dict
        For the ledger: counts, the rows that were dropped, the files.

    Raises
    ------
    CryopickError
        If the micrograph is broken, or its results cannot be written.
    """
    micrograph = _read(payload)
    centers = torch.from_numpy(payload.centers_yx).to(payload.device)
    batches = extract_particles(
        micrograph,
        centers,
        parameters=payload.parameters,
        pixel_size=payload.field.pixel_size,
        ctf=_ctf(payload),
        seeds=_seeds(payload),
    )
    path = stack_path(payload.folder, payload.field.key)
    kept, n_flat = _write_stack(path, batches, payload)
    files = _write_table(path, kept, payload)
    height, width = micrograph.shape
    placement = place_boxes(centers, shape=(height, width), box_size=payload.parameters.box_size)
    n_outside = int(placement.is_outside.sum())
    is_dropped = np.ones(len(centers), bool)
    is_dropped[kept] = False
    return {
        "n_particles": len(kept),
        "n_outside": n_outside,
        "n_flat": n_flat,
        "n_edge": int(is_dropped.sum()) - n_outside - n_flat,
        "dropped": np.flatnonzero(is_dropped).tolist(),
        "files": files,
    }


def _read(payload: FieldPayload) -> Tensor:
    path = payload.field.path
    micrograph = torch.from_numpy(read_micrograph(path)).to(payload.device)
    try:
        return level_micrograph(micrograph, keep_level=not payload.parameters.normalize)
    except DataError as error:
        raise DataError(str(path), must=error.must, got=error.got, remedy=error.remedy) from error


def _ctf(payload: FieldPayload) -> CtfValues | None:
    parameters = payload.parameters
    if not (parameters.phase_flip or parameters.premultiply):
        return None
    group = int(payload.table["optics_group"].iloc[0])
    lens = payload.optics[payload.optics["optics_group"] == group].iloc[0]
    for name in _LENS:
        if name not in lens.index:
            raise TableError(
                "the optics group of the micrographs",
                must=f"say the {name.replace('_', ' ')} where the CTF is applied",
                got="none",
                remedy="Add it to the table",
            )
    return CtfValues(
        per_particle={
            name: torch.from_numpy(payload.table[name].to_numpy(np.float32)).to(payload.device)
            for name in _CTF
            if name in payload.table.columns
        },
        voltage=float(lens["voltage"]),
        spherical_aberration=float(lens["spherical_aberration"]),
        amplitude_contrast=float(lens["amplitude_contrast"]),
    )


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


def _write_table(path: Path, kept: NDArray[np.int64], payload: FieldPayload) -> list[str]:
    """Write the table beside the stack; without particles remove what an earlier run left."""
    table_path = path.with_name(path.name.removesuffix(".mrcs") + "_extract.star")
    if not len(kept):
        path.unlink(missing_ok=True)
        table_path.unlink(missing_ok=True)
        return []
    rows = payload.table if len(kept) == len(payload.table) else payload.table.iloc[kept]
    rows = rows.assign(image=str(path), image_index=np.arange(len(kept)))
    groups = rows["optics_group"].unique()
    optics = payload.optics[payload.optics["optics_group"].isin(groups)]
    write_particles(table_path, Particles(rows=rows, optics=optics))
    return [str(p.relative_to(payload.folder)) for p in (path, table_path)]
