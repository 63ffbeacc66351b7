"""Make particles to simulate from atomic models and from density maps."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cryopick.checks import require_above, require_shape
from cryopick.errors import DataError
from cryopick.simulation.phantoms import PROTEIN_CONTRAST
from cryopick.simulation.projection import Model

__all__ = ["model_from_atoms", "model_from_map"]

_VOLUME_PER_DALTON = 1.23  # A^3, protein at 1.35 g/ml
_WITH_HYDROGENS = 1.07  # mass of protein over that of its heavier atoms
_NUCLEIC_FACTOR = 1.5  # contrast of RNA per mass over protein's: it displaces less water
_ATOM_BLUR = 0.7  # A rms
_MAP_FLOOR = 0.15  # of the map's high level: voxels below are solvent
_MAP_LEVEL = 99.9  # percentile that counts as the map's high level


def model_from_atoms(
    positions: NDArray[np.float64],
    masses: NDArray[np.float64],
    is_nucleic: NDArray[np.bool_],
    *,
    name: str,
) -> Model:
    """Give each atom the contrast of its mass of protein or nucleic acid in ice.

    Parameters
    ----------
    positions
        (n, 3): x, y, z in A.
    masses
        (n,) Da, hydrogens left out.
    is_nucleic
        (n,) whether the atom is of DNA or RNA.
    name
        What to call the particle.

    Returns
    -------
    Model
        Centred on its centre of mass, without symmetry.
    """
    require_shape(positions, "n 3", name="positions")
    contrast = PROTEIN_CONTRAST * _VOLUME_PER_DALTON * _WITH_HYDROGENS
    weights = masses * contrast * np.where(is_nucleic, _NUCLEIC_FACTOR, 1.0)
    return _centred(positions, weights, name=name, blur=_ATOM_BLUR)


def model_from_map(density: NDArray[np.float32], *, pixel_size: float, name: str) -> Model:
    """Make each voxel of a map that is above the solvent a point.

    Parameters
    ----------
    density
        (z, y, x), protein positive, in any unit.
    pixel_size
        A/px of the map, above 0.
    name
        What to call the particle.

    Returns
    -------
    Model
        Centred on its centre of mass; scaled so that where the map is half its highest level
        or more, the mean contrast is that of protein in ice.

    Raises
    ------
    DataError
        If nothing in the map is above its solvent.
    ParameterError
        If `pixel_size` is not above 0.
    """
    require_shape(density, "z y x", name="density")
    require_above(pixel_size, 0, name="pixel_size", unit="A/px")
    positive = density[density > 0]
    high = float(np.percentile(positive, _MAP_LEVEL)) if len(positive) else 0.0
    if not high > 0:
        raise DataError(
            "the map",
            must="have positive density",
            got="none",
            remedy="Check that protein is positive",
        )
    chosen = np.argwhere(density > _MAP_FLOOR * high)
    values = density[tuple(chosen.T)].astype(np.float64)
    scale = PROTEIN_CONTRAST * pixel_size**3 / float(values[values > high / 2].mean())
    positions = chosen[:, ::-1] * pixel_size
    return _centred(positions.astype(np.float64), values * scale, name=name, blur=0.4 * pixel_size)


def _centred(
    positions: NDArray[np.float64], weights: NDArray[np.float64], *, name: str, blur: float
) -> Model:
    centred = positions - np.average(positions, axis=0, weights=weights)
    radius = float(np.percentile(np.linalg.norm(centred, axis=1), 99.9))
    return Model(
        name=name,
        positions=torch.from_numpy(centred.astype(np.float32)),
        weights=torch.from_numpy(weights.astype(np.float32)),
        blur=blur,
        symmetry="C1",
        diameter=2 * radius,
    )
