"""Tell foreign files apart by suffix and, where that is not enough, by a look inside."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from cryopick.errors import ParameterError, ProjectError
from cryopick.io.cryosparc import read_cs_fields
from cryopick.io.scipion_sqlite import read_item_class

__all__ = ["FORMATS", "Format", "Kind", "detect_source", "detect_target", "find_kind"]

Kind = Literal["picks", "particles", "micrographs"]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A dialect of files."""

    name: str
    suffix: str  # what is added to the name of a micrograph, or ends the one file
    is_per_micrograph: bool = False
    needs_box: bool = False
    writes: tuple[Kind, ...] = ("picks",)
    # columns of picks it has a word for, beside name, position and figure of merit; None: all
    extras: frozenset[str] | None = frozenset()


_ORIENTED = frozenset({"psi", "class_number"})
_SIZED = frozenset({"diameter", "est_width", "est_height"})
_EVERY: tuple[Kind, ...] = ("picks", "particles", "micrographs")
_FILES: list[Format] = [
    Format(name="relion", suffix=".star", writes=_EVERY, extras=None),
    Format(name="xmipp", suffix=".pos", is_per_micrograph=True),
    Format(name="xmd", suffix=".xmd", writes=("particles", "micrographs")),
    Format(name="eman-box", suffix=".box", is_per_micrograph=True, needs_box=True),
    Format(
        name="eman-json",
        suffix="_info.json",
        is_per_micrograph=True,
        extras=frozenset({"eman_tag"}),
    ),
    Format(name="topaz", suffix=".txt"),
    Format(
        name="cryolo-cbox", suffix=".cbox", is_per_micrograph=True, needs_box=True, extras=_SIZED
    ),
    Format(name="cryolo-box", suffix=".box", is_per_micrograph=True, needs_box=True),
    Format(name="gautomatch", suffix="_automatch.star", is_per_micrograph=True, extras=_ORIENTED),
    Format(
        name="cryosparc",
        suffix=".cs",
        writes=("picks", "particles"),
        extras=frozenset({"uid"}),
    ),
    Format(name="scipion", suffix=".sqlite", writes=("picks", "particles"), extras=_ORIENTED),
]
FORMATS: dict[str, Format] = {f.name: f for f in _FILES}
_SUFFIXES = {f.suffix: f.name for f in FORMATS.values() if f.name != "cryolo-box"}
_SUFFIXES |= {".tab": "topaz", ".tsv": "topaz", ".json": "eman-json"}
_HEADER_LINES = 2000  # optics groups come before the labels of the particles


def _by_suffix(path: Path) -> str | None:
    longest_first = sorted(_SUFFIXES, key=len, reverse=True)
    name = path.name.lower()
    return next((_SUFFIXES[s] for s in longest_first if name.endswith(s)), None)


def _required(name: str, option: str) -> Format:
    if name not in FORMATS:
        raise ParameterError(
            option, must="be a known format", got=name, remedy=f"Known are {', '.join(FORMATS)}"
        )
    return FORMATS[name]


def detect_source(path: Path, named: str | None) -> Format:
    """Find the format of what is to be read.

    Parameters
    ----------
    path
        A file or a folder of coordinate files.
    named
        What the user called it, which is believed.

    Raises
    ------
    ParameterError
        If the format is unknown or a folder holds several.
    ProjectError
        If there is no such file or folder.
    """
    if named is not None:
        return _required(named, "--from")
    if not path.exists():
        raise ProjectError(
            str(path), must="be a file or folder", got="no such path", remedy="Check the path"
        )
    found = _in_folder(path) if path.is_dir() else _by_suffix(path)
    if found == "eman-box":
        found = _box_program(path)
    if found is None:
        is_folder = path.is_dir()
        raise ParameterError(
            str(path),
            must="hold coordinate files" if is_folder else "have a known suffix",
            got="none" if is_folder else path.suffix or "none",
            remedy=f"Name its format with cryopick convert --from: {', '.join(FORMATS)}",
        )
    return FORMATS[found]


