"""Write a file so that it is either whole or not there."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from cryopick.errors import OutputError

__all__ = [
    "aside_path",
    "commit_file",
    "find_leftovers",
    "is_alive",
    "make_folder",
    "output_errors",
    "remove_leftovers",
    "sync_folder",
    "tells_of_disk",
    "write_json",
    "write_text",
    "writing",
]

_LEFTOVER = re.compile(r"\..+\.(\d+)\.tmp(?:-journal)?")  # SQLite has a journal beside its file
_REMEDIES = {
    errno.ENOSPC: ("have room left on its disk", "Free some space or choose another --out"),
    errno.EDQUOT: ("have room left in its quota", "Free some space or choose another --out"),
    errno.EFBIG: ("be within the size limit of files", "Raise the limit (ulimit -f)"),
    errno.EIO: ("lie on a disk that works", "Check the disk or choose another --out"),
    errno.ENAMETOOLONG: ("have a shorter name", "Choose another --out or shorten the names"),
    errno.ENOENT: ("lie where folders can be made", "Choose another --out"),
    errno.ESTALE: ("lie on a disk that is connected", "Connect it again or choose another --out"),
    errno.EROFS: ("lie on a writable disk", "Choose another --out"),
    errno.EACCES: ("be writable", "Change its permissions or choose another --out"),
    errno.EPERM: ("be writable", "Change its permissions or choose another --out"),
    errno.ENOTDIR: ("lie in a folder", "Choose another --out"),
    errno.EISDIR: ("be a file", "Choose another --out"),
}

_OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS)


def tells_of_disk(sentence: str) -> bool:
    """Tell whether an error is one of the disk that is written to, not of what is written.

    Parameters
    ----------
    sentence
        Of an error.

    Examples
    --------
    >>> tells_of_disk("a.mrcs must have room left on its disk; got no space left. Free some.")
    True
    """
    return any(f" must {_REMEDIES[number][0]}; got " in sentence for number in _OF_DISK)


@contextlib.contextmanager
def output_errors(path: Path, *, option: str = "--out") -> Iterator[None]:
    """Turn a failed write below this line into one sentence that names `path`.

    Parameters
    ----------
    path
        What is written.
    option
        Where the user chose it; the sentence asks for another one.

    Raises
    ------
    OutputError
        If the disk is full, read-only or the path cannot be written.
    """
    try:
        yield
    except OSError as error:
        number = error.errno
        if number == errno.EEXIST:  # of mkdir: where a folder must be is something else
            number = errno.ENOTDIR
        if number not in _REMEDIES:
            raise
        must, remedy = _REMEDIES[number]
        remedy = remedy.replace("--out", option)
        reason = os.strerror(number).lower()
        raise OutputError(str(path), must=must, got=reason, remedy=remedy) from error


@contextlib.contextmanager
def writing(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file beside `path`; on success commit it as `path`.

    A reader never sees half a file, and a failed write leaves the old one alone.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    path = Path(path)
    aside = aside_path(path)
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open(mode) as handle:
                yield handle
                handle.flush()
            commit_file(aside, path)
        finally:
            aside.unlink(missing_ok=True)


def commit_file(aside: Path, path: Path) -> None:
    """Give a file its name so that it is whole under it, even if the power fails.

    The bytes reach the disk before the name does, and the name before this function returns.

    Parameters
    ----------
    aside
        A file that is written and closed, in the folder of `path`.
    path
        What it is called from now on; a file of that name is replaced.
    """
    with aside.open("rb") as handle:
        os.fsync(handle.fileno())
    aside.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to disk, where its file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def aside_path(path: Path) -> Path:
    """Where a file is written until it is whole.

    Examples
    --------
    >>> aside_path(Path("out/a.star")).name.startswith(".a.star.")
    True
    """
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_leftovers(folder: Path, *, is_deep: bool = True) -> None:
    """Remove what killed processes had not finished writing in a folder.

    Files of processes that live, and folders with a job of their own, are left alone.

    Parameters
    ----------
    folder
        Where to look.
    is_deep
        Look in the folders below it, too.
    """
    for where, folders, files in os.walk(folder):
        here = Path(where)
        links = [f for f in folders if (here / f).is_symlink()]
        folders[:] = [f for f in folders if is_deep and not (here / f / "job.json").exists()]
        for name in (*files, *links):
            if _is_leftover(name):
                with contextlib.suppress(OSError):
                    (here / name).unlink()


def find_leftovers(folder: Path) -> Iterator[Path]:
    """List what killed processes had not finished writing, at any depth below a folder."""
    for where, folders, files in os.walk(folder):
        folders.sort()
        yield from (Path(where) / n for n in sorted((*files, *folders)) if _is_leftover(n))


def _is_leftover(name: str) -> bool:
    match = _LEFTOVER.fullmatch(name)
    return match is not None and not is_alive(int(match[1]))


def is_alive(process: int) -> bool:
    """Tell whether a process of this machine lives; a zombie does not.

    Parameters
    ----------
    process
        Its number.
    """
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    try:
        state = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[:1]
    except OSError:  # not Linux
        return True
    return state != [b"Z"]  # ended, but not yet noticed by its parent


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    with writing(path) as handle:
        handle.write(text.encode())


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON, whole or not at all.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def make_folder(path: Path, *, option: str = "--out") -> Path:
    """Make a folder and its parents.

    Parameters
    ----------
    path
        The folder.
    option
        Where the user chose it, for messages.

    Raises
    ------
    OutputError
        If it cannot be made or is a file.
    """
    with output_errors(path, option=option):
        try:
            Path(path).mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise OutputError(
                str(path), must="be a folder", got="a file", remedy=f"Choose another {option}"
            ) from error
    return Path(path)
