"""Image stacks of EMAN2 and SPHIRE: HDF5 files of their own layout.

    /MDF/images          attribute imageid_max: number of images less one
    /MDF/images/N        attributes "EMAN.name", or without the prefix
    /MDF/images/N/image  (y, x), or (z, y, x) with one plane; row 0 is the first of MRC

Compressed images hold whole numbers v of ``stored_renderbits`` bits that stand for
v / (2^bits - 1) (max - min) + min; without that attribute, whole numbers are densities.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError
from cryopick.io.eman_hdf_attributes import read_attributes
from cryopick.io.eman_hdf_lists import CHECK, LONG_LISTS, read_lists

__all__ = ["EmanStack", "is_eman_database", "read_eman_stack", "require_square"]

_IMAGES = "MDF/images"
_REMEDY = "Check the file"
_CONVERT = "Write it anew with EMAN2's e2proc2d.py IN OUT.hdf"


class EmanStack:
    """An open stack, of which images and attributes are read as they are asked for.

    Use as a context manager.

    Parameters
    ----------
    path
        A ``.hdf`` file of EMAN2 or SPHIRE.
    n_images
        Number of its images, if it has been opened before; they are counted if not given.

    Raises
    ------
    FormatError
        If the file is missing, is no such stack, or is one of EMAN2's databases (``bdb:``).
    """

    def __init__(self, path: Path, *, n_images: int | None = None) -> None:
        self.path = Path(path)
        if is_eman_database(self.path):
            raise _refused(
                self.path, "be an HDF stack of EMAN2", "a BDB, which EMAN2 itself has given up",
                "Convert it with e2proc2d.py IN OUT.hdf of EMAN2 before May 2022",
            )  # fmt: skip
        try:
            self._file = h5py.File(path, "r")
        except FileNotFoundError as error:
            raise _refused(self.path, "be a readable file", "no such file") from error
        except OSError as error:
            raise _broken(self.path, error) from error
        try:
            self._groups = self._find_groups()
            self._count = self._count_images() if n_images is None else n_images
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self._count

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def pixel_size(self) -> float:
        """A/px of the first image, ``apix_x``; 0 where it is missing. SPHIRE often writes 1."""
        return float(self.attributes(0).get("apix_x", 0.0))

    @property
    def stack_attributes(self) -> dict[str, Any]:
        """Attributes of the whole stack, ``imageid_max`` among them."""
        return read_attributes(self._groups)

    def attributes(self, number: int, *, only: Collection[str] = ()) -> dict[str, Any]:
        """Read the attributes of image `number`, from 0, as `read_attributes` gives them.

        Lists too long for HDF5 are not among them: `long_lists` reads those of all images.
        """
        try:
            return read_attributes(self._groups[str(number)], only=only)
        except (OSError, KeyError, RuntimeError) as error:
            raise _broken(self.path, error) from error

    def all_attributes(self) -> list[dict[str, Any]]:
        """Read the attributes of all images, long lists included.

        Raises
        ------
        FormatError
            If they cannot be read, or the file of long lists is missing or of another stack.
        """
        headers = [self.attributes(number) for number in range(len(self))]
        named = [header.pop(LONG_LISTS, "") for header in headers]
        if any(named):
            lists = read_lists(self.path, int(self.stack_attributes.get(CHECK, 0)))
            for number, header in enumerate(headers):
                header.update(lists.get(number, {}))
        return headers

    def read(self, numbers: Iterable[int] | None = None) -> NDArray[np.float32]:
        """Read images.

        Parameters
        ----------
        numbers
            From 0; all if not given.

        Returns
        -------
        numpy.ndarray
            (n, y, x) float32.

        Raises
        ------
        FormatError
            If images are broken, of a compression that h5py has not, or differ in size.
        """
        try:
            chosen = range(len(self)) if numbers is None else numbers
            images = [self._image(self._groups[str(int(number))]) for number in chosen]
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise _broken(self.path, error) from error
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            sizes = " and ".join(f"{x} x {y} px" for y, x in sorted(shapes)[:2])
            raise _refused(self.path, "hold images of one size", sizes)
        return np.stack(images)

    def _find_groups(self) -> h5py.Group:
        groups = self._file.get(_IMAGES)
        if not isinstance(groups, h5py.Group):
            raise _refused(self.path, "be an HDF stack of EMAN2", f"no group /{_IMAGES}")
        return groups

    def _count_images(self) -> int:
        """Count images; those that ``imageid_max`` promises beyond the last one never came."""
        groups = self._groups
        named = groups.attrs.get("imageid_max")
        most = len(groups) if named is None else int(np.ravel(named)[0]) + 1
        names = set(groups)
        most = min(most, max((int(n) + 1 for n in names if n.isdigit()), default=0))
        links = groups.id.links  # asks no object for its header, of which there may be many
        there = [str(n) in names and links.exists(b"%d/image" % n) for n in range(most)]
        while there and not there[-1]:
            there.pop()
        if not there:
            raise _refused(self.path, "hold images", "none")
        if not all(there):
            got = f"no image {there.index(False)}, but {sum(there)} others"
            raise _refused(self.path, "hold images without a gap", got, _CONVERT)
        return len(there)

    def _image(self, group: h5py.Group) -> NDArray[np.float32]:
        pixels = group["image"]
        self._require_filters(pixels)
        values = np.asarray(pixels[()])
        if values.ndim == 3 and len(values) == 1:
            values = values[0]
        if values.ndim != 2:
            raise _refused(self.path, "hold images", f"an array of shape {values.shape}")
        bits = int(_number(group, "stored_renderbits", 0))
        if values.dtype.kind in "iu" and bits > 0:
            low = _number(group, "stored_rendermin", 0.0)
            high = _number(group, "stored_rendermax", 1.0)
            values = values.astype(np.float64) / (2**bits - 1) * (high - low) + low
        image: NDArray[np.float32] = values.astype(np.float32)
        return image

    def _require_filters(self, pixels: h5py.Dataset) -> None:
        layout = pixels.id.get_create_plist()
        for place in range(layout.get_nfilters()):
            code = layout.get_filter(place)[0]
            if not h5py.h5z.filter_avail(code):
                must, got = "be compressed in a way that h5py knows", f"filter {code}"
                raise _refused(self.path, must, got, _CONVERT)


def read_eman_stack(path: Path) -> tuple[NDArray[np.float32], float]:
    """Read all images of a stack.

    Parameters
    ----------
    path
        A ``.hdf`` file of EMAN2 or SPHIRE.

    Returns
    -------
    tuple of numpy.ndarray and float
        (n, y, x) float32, and A/px of the first image: ``apix_x``; 0 where it is missing.

    Raises
    ------
    FormatError
        If the file is missing, is no such stack, or its images differ in size.
    """
    with EmanStack(path) as stack:
        return stack.read(), stack.pixel_size


def is_eman_database(path: Path) -> bool:
    """Tell by its name whether this is one of EMAN2's databases, ``bdb:folder#name``.

    Examples
    --------
    >>> is_eman_database(Path("bdb:Class2D#stack")), is_eman_database(Path("stack.hdf"))
    (True, False)
    """
    return str(path).startswith("bdb:") or Path(path).suffix == ".bdb"


def require_square(images: NDArray[Any], path: Path) -> None:
    """Refuse images that cannot be turned into one another.

    Parameters
    ----------
    images
        (n, y, x).
    path
        Where they are from.

    Raises
    ------
    FormatError
        If x and y differ.
    """
    y, x = images.shape[-2:]
    if y != x:
        remedy = "Crop them with EMAN2's e2proc2d.py --clip, or extract them again"
        raise _refused(Path(path), "hold square images", f"{x} x {y} px", remedy)


def _number(group: h5py.Group, name: str, default: float) -> float:
    for key in (f"EMAN.{name}", name):
        if key in group.attrs:
            return float(np.ravel(group.attrs[key])[0])
    return default


def _broken(path: Path, error: Exception) -> FormatError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return _refused(path, "be a whole HDF stack of EMAN2", reason)


def _refused(path: Path, must: str, got: str, remedy: str = _REMEDY) -> FormatError:
    return FormatError(str(path), must=must, got=got, remedy=remedy)
