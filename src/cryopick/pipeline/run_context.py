"""What the steps of an unattended run share: the micrographs, the folders, what is known so far."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryopick.errors import CryopickError
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.micrograph import read_micrograph
from cryopick.pipeline.growing import is_growing
from cryopick.pipeline.run_parameters import RunParameters, Sizes
from cryopick.tables.micrographs import micrograph_path, pixel_sizes
from cryopick.tables.model import Micrographs
from cryopick.tables.paths import rename_for
from cryopick.tables.relion import read_micrographs, write_micrographs

__all__ = [
    "CTF_TABLE",
    "TRUSTED",
    "Outcome",
    "RunContext",
    "StepTell",
    "chosen_rows",
    "real_path",
    "write_first",
    "write_searchable",
]

CTF_TABLE = "micrographs_ctf.star"
TRUSTED = 0.5  # share of the fields whose fits can be trusted, for the CTF to be used at all

StepTell = Callable[[str, float, str], None]  # what is done, its share, a note


def _quiet(*_: object) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a step has made."""

    content: tuple[Path, ...]  # files that tell whether it is the same result as before
    facts: Mapping[str, Any]  # numbers for the story of the run


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What a step is given."""

    table: Path  # of all micrographs
    parameters: RunParameters
    compute: ComputeParameters
    folders: Mapping[str, Path] = field(default_factory=dict)  # of the steps before
    tell: StepTell = _quiet
    say: Callable[[str], None] = _quiet  # sentences for the user
    trusts_ctf: bool | None = None  # where more is known than of the micrographs of `table`

    def micrographs(self) -> Path:
        """Name the table of the micrographs, with their CTF where it was estimated."""
        estimated = self.folders.get("ctf")
        return self.table if estimated is None else estimated / CTF_TABLE

    def uses_ctf(self, wanted: Collection[Path]) -> bool:
        """Whether the CTF is known, and trusted for half of these micrographs or more.

        Only those that a step works on are asked, so that others, which are added later, do not
        change what it does.
        """
        if self.parameters.ctf == "ignore":
            return False
        if self.trusts_ctf is not None:
            return self.trusts_ctf
        rows = chosen_rows(read_micrographs(self.micrographs()), wanted)
        if "is_ctf_trusted" in rows and len(rows):
            return float(np.mean(rows["is_ctf_trusted"].astype(float))) >= TRUSTED
        return "defocus_u" in rows

    @property
    def sizes(self) -> Sizes:
        """How large particles are: as told, or as estimated before."""
        told = self.parameters.sizes
        if told is not None:
            return told
        values = json.loads((self.folders["diameter"] / "diameter.json").read_bytes())
        return Sizes(
            diameter=values["diameter"],
            min_diameter=values["min_diameter"],
            max_diameter=values["max_diameter"],
        )

    def counted(self, label: str) -> Callable[[int, int], None]:
        """Progress of a step that counts items."""
        return lambda done, total: self.tell(label, done / max(total, 1), f"{done} of {total}")


def real_path(path: Path) -> Path:
    """Follow links, as far as they lead somewhere: a loop is refused where it is opened."""
    return Path(os.path.realpath(path))


def _place(working: str, name: str, source: str | None) -> str:
    """Where the micrograph of a table lies, as seen from a working folder."""
    path = micrograph_path(name, None if source is None else Path(source))
    return os.path.realpath(Path(working, path))


_known_place = lru_cache(maxsize=1 << 18)(_place)


def chosen_rows(table: Micrographs, wanted: Collection[Path]) -> pd.DataFrame:
    """Take the rows of the micrographs that lie in these places."""
    asked = _known_place if is_growing() else _place  # the same names again and again
    place = partial(asked, str(Path.cwd()))
    known = {place(str(path), None) for path in wanted}
    source = None if table.source is None else str(table.source)
    names = [str(n) for n in table.rows["micrograph"]]
    is_wanted = [place(n, source) in known for n in names]
    return table.rows[is_wanted].reset_index(drop=True)


def write_first(source: Path, target: Path, *, wanted: Sequence[Path]) -> Path:
    """Write a table of some micrographs of another table; for all of them, name that itself.

    Parameters
    ----------
    source
        The table.
    target
        To be written.
    wanted
        Where the micrographs lie; those that `source` does not list are passed over.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    table = read_micrographs(source)
    rows = chosen_rows(table, wanted)
    if len(rows) == len(table):
        return source
    renamed = [rename_for(str(n), source=source, target=target) for n in rows["micrograph"]]
    write_micrographs(target, replace(table, rows=rows.assign(micrograph=renamed)))
    return target


def write_searchable(run: RunContext, target: Path, *, wanted: Sequence[Path]) -> Path:
    """Write a table of the first micrographs in which a diameter can be sought.

    Parameters
    ----------
    run
        Whose micrographs they are.
    target
        To be written.
    wanted
        The first micrographs; each that cannot be read, shows nothing or is too small is replaced
        by the next one. Where none is of use they are taken as they are, for the step to say why.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    table = read_micrographs(run.micrographs())
    places = [micrograph_path(str(n), table.source) for n in table.rows["micrograph"]]
    fits = (p for p, s in zip(places, pixel_sizes(table), strict=True) if _is_searchable(p, s))
    return write_first(
        run.micrographs(), target, wanted=list(itertools.islice(fits, len(wanted))) or wanted
    )


def _is_searchable(path: Path, pixel_size: float) -> bool:
    from cryopick.picking.diameter import candidate_diameters  # a run with nothing to do: no torch

    try:
        pixels = read_micrograph(path)
        candidate_diameters((pixels.shape[0], pixels.shape[1]), pixel_size)
    except CryopickError:
        return False
    return bool(np.isfinite(pixels).all() and pixels.min() < pixels.max())
