"""The CTF of each micrograph for a picker: from the table, or estimated from its own rings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from cryopick.ctf.estimate import estimate_ctf, require_lens, require_rings
from cryopick.ctf.estimate_parameters import CtfParameters
from cryopick.ctf.field_ctf import FieldCtf
from cryopick.ctf.polar import Lens
from cryopick.errors import DataError, ParameterError, TableError
from cryopick.pipeline.ctf_estimate import with_lens
from cryopick.pipeline.picking_ctf_parameters import PickingCtfParameters
from cryopick.tables.model import Micrographs, require_columns

__all__ = ["CtfOfField", "FoundCtf", "ctfs_of_fields", "find_ctf"]

_DEFOCUS = ("defocus_u", "defocus_v", "defocus_angle")


class CtfOfField(NamedTuple):
    """What is known of a micrograph's CTF before it is opened."""

    known: FieldCtf | None = None  # from the table
    lens: Lens | None = None  # to estimate the rest with; None where nothing is estimated
    is_ignored: bool = False


class FoundCtf(NamedTuple):
    """The CTF that a micrograph is searched with."""

    ctf: FieldCtf | None
    source: str  # table, estimated, none, ignored


def ctfs_of_fields(
    micrographs: Micrographs, parameters: PickingCtfParameters
) -> dict[str, CtfOfField]:
    """Look up what the table says of each micrograph.

    Parameters
    ----------
    micrographs
        Their lens in the optics groups, their defocus in the rows.
    parameters
        Where the CTF is to come from.

    Returns
    -------
    dict
        By the name of the micrograph. A defocus that `ctf estimate` did not trust counts as none.

    Raises
    ------
    TableError
        If the lens is not known or impossible, or only the table is asked and has no defoci.
    """
    names = [str(n) for n in micrographs.rows["micrograph"]]
    if parameters.ctf == "ignore":
        return dict.fromkeys(names, CtfOfField(is_ignored=True))
    if parameters.ctf == "table":
        table = str(micrographs.source or "MICROGRAPHS")
        require_columns(micrographs.rows, _DEFOCUS, table=table)
    micrographs = _with_lens(micrographs)
    columns = ["optics_group", "voltage", "spherical_aberration", "amplitude_contrast"]
    lenses = {
        int(group): Lens(*map(float, lens))
        for group, *lens in micrographs.optics[columns].itertuples(index=False, name=None)
    }
    groups = [lenses[int(g)] for g in micrographs.rows["optics_group"]]
    known = (
        _known(micrographs.rows, groups) if parameters.ctf != "estimate" else [None] * len(names)
    )
    is_estimated = parameters.ctf != "table"
    return {
        name: CtfOfField(ctf, lens if is_estimated else None)
        for name, ctf, lens in zip(names, known, groups, strict=True)
    }


def _with_lens(micrographs: Micrographs) -> Micrographs:
    """Fill in the lens; who does not know it may still pick without one."""
    try:
        return with_lens(micrographs)
    except TableError as error:
        remedy = "Give --voltage and --spherical-aberration, or --ctf ignore to pick without a lens"
        raise TableError(error.what, must=error.must, got=error.got, remedy=remedy) from error


def _known(rows: pd.DataFrame, lenses: list[Lens]) -> list[FieldCtf | None]:
    """CTF of each row; None where it has no defocus, or one that was not trusted."""
    if not set(_DEFOCUS) <= set(rows.columns):
        return [None] * len(rows)
    shift = rows["phase_shift"] if "phase_shift" in rows.columns else pd.Series(0.0, rows.index)
    values = rows[list(_DEFOCUS)].assign(phase_shift=shift).to_numpy(float)
    is_known = np.isfinite(values).all(1) & (values[:, :2] != 0).any(1)
    if "is_ctf_trusted" in rows.columns:
        is_known &= rows["is_ctf_trusted"].to_numpy() != 0
    return [
        FieldCtf(u, v, angle, *lens, phase_shift) if known else None
        for (u, v, angle, phase_shift), lens, known in zip(
            values.tolist(), lenses, is_known, strict=True
        )
    ]


def find_ctf(micrograph: Tensor, field: CtfOfField, *, pixel_size: float) -> FoundCtf:
    """Take the known CTF, or estimate it; without rings that can be trusted there is none.

    Parameters
    ----------
    micrograph
        (y, x), real.
    field
        What is known of it.
    pixel_size
        A/px.

    Raises
    ------
    ParameterError
        If the lens is none that a microscope has, or `pixel_size` is not above 0.
    """
    if field.known is not None:
        return FoundCtf(field.known, "table")
    if field.lens is None:
        return FoundCtf(None, "ignored" if field.is_ignored else "none")
    require_lens(field.lens, pixel_size=pixel_size)
    parameters = CtfParameters()
    try:
        require_rings(field.lens, parameters, pixel_size=pixel_size)
    except ParameterError:  # too coarse for any ring
        return FoundCtf(None, "none")
    try:
        estimate = estimate_ctf(
            micrograph, pixel_size=pixel_size, parameters=parameters, **field.lens._asdict()
        )
    except DataError:  # too small; what cannot be picked either the picker refuses
        return FoundCtf(None, "none")
    return FoundCtf(estimate.ctf, "estimated") if estimate.is_trusted else FoundCtf(None, "none")
