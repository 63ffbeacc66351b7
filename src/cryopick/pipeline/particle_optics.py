"""The lens behind each particle: optics groups, and CTFs of batches that mix them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.ctf.evaluate import evaluate_ctf
from cryopick.errors import TableError
from cryopick.tables.model import Particles, require_columns
from cryopick.tables.relion_names import PARTICLE_OPTICS, PARTICLE_ROWS

__all__ = ["CTF_PARAMETERS", "OpticsGroup", "ParticleOptics"]

_PIXEL_SIZE_TOLERANCE = 1e-3  # relative; over a box of 1000 px it moves nothing by a pixel
_OF_ROWS = {
    "defocus_u": "defocus_u",
    "defocus_v": "defocus_v",
    "defocus_angle": "defocus_angle",
    "phase_shift": "phase_shift",
    "bfactor": "ctf_bfactor",
    "scale": "ctf_scale",
}
_DEFAULTS = {"phase_shift": 0.0, "bfactor": 0.0, "scale": 1.0}
_OF_GROUPS = ("voltage", "spherical_aberration", "amplitude_contrast")
CTF_PARAMETERS: tuple[str, ...] = (*_OF_ROWS, *_OF_GROUPS)
"""Columns of `ParticleOptics.ctf_parameters`: what `evaluate_ctf` calls them, in its units."""


@dataclass(frozen=True, kw_only=True)
class OpticsGroup:
    """Images taken alike, and what was done to them."""

    number: int  # as in the table
    name: str
    pixel_size: float  # A/px
    voltage: float  # kV; NaN where the table does not say
    spherical_aberration: float  # mm
    amplitude_contrast: float  # fraction
    is_premultiplied: bool  # images were multiplied by their CTF
    is_phase_flipped: bool
    n_particles: int


class ParticleOptics:
    """Optics groups and CTF parameters of a table of particles.

    Parameters
    ----------
    particles
        The table. Groups without particles are left out.
    require_ctf
        Refuse a table without a full CTF at once; else only what asks for the CTF does.

    Attributes
    ----------
    groups : tuple of OpticsGroup
        In the order of the table of optics groups.
    pixel_size : float
        A/px, of the first group; the others agree to 0.1 %.

    Raises
    ------
    TableError
        If a row names an unknown group, pixel sizes differ by more than 0.1 %, or
        `require_ctf` and a parameter is missing or out of its range.
    """

    def __init__(self, particles: Particles, *, require_ctf: bool = False) -> None:
        table = str(particles.source or "particles")
        self._group_of = _positions_of_groups(particles, table)
        counts = np.bincount(self._group_of, minlength=len(particles.optics))
        used = np.flatnonzero(counts)
        self._group_of = (np.cumsum(counts > 0) - 1)[self._group_of]
        optics = particles.optics.iloc[used].to_dict("records")
        self.groups = tuple(
            _optics_group({str(k): v for k, v in row.items()}, int(count))
            for row, count in zip(optics, counts[used], strict=True)
        )
        self.pixel_size = _common_pixel_size(self.groups, table)
        self._parameters: NDArray[np.float64] | None = None
        self._refusal: TableError | None = None
        try:
            self._parameters = self._collect(particles, table)
        except TableError as error:
            if require_ctf:
                raise
            self._refusal = error

    @property
    def has_ctf(self) -> bool:
        """Whether every particle has a CTF."""
        return self._parameters is not None

    def groups_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tell the optics group of some particles.

        Parameters
        ----------
        indices
            (n,) int, rows of the table from 0.

        Returns
        -------
        numpy.ndarray
            (n,) int, positions in `groups`.
        """
        return self._group_of[indices]

    def ctf_parameters(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Give all CTF parameters of some particles, for CTFs on a grid of one's own.

        Parameters
        ----------
        indices
            (n,) int, rows of the table from 0.

        Returns
        -------
        numpy.ndarray
            (n, 9) float64, columns as in `CTF_PARAMETERS`.

        Raises
        ------
        TableError
            If the table has no full CTF.
        """
        if self._parameters is None:
            assert self._refusal is not None
            raise self._refusal
        return self._parameters[indices]

    def lens_of(self, group: int, indices: NDArray[np.int64]) -> dict[str, Tensor | float]:
        """Give what `evaluate_ctf` needs to know of particles of one optics group.

        Parameters
        ----------
        group
            Position in `groups`.
        indices
            (n,) int, rows of the table from 0, all of that group.

        Returns
        -------
        dict
            (n,) float64 tensors for what differs from particle to particle, numbers for the
            rest; all but the shape and pixel size.

        Raises
        ------
        TableError
            If the table has no full CTF.
        """
        values = torch.from_numpy(self.ctf_parameters(indices))
        lens: dict[str, Tensor | float] = {n: values[:, c] for c, n in enumerate(_OF_ROWS)}
        return lens | {name: float(getattr(self.groups[group], name)) for name in _OF_GROUPS}

    def ctf_of(
        self,
        indices: NDArray[np.int64],
        shape: tuple[int, int],
        *,
        pixel_size: float | None = None,
        ignore_until_first_peak: bool = False,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Evaluate the CTFs that particle images carry, whatever optics groups they are of.

        Parameters
        ----------
        indices
            (n,) int, rows of the table from 0.
        shape
            (y, x) of the images, px.
        pixel_size
            A/px; that of the table where it is left out. Give both for shrunk images.
        ignore_until_first_peak
            Whether to put 1 below the first peak.
        device, dtype
            Of the result.

        Returns
        -------
        Tensor
            (n, y, x // 2 + 1), DC first. Where the phases of a group were flipped it is
            ``|CTF|``. Premultiplied images carry its square, which is left to the caller.

        Raises
        ------
        TableError
            If the table has no full CTF.
        """
        groups = self.groups_of(indices)
        result = torch.empty((len(groups), shape[0], shape[1] // 2 + 1), dtype=dtype, device=device)
        for group, rows in _members(groups):
            ctf = evaluate_ctf(
                shape,
                pixel_size=pixel_size or self.pixel_size,
                ignore_until_first_peak=ignore_until_first_peak,
                device=device,
                dtype=dtype,
                **self.lens_of(group, indices[rows]),  # type: ignore[arg-type]
            )
            flipped = self.groups[group].is_phase_flipped
            result[torch.from_numpy(rows).to(result.device)] = ctf.abs() if flipped else ctf
        return result

    def _collect(self, particles: Particles, table: str) -> NDArray[np.float64]:
        """Put the parameters of all particles side by side."""
        needed = [column for name, column in _OF_ROWS.items() if name not in _DEFAULTS]
        require_columns(particles.rows, needed, table=table, labels=PARTICLE_ROWS)
        groups = f"{table}, optics groups,"
        require_columns(particles.optics, _OF_GROUPS, table=groups, labels=PARTICLE_OPTICS)
        result = np.empty((len(particles), len(CTF_PARAMETERS)))
        for column, name in enumerate(_OF_ROWS):
            given = _OF_ROWS[name]
            there = given in particles.rows.columns
            result[:, column] = particles.rows[given] if there else _DEFAULTS[name]
            _require_finite(result[:, column], given, table)
        for column, name in enumerate(_OF_GROUPS, len(_OF_ROWS)):
            for group in self.groups:
                _require_lens(group, name, table)
            result[:, column] = np.array([getattr(g, name) for g in self.groups])[self._group_of]
        return result


def _positions_of_groups(particles: Particles, table: str) -> NDArray[np.int64]:
    """Find the row of the optics table for each particle."""
    numbers = pd.Index(particles.optics["optics_group"])
    found = numbers.get_indexer(pd.Index(particles.rows["optics_group"]))
    positions = np.asarray(found, np.int64)
    unknown = np.flatnonzero(positions < 0)
    if len(unknown):
        raise TableError(
            table,
            must="describe every optics group",
            got=f"group {particles.rows['optics_group'].iloc[unknown[0]]} without a row",
            remedy="Mend the table",
        )
    return positions


def _optics_group(row: dict[str, object], count: int) -> OpticsGroup:
    number = int(_number(row, "optics_group"))
    return OpticsGroup(
        number=number,
        name=str(row.get("optics_group_name", f"opticsGroup{number}")),
        pixel_size=_number(row, "pixel_size"),
        voltage=_number(row, "voltage"),
        spherical_aberration=_number(row, "spherical_aberration"),
        amplitude_contrast=_number(row, "amplitude_contrast"),
        is_premultiplied=_number(row, "is_premultiplied") == 1,
        is_phase_flipped=_number(row, "is_phase_flipped") == 1,
        n_particles=count,
    )


def _number(row: dict[str, object], name: str) -> float:
    return float(str(row.get(name, "nan")))


def _common_pixel_size(groups: tuple[OpticsGroup, ...], table: str) -> float:
    """Take the pixel size of the first group, if all groups share it."""
    first = groups[0].pixel_size
    for group in groups:
        if not 0 < group.pixel_size < float("inf"):
            raise TableError(
                table,
                must="give the pixel size of its images",
                got=f"{group.pixel_size:g} A for optics group {group.number}",
                remedy="Give it with --pixel-size",
            )
        if abs(group.pixel_size - first) > _PIXEL_SIZE_TOLERANCE * first:
            raise TableError(
                table,
                must="hold images of one pixel size",
                got=f"{first:g} A in optics group {groups[0].number} and "
                f"{group.pixel_size:g} A in group {group.number}",
                remedy="Extract the particles again with one pixel size, or take one group with: "
                "cryopick select subset --by optics_group",
            )
    return first


def _require_finite(values: NDArray[np.float64], column: str, table: str) -> None:
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise TableError(
            f"{table}, column {PARTICLE_ROWS[column]},",
            must="hold a number in every row",
            got=f"{values[bad[0]]:g} in row {bad[0] + 1}"
            + (f" and in {len(bad) - 1} more" if len(bad) > 1 else ""),
            remedy="Leave these particles out, or estimate their CTF",
        )


def _require_lens(group: OpticsGroup, name: str, table: str) -> None:
    """Refuse what no microscope has, and what `evaluate_ctf` cannot take."""
    lowest, highest = {"voltage": (1.0, 10000.0), "amplitude_contrast": (0.0, 1.0)}.get(
        name, (-1e4, 1e4)
    )
    value = float(getattr(group, name))
    if not lowest <= value <= highest:
        raise TableError(
            f"{table}, optics group {group.number}, {PARTICLE_OPTICS[name]},",
            must=f"be a number from {lowest:g} to {highest:g}",
            got=f"{value:g}",
            remedy="Mend the table",
        )


def _members(groups: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    for group in np.unique(groups):
        yield int(group), np.flatnonzero(groups == group)
