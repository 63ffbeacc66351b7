"""Rounds of a stream on disk: each is whole or not there, and the last one is ``current``.

    OUT/rounds/0003/   what round 3 has found; round.json is written last and makes it count
    OUT/current        link to the last round
    OUT/close          made by the user: the stream ends when what is there has been taken

A round that was being written when the stream was killed is removed and made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryopick.errors import FormatError
from cryopick.io.atomic import make_folder, output_errors, sync_folder, write_json

__all__ = ["CURRENT", "Round", "StreamRounds"]

CURRENT = "current"
_RECORD = "round.json"
_RECENT = 5  # rounds


@dataclass(frozen=True, kw_only=True)
class Round:
    """A round that is whole."""

    number: int  # from 1
    folder: Path
    values: dict[str, Any]


class StreamRounds:
    """The rounds in a folder.

    Parameters
    ----------
    out
        Of the stream.
    identity
        What all rounds depend on; rounds of another one are removed.
    passing
        Names, or ends of names, of files that are of use in the last round only.
    lasting
        Names of files that are kept of all rounds, beside the record. Other files are kept of the
        last five rounds and of rounds 1, 2, 4, 8 ..., so that a stream of days fills no disk.

    Raises
    ------
    FormatError
        If the record of a round is broken.
    OutputError
        If what was left half done cannot be removed.
    """

    def __init__(
        self,
        out: Path,
        *,
        identity: Mapping[str, Any] | None = None,
        passing: tuple[str, ...] = (),
        lasting: tuple[str, ...] = (),
    ) -> None:
        self._passing, self._lasting = passing, lasting
        self.out = Path(out)
        self.folder = self.out / "rounds"
        self.rounds: list[Round] = []
        text = json.dumps(dict(identity or {}), sort_keys=True)
        self._identity = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        for place in sorted(self.folder.glob("[0-9][0-9][0-9][0-9]")):
            if (place / _RECORD).is_file():
                values = _read(place / _RECORD)
                if values.get("identity") == self._identity:
                    found = Round(number=int(place.name), folder=place, values=values)
                    self.rounds.append(found)
                    continue
            with output_errors(place):
                shutil.rmtree(place)
        if self.rounds:
            self._point(self.rounds[-1])
        self._thin(self.rounds[:-1], self.rounds[:-_RECENT])

    @property
    def last(self) -> Round | None:
        """The last round; None before the first."""
        return self.rounds[-1] if self.rounds else None

    def begin(self) -> Path:
        """Make the folder of the next round, which does not count before `commit`.

        Raises
        ------
        OutputError
            If it cannot be made.
        """
        number = self.rounds[-1].number + 1 if self.rounds else 1
        return make_folder(self.folder / f"{number:04d}")

    def commit(self, folder: Path, values: Mapping[str, Any]) -> Round:
        """Make a round count.

        Parameters
        ----------
        folder
            That `begin` gave, with all its files.
        values
            What the round has found, for its record.

        Raises
        ------
        OutputError
            If the record cannot be written.
        """
        with output_errors(folder):
            for path in folder.iterdir():
                _sync(path)
        values = {**values, "identity": self._identity}
        write_json(folder / _RECORD, values)
        sync_folder(self.folder)
        made = Round(number=int(folder.name), folder=folder, values=values)
        self.rounds.append(made)
        self._point(made)
        self._thin(self.rounds[-2:-1], self.rounds[:-_RECENT][-1:])
        return made

    def _thin(self, earlier: Sequence[Round], old: Sequence[Round]) -> None:
        """Remove what is of no more use of rounds that are not the last, and not recent."""
        for made in earlier:
            _remove(made.folder, lambda name: name.endswith(self._passing))
        for made in old:
            if made.number & (made.number - 1):  # no power of two
                _remove(made.folder, lambda name: name not in (_RECORD, *self._lasting))

    def _point(self, last: Round) -> None:
        link, aside = self.out / CURRENT, self.out / f".{CURRENT}.{os.getpid()}.tmp"
        target = last.folder.relative_to(self.out)
        with output_errors(link):
            if link.is_symlink() and link.readlink() == target:
                return
            aside.unlink(missing_ok=True)
            aside.symlink_to(target, target_is_directory=True)
            aside.replace(link)
        sync_folder(self.out)


def _remove(folder: Path, is_old: Callable[[str], bool]) -> None:
    for path in folder.iterdir():
        if is_old(path.name):
            with contextlib.suppress(OSError):  # is in nobody's way
                path.unlink()


def _sync(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise FormatError(
            str(path),
            must="be the record of a round",
            got="a broken file",
            remedy=f"Remove the folder {path.parent}: that round is made again",
        ) from error
    return dict(values)
