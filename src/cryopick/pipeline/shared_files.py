"""Files by which the workers of a cluster get what is too large for the scheduler.

What all parts of the work need is pickled into a file, whose path goes out with the tasks. What
stays the same from work to work (images, tables) has a file of its own, which others refer to: a
worker reads it once and keeps it. Files are named by what is in them.
"""

from __future__ import annotations

import functools
import hashlib
import io
import pickle
import threading
import uuid
from pathlib import Path
from typing import Any

import torch

from cryopick.errors import FormatError
from cryopick.io.atomic import make_folder, writing

__all__ = ["SharedFiles", "files_lock", "opened_part", "opened_work"]

_KEPT_PARTS = 8  # of a process
files_lock = threading.Lock()  # of a process, to be held where files are opened


class SharedFiles:
    """Files in the folder of a job.

    Parameters
    ----------
    folder
        Made when it is needed, and removed with the last file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._parts: dict[int, tuple[object, Path]] = {}  # by id of what they hold
        self._files: set[Path] = set()

    def share(self, value: object, contents: object = None) -> Path:
        """Give a value a file of its own, once; what is written later refers to it.

        Parameters
        ----------
        value
            Anything that can be pickled.
        contents
            What workers find in its place; itself if not given.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        if id(value) not in self._parts:
            path = self.write(value if contents is None else contents)
            self._parts[id(value)] = (value, path)
        return self._parts[id(value)][1]

    def is_shared(self, value: object) -> bool:
        """Whether a value has a file of its own."""
        return id(value) in self._parts

    def write(self, value: object) -> Path:
        """Write a value under the name of its content, less the values that are shared.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        buffer = io.BytesIO()
        _Dumper(buffer, self._parts).dump(value)
        content = buffer.getbuffer()
        path = self._folder / f"{hashlib.sha256(content).hexdigest()}.pickle"
        if not path.exists():
            make_folder(path.parent)
            with writing(path) as file:
                file.write(content)
        self._files.add(path)
        return path

    def new_path(self, suffix: str) -> Path:
        """Give a path that nothing has had, of a file that is removed with the others."""
        path = self._folder / f"{uuid.uuid4().hex}{suffix}"
        self._files.add(path)
        return path

    def forget(self, value: object) -> None:
        """Remove the file of a shared value."""
        if id(value) in self._parts:
            self.remove(self._parts.pop(id(value))[1])

    def remove(self, path: Path) -> None:
        """Remove a file."""
        path.unlink(missing_ok=True)
        self._files.discard(path)
        if self._folder.exists() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def close(self) -> None:
        """Remove all files."""
        self._parts.clear()
        for path in list(self._files):
            self.remove(path)


@functools.lru_cache(maxsize=_KEPT_PARTS)
def opened_part(path: Path) -> Any:
    """Read a value that has a file of its own, once in this process.

    Raises
    ------
    FormatError
        If the file holds something else.
    """
    return _Loader(io.BytesIO(_read(path))).load()


@functools.lru_cache(maxsize=1)
def opened_work(path: Path) -> Any:
    """Read what all parts of the work need; the last is kept.

    Raises
    ------
    FormatError
        If the file holds something else.
    """
    return _Loader(io.BytesIO(_read(path))).load()


def _read(path: Path) -> bytes:
    """Read a file, and make sure that it is the one meant."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != path.stem:
        raise FormatError(
            str(path),
            must="hold what its name says",
            got="other bytes",
            remedy="Check the disk, and run the same command again",
        )
    return content


class _Dumper(pickle.Pickler):
    def __init__(self, file: io.BytesIO, parts: dict[int, tuple[object, Path]]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._parts = parts

    def persistent_id(self, value: Any) -> str | None:
        known = self._parts.get(id(value))
        return None if known is None else str(known[1])

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if value.untyped_storage().nbytes() > value.nbytes:
                value = value.clone()  # a part of a tensor would be written as the whole
            return value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        return NotImplemented


class _Loader(pickle.Unpickler):
    def persistent_load(self, name: str) -> Any:
        return opened_part(Path(name))
