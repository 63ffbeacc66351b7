"""Read and write picks of every dialect: one table, one file per micrograph, or RELION's list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from cryopick.errors import ParameterError
from cryopick.io.star import write_star
from cryopick.pipeline.convert_formats import Format
from cryopick.pipeline.convert_micrographs import KnownMicrographs
from cryopick.tables import (
    cryolo,
    cryosparc,
    eman,
    gautomatch,
    relion_picks,
    scipion,
    topaz,
    xmipp_pos,
)
from cryopick.tables.model import Picks
from cryopick.tables.names import coordinate_stem, file_stems
from cryopick.tables.paths import micrograph_key
from cryopick.tables.relion_names import PICK_ROWS, to_relion

__all__ = ["PickTarget", "WritePlan", "plan_picks", "read_picks"]

WritePlan = list[tuple[Path, Callable[[], None]]]  # every file, and what writes it

_LIST = "autopick.star"


def read_picks(
    source: Path,
    reader: Format,
    known: KnownMicrographs,
    *,
    pixel_size: float | None,
    passthrough: Sequence[Path],
) -> Picks:
    """Read picks and give their micrographs the names that are known.

    Returns
    -------
    Picks
        ``attributes["micrographs"]`` names every micrograph of the input, also those without a
        pick; ``rows.attrs["n_disabled"]`` counts the rows that were rejected before.

    Raises
    ------
    CryopickError
        If a file is broken or a micrograph is not among the known ones.
    """
    if reader.is_per_micrograph and not (reader.name == "xmipp" and source.suffix == ".xmd"):
        return _read_files(source, reader, known, pixel_size)
    picks = _read_table(source, reader, passthrough)
    listed = picks.attributes.get("micrographs")
    words = [str(n) for n in listed] if isinstance(listed, list) else []
    words = list(dict.fromkeys([*words, *map(str, picks.rows["micrograph"])]))
    # only Topaz leaves something out of the names; others' are whole unless the user says more
    is_part = bool(known.names) or reader.name == "topaz"
    names = {w: known.find.find(w, source=str(source)) if is_part else w for w in words}
    rows = picks.rows.assign(micrograph=[names[str(n)] for n in picks.rows["micrograph"]])
    rows.attrs.update(picks.rows.attrs)
    attributes = {**picks.attributes, "micrographs": list(names.values())}
    return Picks(rows=rows, source=source, attributes=attributes)


def _read_table(source: Path, reader: Format, passthrough: Sequence[Path]) -> Picks:
    if reader.name == "topaz":
        return topaz.read_topaz(source)
    if reader.name == "cryosparc":
        return cryosparc.read_cs_picks(source, passthrough=passthrough)
    if reader.name == "scipion":
        return scipion.read_scipion_picks(source)
    if reader.name == "relion":
        return relion_picks.read_picks(source)
    return xmipp_pos.read_xmd_picks(source)


def _read_files(
    source: Path, reader: Format, known: KnownMicrographs, pixel_size: float | None
) -> Picks:
    is_folder = source.is_dir()
    files = sorted(source.rglob(f"*{reader.suffix}")) if is_folder else [source]
    if not files:
        raise ParameterError(
            str(source),
            must=f"hold files that end in {reader.suffix}",
            got="none",
            remedy="Check the folder, or change --from",
        )
    tables, names, n_disabled = [], [], 0
    attributes: dict[str, object] = {}
    for path in files:
        own = path.relative_to(source) if is_folder else Path(path.name)
        name = known.find.find(coordinate_stem(own.as_posix()), source=str(path))
        picks = _read_file(path, reader, name, pixel_size)
        tables.append(picks.rows)
        names.append(name)
        # an EMAN file may hold more than boxes, which belongs to its micrograph alone
        is_shared = reader.name != "eman-json" or len(files) == 1
        attributes |= picks.attributes if is_shared else {}
        n_disabled += int(picks.rows.attrs.get("n_disabled", 0))
    filled = [t for t in tables if len(t)]
    for table in filled:
        table.attrs.clear()  # pandas compares them when it joins tables
    rows = pd.concat(filled, ignore_index=True) if filled else tables[0]
    rows.attrs["n_disabled"] = n_disabled
    return Picks(rows=rows, source=source, attributes={**attributes, "micrographs": names})


def _read_file(path: Path, reader: Format, name: str, pixel_size: float | None) -> Picks:
    if reader.name == "cryolo-cbox":
        return cryolo.read_cbox(path, micrograph=name, pixel_size=pixel_size)
    functions = {
        "xmipp": xmipp_pos.read_pos,
        "eman-box": eman.read_box,
        "eman-json": eman.read_eman_json,
        "cryolo-box": cryolo.read_cryolo_box,
        "gautomatch": gautomatch.read_gautomatch,
    }
    return functions[reader.name](path, micrograph=name)


@dataclass(frozen=True, kw_only=True)
class PickTarget:
    """Where picks go and what their format needs beside them."""

    path: Path
    format: Format
    known: KnownMicrographs
    box_size: int | None = None
    pixel_size: float | None = None
    others: dict[str, object] | None = None  # further content of an EMAN info file

    def required_box(self) -> int:
        """Side of the boxes in px.

        Raises
        ------
        ParameterError
            If nothing says it.
        """
        if self.box_size is None:
            raise ParameterError(
                "--box-size",
                must=f"be given for {self.format.name} files, which draw boxes",
                got="none",
                remedy="Add --box-size in px of the micrographs",
            )
        return self.box_size


def plan_picks(rows: pd.DataFrame, names: Sequence[str], target: PickTarget) -> WritePlan:
    """Decide which files are written, without writing any.

    Parameters
    ----------
    rows
        The picks.
    names
        Every micrograph that shall have a file, also without picks.
    target
        Where to and how.

    Raises
    ------
    CryopickError
        If the box size is missing, or one file cannot hold several micrographs.
    """
    if target.format.needs_box:
        target.required_box()
    if target.format.name == "relion":
        return _plan_relion(rows, names, target)
    if target.format.is_per_micrograph:
        return _plan_files(rows, names, target)
    if target.format.name == "topaz":
        file_stems_are_enough(names)
        return [(target.path, partial(topaz.write_topaz, target.path, rows))]
    if target.format.name == "scipion":
        write = partial(scipion.write_scipion_picks, target.path, rows, box_size=target.box_size)
        return [(target.path, write)]
    sizes = target.known.sizes(list(dict.fromkeys(rows["micrograph"])), purpose="a .cs file")
    write = partial(
        cryosparc.write_cs_picks, target.path, rows, sizes=sizes, pixel_size=target.pixel_size
    )
    return [(target.path, write)]


def file_stems_are_enough(names: Sequence[str]) -> None:
    """Refuse micrographs that a program which drops folders would mix up.

    Raises
    ------
    ParameterError
        If two micrographs have one bare name.
    """
    stems = file_stems(names)
    if any("/" in stem for stem in stems.values()):
        raise ParameterError(
            "topaz",
            must="get micrographs with different file names, because it drops their folders",
            got=", ".join(list(stems)[:2]),
            remedy="Convert one folder at a time",
        )


def _plan_files(rows: pd.DataFrame, names: Sequence[str], target: PickTarget) -> WritePlan:
    groups = dict(tuple(rows.groupby("micrograph", sort=False)))
    suffix = target.format.suffix
    extension = f".{suffix.rpartition('.')[2]}"
    is_file = target.path.name.endswith(extension) and not target.path.is_dir()
    if is_file and len(names) > 1:
        raise ParameterError(
            str(target.path),
            must=f"be a folder, because a {target.format.name} file is of one micrograph",
            got=f"{len(names)} micrographs",
            remedy=f"Give a folder, with --to {target.format.name}",
        )
    stems = file_stems(names)
    plan: WritePlan = []
    for number, name in enumerate(names, start=1):
        path = target.path if is_file else target.path / f"{stems[name]}{suffix}"
        table = groups.get(name, rows.iloc[:0]).reset_index(drop=True)
        plan.append((path, partial(_write_file, path, table, number, target)))
    if is_file and not names:
        plan.append((target.path, partial(_write_file, target.path, rows, 1, target)))
    if target.format.name == "xmipp" and target.box_size is not None:
        folder = target.path.parent if is_file else target.path
        config = folder / "config.xmd"
        plan.append((config, partial(xmipp_pos.write_pos_config, config, box_size=target.box_size)))
    return plan


def _write_file(path: Path, rows: pd.DataFrame, number: int, target: PickTarget) -> None:
    match target.format.name:
        case "xmipp":
            xmipp_pos.write_pos(path, rows, micrograph_id=number)
        case "eman-box":
            eman.write_box(path, rows, box_size=target.required_box())
        case "eman-json":
            eman.write_eman_json(path, rows, others=target.others)
        case "cryolo-cbox":
            cryolo.write_cbox(
                path, rows, box_size=target.required_box(), pixel_size=target.pixel_size
            )
        case "cryolo-box":
            cryolo.write_cryolo_box(path, rows, box_size=target.required_box())
        case _:
            gautomatch.write_gautomatch(path, rows)


def _plan_relion(rows: pd.DataFrame, names: Sequence[str], target: PickTarget) -> WritePlan:
    path = target.path
    is_list = path.name == _LIST or path.suffix != ".star"
    if not is_list and len(names) <= 1:
        return [(path, partial(relion_picks.write_picks_file, path, rows))]
    if not is_list:
        return [(path, partial(write_star, path, {"particles": to_relion(rows, PICK_ROWS)}))]
    folder = path.parent if path.name == _LIST else path
    groups = dict(tuple(rows.groupby("micrograph", sort=False)))
    files = {name: folder / f"{_relion_key(name)}_autopick.star" for name in names}
    plan: WritePlan = [
        (
            file,
            partial(relion_picks.write_picks_file, file, groups.get(name, rows.iloc[:0])),
        )
        for name, file in files.items()
    ]
    listed = [(name, str(file)) for name, file in files.items()]
    list_path = folder / _LIST
    plan.append((list_path, partial(relion_picks.write_coordinate_files, list_path, listed)))
    return plan


def _relion_key(name: str) -> str:
    """RELION's rule for file names, for names that have lost their suffix too."""
    return micrograph_key(name if Path(name).suffix else f"{name}.mrc")