def _in_folder(folder: Path) -> str | None:
    if any((folder / name).is_file() for name in ("autopick.star", "manualpick.star")):
        return "relion"
    counts: Counter[str] = Counter()
    for path in folder.rglob("*"):
        name = path.name
        is_json = name.endswith(".json") and not name.endswith("_info.json")  # of the project
        if path.is_file() and not is_json and not name.startswith("."):
            counts[_by_suffix(path) or ""] += 1
    counts.pop("", None)
    if counts.get("xmipp"):
        counts.pop("xmd", None)  # config.xmd
    if counts.get("gautomatch"):
        counts.pop("relion", None)  # its lists of rejected boxes
    if len(counts) > 1:
        raise ParameterError(
            str(folder),
            must="hold coordinate files of one format",
            got=", ".join(f"{n} {name}" for name, n in counts.most_common()),
            remedy="Add --from, or give one of its folders",
        )
    return next(iter(counts), None)


def _box_program(path: Path) -> str:
    """Tell EMAN's and crYOLO's box files apart: EMAN writes whole numbers, crYOLO fractions."""
    files = sorted(path.rglob("*.box")) if path.is_dir() else [path]
    for file in files:
        words = file.read_text(errors="replace").split()[:4]
        if words:
            return "cryolo-box" if any("." in word for word in words) else "eman-box"
    return "eman-box"


def detect_target(path: Path, named: str | None, kind: Kind) -> Format:
    """Find the format that is to be written.

    Raises
    ------
    ParameterError
        If the format is unknown, or cannot hold what was read.
    """
    name = named or _by_suffix(path)
    if name == "xmipp" and (kind == "micrographs" or path.suffix == ".xmd"):
        name = "xmd"  # the user means the program
    if name is None:
        raise ParameterError(
            str(path),
            must="have a known suffix",
            got=path.suffix or "none",
            remedy=f"Add --to with one of {', '.join(FORMATS)}",
        )
    found = _required(name, "--to")
    if kind not in found.writes and not (kind == "particles" and "picks" in found.writes):
        able = ", ".join(f.name for f in FORMATS.values() if kind in f.writes)
        raise ParameterError(
            "--to", must=f"be a format for {kind}", got=found.name, remedy=f"Use one of {able}"
        )
    return found


def find_kind(path: Path, source: Format) -> Kind:
    """Look into a file to see which table it holds.

    Raises
    ------
    FormatError
        If the file cannot be read.
    """
    if path.is_dir() or source.name not in ("relion", "xmd", "xmipp", "cryosparc", "scipion"):
        return "picks"
    if source.name == "cryosparc":
        fields = read_cs_fields(path)
        if "blob/path" in fields:
            return "particles"
        return "micrographs" if "location/center_x_frac" not in fields else "picks"
    if source.name == "scipion":
        return _ITEMS.get(read_item_class(path), "picks")
    labels = _labels(path)
    for label, kind in _TELLING[source.name]:
        if label in labels:
            return kind
    return "picks"


_ITEMS: dict[str, Kind] = {"Particle": "particles", "Micrograph": "micrographs"}
_XMIPP: list[tuple[str, Kind]] = [
    ("image", "particles"),
    ("xcoor", "picks"),
    ("Xcoor", "picks"),
    ("micrograph", "micrographs"),
]
_TELLING: dict[str, list[tuple[str, Kind]]] = {
    "relion": [
        ("rlnImageName", "particles"),
        ("rlnCoordinateX", "picks"),
        ("rlnMicrographCoordinates", "picks"),
        ("rlnMicrographName", "micrographs"),
    ],
    "xmd": _XMIPP,
    "xmipp": _XMIPP,
}


def _labels(path: Path) -> set[str]:
    try:
        with path.open(encoding="utf-8", errors="replace") as handle:
            lines = [line.strip() for line in islice(handle, _HEADER_LINES)]
    except OSError:
        return set()  # the reader says what is wrong
    return {line.split()[0].removeprefix("_") for line in lines if line.startswith("_")}
