"""Turn grey or colour pixels into PNG, WebP or JPEG bytes, for pictures that people look at."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import ShapeError
from cryopick.io.atomic import writing

__all__ = ["encode_jpeg", "encode_png", "encode_webp", "read_png_comment", "write_png"]


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Compress without loss.

    Parameters
    ----------
    pixels
        (y, x) grey or (y, x, 3) colour, uint8.

    Returns
    -------
    bytes
        A PNG file.

    Raises
    ------
    ShapeError
        If `pixels` is neither grey nor colour, or no uint8.
    """
    return _encode(pixels, "PNG", optimize=True)


def encode_webp(pixels: NDArray[np.uint8], *, quality: int = 80) -> bytes:
    """Compress with loss, to about a tenth of a PNG for a noisy micrograph.

    Parameters
    ----------
    pixels
        (y, x) grey or (y, x, 3) colour, uint8.
    quality
        0 to 100.

    Returns
    -------
    bytes
        A WebP file.

    Raises
    ------
    ShapeError
        If `pixels` is neither grey nor colour, or no uint8.
    """
    return _encode(pixels, "WEBP", quality=quality, method=4)


def encode_jpeg(pixels: NDArray[np.uint8], *, quality: int = 90) -> bytes:
    """Compress with loss and at once: for pictures that are made while somebody waits.

    Parameters
    ----------
    pixels
        (y, x) grey or (y, x, 3) colour, uint8.
    quality
        1 to 95.

    Returns
    -------
    bytes
        A JPEG file.

    Raises
    ------
    ShapeError
        If `pixels` is neither grey nor colour, or no uint8.
    """
    return _encode(pixels, "JPEG", quality=quality)


def read_png_comment(path: Path) -> str:
    """Read the comment that was stored in a PNG file; empty where there is none, or no PNG file."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            picture.load()
            return str(picture.info.get("Comment", ""))
    except (OSError, SyntaxError, UnidentifiedImageError):  # a broken chunk is a SyntaxError there
        return ""


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a PNG file, whole or not at all.

    Parameters
    ----------
    path
        Where to.
    pixels
        (y, x) grey or (y, x, 3) colour, uint8.

    Raises
    ------
    OutputError
        If the file cannot be written.
    ShapeError
        If `pixels` is neither grey nor colour, or no uint8.
    """
    content = encode_png(pixels)
    with writing(path) as handle:
        handle.write(content)


def _encode(pixels: NDArray[np.uint8], kind: str, **options: int | bool) -> bytes:
    from PIL import Image

    is_picture = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if pixels.dtype != np.uint8 or not is_picture or not pixels.size:
        raise ShapeError(
            "pixels",
            must="have shape (y, x) or (y, x, 3) and type uint8",
            got=f"{pixels.shape} {pixels.dtype}",
            remedy="Scale the image to 0..255 first",
        )
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, kind, **options)
    return buffer.getvalue()
