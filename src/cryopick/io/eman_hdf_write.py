"""Write image stacks that EMAN2 and SPHIRE open; `cryopick.io.eman_hdf` says how they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BufferedRandom
from pathlib import Path
from typing import IO, Any, Final, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from cryopick.checks import require_shape
from cryopick.errors import ShapeError
from cryopick.io.atomic import writing
from cryopick.io.eman_hdf_attributes import PREFIX, EmanValue, is_long_list, write_attribute
from cryopick.io.eman_hdf_lists import (
    CHECK,
    LONG_LISTS,
    list_path,
    remove_lists,
    write_lists,
)

__all__ = ["write_eman_stack"]

_FLOAT: Final = 7  # EMAN2's number for single precision


def write_eman_stack(
    path: Path,
    images: NDArray[np.floating[Any]],
    *,
    pixel_size: float,
    attributes: Sequence[Mapping[str, EmanValue]] | None = None,
    stack_attributes: Mapping[str, EmanValue] | None = None,
) -> list[Path]:
    """Write a stack with attributes, whole or not at all.

    Attributes that describe the pixels (nx, apix_x, minimum, mean, stored_renderbits, ...) are
    worked out here, so that those read from another stack can be handed on. Lists of more than
    16,000 entries do not fit into HDF5's attributes and go to a JSON file beside the stack
    (`cryopick.io.eman_hdf_lists`); EMAN2 does not see those.

    Parameters
    ----------
    path
        Where to, ``.hdf``.
    images
        (n, y, x), stored as float32; n at least 1.
    pixel_size
        A/px.
    attributes
        Of each image, by name without ``EMAN.``: for example ``members``, a list of the numbers
        of its particles, from 0, and ``n_objects``. `EmanValue` says which types there are.
    stack_attributes
        Of the whole stack.

    Returns
    -------
    list of Path
        The stack, and the long lists where there are any.

    Raises
    ------
    ShapeError
        If the images have other axes, or not each has its attributes.
    ParameterError
        If EMAN2 has no type for an attribute.
    OutputError
        If a file cannot be written.
    """
    path = Path(path)
    require_shape(images, "n y x", name="images")
    headers = _one_for_each(attributes, len(images))
    long = {n: {k: v for k, v in h.items() if is_long_list(v)} for n, h in enumerate(headers)}
    long = {n: lists for n, lists in long.items() if lists}
    whole = {k: v for k, v in (stack_attributes or {}).items() if k not in ("imageid_max", CHECK)}
    files = [path]
    if long:
        whole[CHECK] = write_lists(path, long)
        files.append(list_path(path))
    with writing(path, "w+b") as file:
        keeper = _ErrorKeeper(file)
        _write(keeper, images, pixel_size, headers, whole)
        if keeper.error is not None:
            raise keeper.error
    if not long:
        remove_lists(path)
    return files


def _one_for_each(
    attributes: Sequence[Mapping[str, EmanValue]] | None, n_images: int
) -> list[dict[str, EmanValue]]:
    headers = [_handed_on(a) for a in attributes or ({},) * n_images]
    if len(headers) != n_images or not headers:
        raise ShapeError(
            "attributes",
            must="be those of one image or more, one set for each",
            got=f"{len(headers)} for {n_images} images",
            remedy="Give one for each image",
        )
    return headers


class _ErrorKeeper:
    """A file for HDF5, which cannot end in order when writing fails: the error waits here."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None
        self.seek, self.tell, self.read = file.seek, file.tell, file.read
        self.readinto = cast(BufferedRandom, file).readinto

    def write(self, data: bytes | memoryview) -> int:
        """Write unless a write has failed."""
        if self.error is None:
            try:
                return self._file.write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes

    def truncate(self, size: int) -> int:
        """Set the length unless a write has failed."""
        if self.error is None:
            try:
                return self._file.truncate(size)
            except OSError as error:
                self.error = error
        return size

    def flush(self) -> None:
        """Leave it to the end, where an error can be told."""


def _write(
    target: _ErrorKeeper,
    images: NDArray[np.floating[Any]],
    pixel_size: float,
    headers: Sequence[Mapping[str, EmanValue]],
    whole: Mapping[str, EmanValue],
) -> None:
    with h5py.File(target, "w", libver="earliest") as file:  # EMAN2 reads the oldest layout
        groups = file.create_group("MDF/images")
        write_attribute(groups, "imageid_max", len(images) - 1)
        for name, value in whole.items():
            write_attribute(groups, name, value)
        for number, (image, header) in enumerate(zip(images, headers, strict=True)):
            group = groups.create_group(str(number))
            pixels = np.ascontiguousarray(image, "<f4")
            group.create_dataset("image", data=pixels)
            for name, value in {**header, **_of_pixels(pixels, pixel_size)}.items():
                if not is_long_list(value):
                    write_attribute(group, name, value, prefix=PREFIX)
            names = ",".join(name for name, value in header.items() if is_long_list(value))
            if names:
                write_attribute(group, LONG_LISTS, names, prefix=PREFIX)


def _of_pixels(image: NDArray[np.float32], pixel_size: float) -> dict[str, EmanValue]:
    """Describe the pixels of an image as EMAN2 does."""
    values = image.astype(np.float64)
    lit = values[values != 0]
    return {
        "nx": image.shape[1],
        "ny": image.shape[0],
        "nz": 1,
        "datatype": _FLOAT,
        "is_complex": 0,
        "is_complex_x": 0,
        "is_complex_ri": 1,
        "apix_x": float(pixel_size),
        "apix_y": float(pixel_size),
        "apix_z": float(pixel_size),
        "minimum": float(values.min()),
        "maximum": float(values.max()),
        "mean": float(values.mean()),
        "sigma": float(values.std()),
        "square_sum": float((values**2).sum()),
        "mean_nonzero": float(lit.mean()) if lit.size else 0.0,
        "sigma_nonzero": float(lit.std()) if lit.size else 0.0,
    }


def _handed_on(attributes: Mapping[str, EmanValue]) -> dict[str, EmanValue]:
    """Leave out what tells how the pixels lay in another file."""
    return {
        name: value
        for name, value in attributes.items()
        if not name.startswith("stored_") and name not in (LONG_LISTS, "changecount")
    }
