"""The micrographs that the user names beside a conversion: their full names and their sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryopick.errors import FormatError, ParameterError
from cryopick.io.micrograph import read_micrograph_size
from cryopick.tables import cryosparc, relion, scipion, xmipp
from cryopick.tables.micrographs import open_micrographs
from cryopick.tables.model import Micrographs
from cryopick.tables.names import MicrographNames
from cryopick.tables.paths import resolve_path

__all__ = ["KnownMicrographs", "read_micrographs"]

_FOREIGN = (".cs", ".sqlite", ".db", ".xmd")


def read_micrographs(
    path: Path, *, pixel_size: float | None = None, passthrough: Sequence[Path] = ()
) -> Micrographs:
    """Read a table of micrographs in any dialect, told apart by suffix.

    Raises
    ------
    CryopickError
        If the file is broken or holds no micrographs.
    """
    if path.suffix == ".cs":
        return cryosparc.read_cs_micrographs(path, passthrough=passthrough)
    if path.suffix in (".sqlite", ".db"):
        return scipion.read_scipion_micrographs(path, pixel_size=pixel_size)
    if path.suffix in (".xmd", ".pos"):
        return xmipp.read_xmd_micrographs(path, pixel_size=pixel_size)
    return relion.read_micrographs(path, pixel_size=pixel_size)


@dataclass(frozen=True)
class KnownMicrographs:
    """Names of the micrographs in their order, and where their files may lie."""

    names: tuple[str, ...] = ()
    table: Path | None = None  # relative names start near it
    find: MicrographNames = field(default_factory=lambda: MicrographNames(()))

    @classmethod
    def from_option(cls, given: str | None, *, near: Path) -> KnownMicrographs:
        """Understand the value of ``--micrographs``.

        Parameters
        ----------
        given
            A table, a folder, a pattern, one image, or nothing.
        near
            The input; where no table is given, relative names start near it.

        Raises
        ------
        CryopickError
            If nothing matches, or the table is broken.
        """
        if given is None:
            return cls(table=near)
        path = Path(given)
        if path.suffix in _FOREIGN:
            names = [str(n) for n in read_micrographs(path, pixel_size=1.0).rows["micrograph"]]
            return cls(tuple(names), path, MicrographNames(names))
        found = open_micrographs([given], pixel_size=1.0)  # which plays no part here
        names = [str(n) for n in found.rows["micrograph"]]
        if found.source is None and not any(Path(name).exists() for name in names):
            raise ParameterError("--micrographs", must="exist", got=given, remedy="Check the path")
        return cls(tuple(names), found.source or near, MicrographNames(names))

    def sizes(self, names: Sequence[str], *, purpose: str) -> Mapping[str, tuple[int, int]]:
        """Height and width in px of the named micrographs, from their files.

        Parameters
        ----------
        names
            Full names.
        purpose
            Why they are needed, for the message.

        Raises
        ------
        FormatError
            If a file is missing or unreadable.
        """
        found = {}
        for name in names:
            path = resolve_path(name, self.table)
            if not path.is_file():
                raise FormatError(
                    name,
                    must=f"be a file, because {purpose} needs its size",
                    got="no such file",
                    remedy="Give --micrographs: their table, or a pattern of files",
                )
            found[name] = read_micrograph_size(path)
        return found
