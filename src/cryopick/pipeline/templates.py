"""Templates to pick with, out of a stack, a table of class averages or a map."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.errors import DataError, FormatError, ParameterError
from cryopick.io.mrc import read_mrc, read_mrc_header
from cryopick.picking.projections import project_map, view_directions
from cryopick.picking.template_parameters import TemplateParameters
from cryopick.pipeline.class2d_references import (
    UNSAID,
    kept_averages,
    read_average_table,
    read_averages,
)

__all__ = ["TemplateImages", "read_templates"]

_HDF = (".hdf", ".h5", ".hdf5")


class TemplateImages(NamedTuple):
    """Templates as images."""

    images: Tensor  # (k, y, x) float32, particles white
    pixel_size: float  # A/px
    kind: Literal["images", "map"]  # what was given
    identity: str  # of the pixels and the pixel size that were given, wherever they lie


def read_templates(path: Path, *, parameters: TemplateParameters) -> TemplateImages:
    """Read templates, and project a map.

    An MRC file with as many sections as rows and columns is a map, else its sections are images.
    A STAR file is a table of class averages (``class_averages.star``, a model file) or any other
    file of a 2D classification, or its folder; of a folder of ``select classes``, the classes
    that were kept.

    Parameters
    ----------
    path
        The file.
    parameters
        Of the picker: what they say of contrast, pixel size, views and symmetry.

    Returns
    -------
    TemplateImages
        A map comes back as its projections, at a pixel size that holds the low-pass.

    Raises
    ------
    FormatError
        If the file is missing, broken or of a kind that is not read.
    TableError
        If a STAR file lists no averages.
    ParameterError
        If no pixel size is known, as where the header has 0 or 1 A that nobody has filled in, or
        there is no such symmetry.
    DataError
        If a pixel is not finite, or the images are not square.
    """
    path = Path(path)
    if path.suffix.lower() in _HDF:
        raise FormatError(
            str(path),
            must="be an MRC or a STAR file",
            got=f"suffix {path.suffix}",
            remedy="Convert the stack to .mrcs",
        )
    images, found, kind = _read(path)
    size = _pixel_size(path, parameters.template_pixel_size, found)
    if not np.isfinite(images).all():
        raise DataError(str(path), must="have finite pixel values", got="NaN or infinity",
                        remedy="Make the templates again")  # fmt: skip
    if images.shape[1] != images.shape[2]:
        got = f"{images.shape[2]} x {images.shape[1]} px"
        raise DataError(str(path), must="hold square images", got=got, remedy="Crop them")
    white = torch.from_numpy(images) * (1 if parameters.white_templates else -1)
    identity = _identity(images, size)
    if kind == "images":
        return TemplateImages(white, size, kind, identity)
    views = view_directions(step=parameters.projections, symmetry=parameters.symmetry)
    projections, shrunk = project_map(white, views, pixel_size=size, low_pass=parameters.low_pass)
    return TemplateImages(projections, shrunk, kind, identity)


def _identity(images: NDArray[np.float32], pixel_size: float) -> str:
    digest = hashlib.sha256(f"{images.shape} {pixel_size:.6g}".encode())
    digest.update(images.astype("<f4", copy=False).data)
    return digest.hexdigest()[:16]


def _read(path: Path) -> tuple[NDArray[np.float32], float, Literal["images", "map"]]:
    if path.suffix == ".star" or path.is_dir():
        averages, found = _listed(path)
        return np.ascontiguousarray(averages, np.float32), found, "images"
    pixels = np.ascontiguousarray(read_mrc(path, dtype=np.float32))
    pixels = pixels.reshape(-1, *pixels.shape[-2:])
    is_map = len(set(pixels.shape)) == 1 and len(pixels) > 1
    return pixels, _said(read_mrc_header(path).pixel_size), "map" if is_map else "images"


def _listed(path: Path) -> tuple[NDArray[np.float32], float]:
    """Averages that a table names itself, else those of the run that a file belongs to."""
    path = kept_averages(path) or path
    if path.suffix == ".star":
        listed = read_average_table(path)
        if listed is not None:
            return listed[0], _said(listed[1])
    return read_averages(path)


def _said(found: float) -> float:
    """Pixel size of a header; 0 where nobody has filled it in."""
    return 0.0 if found in UNSAID else found


def _pixel_size(path: Path, given: float | None, found: float) -> float:
    if given is not None:
        return given
    if not found > 0:
        raise ParameterError(
            "template_pixel_size",
            must="be known",
            got=f"none in {path} (0 or 1 A in a header says nothing)",
            remedy="Give it with --template-pixel-size",
        )
    return found
