"""Files that have the name of a micrograph and cannot be worked on, and one that vanishes."""

from __future__ import annotations

import bz2
import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from cryopick.io.mrc import write_mrc

__all__ = ["make_poison"]

_PIXEL_SIZE = 4.0  # A
_CUTS = (0, 1, 100, 512, 1023, 1024, 1025, 4096, -500_000, -1)  # bytes kept, or cut from the end
_WORDS = {  # of the header, by their place in bytes: what is wrong with it
    "no_columns": (0, 0),
    "negative": (4, -640),
    "huge": (0, 1 << 30),
    "mode3": (12, 3),
    "mode4": (12, 4),
    "mode99": (12, 99),
    "long_header": (92, (1 << 31) - 1),
}


def make_poison(folder: Path, good: Path, pixels: np.ndarray) -> list[str]:
    """Write them all.

    Parameters
    ----------
    folder
        Where to; must be there.
    good
        A whole micrograph, that some are made from.
    pixels
        Its pixels.

    Returns
    -------
    list of str
        Their names, of which the last two are not there.
    """
    whole = good.read_bytes()
    for number, size in enumerate(_CUTS):
        (folder / f"cut{number}.mrc").write_bytes(whole[:size])
    for name, (place, word) in _WORDS.items():
        raw = bytearray(whole)
        raw[place : place + 4] = struct.pack("<i", word)
        (folder / f"{name}.mrc").write_bytes(raw)
        if name == "huge":
            (folder / "huge_packed.mrc.gz").write_bytes(gzip.compress(bytes(raw), 1))
    for make in (_of_pixels, _of_other_formats, _that_are_no_files):
        make(folder, whole, pixels)
    listed = sorted(p.name for p in folder.iterdir())
    return [*listed, "gone.mrc", "loop.mrc/below.mrc"]


def _of_pixels(folder: Path, _: bytes, pixels: np.ndarray) -> None:
    values = {"nan": np.nan, "inf": np.inf, "minus_inf": -np.inf}
    for name, value in values.items():
        spoilt = pixels.copy()
        spoilt[7, 9] = value
        write_mrc(folder / f"{name}.mrc", spoilt, pixel_size=_PIXEL_SIZE)
    images = {
        "all_nan": np.full_like(pixels, np.nan),
        "constant": np.full_like(pixels, 5),
        "zero": np.zeros_like(pixels),
        "one": pixels[:1, :1],
        "tiny": pixels[:2, :2],
        "row": pixels[:1],
        "small": pixels[:20, :20],
        "movie": np.stack([pixels, pixels]),
    }
    for name, image in images.items():
        write_mrc(folder / f"{name}.mrc", image, pixel_size=_PIXEL_SIZE)


def _of_other_formats(folder: Path, whole: bytes, pixels: np.ndarray) -> None:
    packed = gzip.compress(whole, 1)
    (folder / "empty.mrc.gz").write_bytes(b"")
    (folder / "cut_packed.mrc.gz").write_bytes(packed[: len(packed) // 2])
    (folder / "plain.mrc.gz").write_bytes(whole)
    (folder / "cut_bz2.mrc.bz2").write_bytes(bz2.compress(whole[:99_000])[:5_000])
    (folder / "text.mrc").write_text("not an image " * 1000)
    (folder / "random.mrc").write_bytes(np.random.default_rng(1).bytes(5000))
    (folder / "junk_tif.tif").write_bytes(b"II*\0junk")
    (folder / "junk_png.png").write_bytes(b"\x89PNG junk")
    (folder / "junk_jpg.jpg").write_bytes(b"\xff\xd8 junk")
    (folder / "unknown.xyz").write_bytes(whole)
    tifffile.imwrite(folder / "cut_tif.tif", pixels)
    with (folder / "cut_tif.tif").open("r+b") as handle:
        handle.truncate(100_000)
    tifffile.imwrite(folder / "movie_tif.tif", np.stack([pixels, pixels]))
    Image.fromarray(np.zeros((640, 640), np.uint8)).save(folder / "black.png")


def _that_are_no_files(folder: Path, whole: bytes, _: np.ndarray) -> None:
    (folder / "folder.mrc").mkdir()
    (folder / "dangling.mrc").symlink_to("nowhere.mrc")
    (folder / "loop.mrc").symlink_to("loop.mrc")
    (folder / "fails.mrc").symlink_to("/proc/self/mem")  # opens, and fails when it is read
    os.mkfifo(folder / "pipe.mrc")
    os.mkfifo(folder / "pipe_tif.tif")
    (folder / "device.mrc").symlink_to("/dev/zero")
    (folder / "locked.mrc").write_bytes(whole)
    (folder / "locked.mrc").chmod(0)


def vanishing(path: Path, whole: bytes) -> Callable[..., None]:
    """Write a good micrograph; the function that is returned takes it away, once called."""
    path.write_bytes(whole)
    return lambda *_: path.unlink(missing_ok=True)
