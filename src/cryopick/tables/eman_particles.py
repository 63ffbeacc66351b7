"""Particles of EMAN2 and SPHIRE: image stacks (HDF) whose attributes hold what STAR files hold.

SPHIRE's CTF: defocus along the azimuth a is d - A / 2 sin 2 (a + t), with d and A in um and t in
degrees; its amplitude contrast is in percent. `cryopick.io.eman_hdf` says how the files lie.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cryopick.errors import TableError
from cryopick.io.eman_hdf import EmanStack
from cryopick.tables.model import Particles

__all__ = ["EmanCtf", "parse_eman_ctf", "read_eman_particles"]

_PRIOR = "rlnAnglePsiPrior"  # of helical segments
_NAMES = ("ctf", "ctf_applied", "segment_angle", "ptcl_source_image", "apix_x")
_UNSAID = (0.0, 1.0)  # pixel sizes in headers that nobody has filled in
_MICROMETRE = 1e4  # A


class EmanCtf(NamedTuple):
    """A CTF as our tables have it."""

    defocus_u: float  # A
    defocus_v: float  # A
    defocus_angle: float  # deg
    ctf_bfactor: float  # A^2
    amplitude_contrast: float  # fraction
    voltage: float  # kV
    spherical_aberration: float  # mm
    pixel_size: float  # A/px


def parse_eman_ctf(text: str) -> EmanCtf | None:
    """Read EMAN2's CTF string; None if it is of another kind.

    Parameters
    ----------
    text
        ``E`` and defocus (um), astigmatism (um), its angle (deg), B (A^2), amplitude contrast (%),
        voltage (kV), spherical aberration (mm), pixel size (A), and spectra.

    Examples
    --------
    >>> ctf = parse_eman_ctf("E1.5 0.1 25 0 10 300 2.7 1.06 0 0 0 0")
    >>> ctf.defocus_u, ctf.defocus_v, ctf.defocus_angle, ctf.amplitude_contrast
    (15500.0, 14500.0, 110.0, 0.1)
    """
    try:
        numbers = [float(word) for word in text[1:].split()[:8]]
    except ValueError:
        return None
    if not text.startswith("E") or len(numbers) < 8:
        return None
    defocus, astigmatism, angle, bfactor, contrast, voltage, aberration, pixel_size = numbers
    # the defocus is least at azimuth 45 - t, so largest at 135 - t
    largest = 135 - angle if astigmatism >= 0 else 45 - angle
    half = abs(astigmatism) / 2
    return EmanCtf(
        defocus_u=round((defocus + half) * _MICROMETRE, 4),
        defocus_v=round((defocus - half) * _MICROMETRE, 4),
        defocus_angle=largest % 180,
        ctf_bfactor=bfactor,
        amplitude_contrast=contrast / 100,
        voltage=voltage,
        spherical_aberration=aberration,
        pixel_size=pixel_size,
    )


def read_eman_particles(path: Path, *, pixel_size: float | None = None) -> Particles:
    """Read the attributes of an HDF stack as a table of particles; pixels are not read.

    ``ctf`` becomes the CTF, ``ctf_applied`` says that phases were flipped, ``ptcl_source_image``
    is the micrograph, and minus ``segment_angle`` RELION's rlnAnglePsiPrior.

    Parameters
    ----------
    path
        A ``.hdf`` file of EMAN2 or SPHIRE.
    pixel_size
        A/px, instead of what the attributes say: the CTF's, or else ``apix_x``, which SPHIRE
        leaves at 1.

    Returns
    -------
    Particles
        One row for each image, in their order; an attribute that not all images have is no column.

    Raises
    ------
    FormatError
        If the file is missing, is no such stack, or is a BDB.
    TableError
        If nobody says the pixel size.
    """
    path = Path(path)
    with EmanStack(path) as stack:
        box_size = stack.read([0]).shape[2]
        headers = [stack.attributes(number, only=_NAMES) for number in range(len(stack))]
    lenses = [parse_eman_ctf(str(h.get("ctf", ""))) for h in headers]
    known = [lens for lens in lenses if lens is not None]
    has_ctf = len(known) == len(headers)
    said = pixel_size or (known[0].pixel_size if has_ctf else float(headers[0].get("apix_x", 0)))
    if pixel_size is None and not has_ctf and said in _UNSAID:
        raise TableError(
            str(path), must="say the pixel size of its images",
            got=f"apix_x {said:g}, which means that nobody has filled it in",
            remedy="Give it with --pixel-size",
        )  # fmt: skip
    rows = pd.DataFrame({"image": str(path), "image_index": np.arange(len(headers))})
    if all("ptcl_source_image" in h for h in headers):
        rows["micrograph"] = [str(h["ptcl_source_image"]) for h in headers]
    if all("segment_angle" in h for h in headers):
        rows[_PRIOR] = [-float(h["segment_angle"]) for h in headers]
    optics, rows["optics_group"] = _optics(headers, known if has_ctf else [], said, box_size)
    if has_ctf:
        for name in EmanCtf._fields[:4]:
            rows[name] = [float(getattr(lens, name)) for lens in known]
    return Particles(rows=rows, optics=optics, source=path)


def _optics(
    headers: list[dict[str, Any]], lenses: list[EmanCtf], pixel_size: float, box_size: int
) -> tuple[pd.DataFrame, pd.Series]:
    """Make a group of each lens, and tell the group of each image."""
    table = pd.DataFrame(
        {"is_phase_flipped": [int(bool(h.get("ctf_applied", 0))) for h in headers]}
    )
    for name in EmanCtf._fields[4:7] if lenses else ():
        table[name] = [float(getattr(lens, name)) for lens in lenses]
    numbers = table.groupby(list(table.columns), sort=False).ngroup() + 1
    optics = table.drop_duplicates().reset_index(drop=True)
    optics.insert(0, "optics_group", np.arange(1, len(optics) + 1))
    optics.insert(0, "optics_group_name", [f"opticsGroup{n}" for n in optics["optics_group"]])
    return optics.assign(pixel_size=pixel_size, box_size=box_size, image_dimensions=2), numbers
