"""Fields of ice, carbon and aggregates without a particle, simulated like the micrographs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cryopick.ctf.field_ctf import FieldCtf
from cryopick.ctf.field_flip import flip_field
from cryopick.picking.network_field import NetworkField, prepare_network_field
from cryopick.picking.network_training import TrainingField
from cryopick.pipeline.simulate_species import load_models
from cryopick.simulation.micrographs import SimulatedMicrograph, simulate_micrograph
from cryopick.simulation.microscope import Defocus
from cryopick.simulation.parameters import (
    MicrographSimulationParameters,
    MicroscopeParameters,
    SpecimenParameters,
)

__all__ = ["simulate_negatives"]

_SIDE = 14.0  # diameters
_FINEST = 60.0  # px to the diameter: what is finer the network does not see
_SMALLEST = 30.0  # A, of a phantom
_CARBON, _BLOBS, _AGGREGATES = 0.5, 3.0, 2.0


def simulate_negatives(
    *,
    pixel_size: float,
    diameter: float,
    ctfs: Sequence[FieldCtf],
    phase_flip: bool,
    mask: bool,
    number: int = 6,
    seed: int,
) -> list[TrainingField]:
    """Simulate fields in which there is nothing to pick, as the network sees them.

    Parameters
    ----------
    pixel_size
        A/px of the micrographs; of more than 60 px to the diameter, the simulation is coarser.
    diameter
        Of the particle, A; clumps are of particles of this size and of random shape.
    ctfs
        Of the micrographs: their lens, and the range of their defoci. If empty, 300 kV and 0.8 to
        2.5 um.
    phase_flip
        Whether phases are flipped, as those of the micrographs.
    mask
        Whether to leave out ice, carbon and holes that are seen as such, as in the micrographs.
    number
        Of fields.
    seed
        Of all random choices.

    Returns
    -------
    list of TrainingField
        Without a marked particle. Of the one particle that a field with clumps holds besides,
        nothing is said.
    """
    pixel = max(pixel_size, diameter / _FINEST)
    side = 2 * math.ceil(_SIDE * diameter / pixel / 2)
    parameters = MicrographSimulationParameters(
        width=side,
        height=side,
        pixel_size=pixel,
        particles=1,
        carbon_fraction=_CARBON,
        ice_blobs=_BLOBS,
        aggregates=_AGGREGATES,
        seed=seed,
    )
    microscope = _microscope(ctfs)
    fields = []
    for index in range(number):
        made = _simulate(index, diameter, microscope, parameters)
        image = made.image
        if phase_flip:
            image = flip_field(image, _field_ctf(microscope, made.defocus), pixel_size=pixel)
        seen = prepare_network_field(
            image,
            pixel_size=pixel,
            diameter=diameter,
            edge_distance=0.0,
            white_particles=False,
            mask=mask,
        )
        fields.append(_as_empty(seen, made.particles))
    return fields


def _simulate(
    index: int,
    diameter: float,
    microscope: MicroscopeParameters,
    parameters: MicrographSimulationParameters,
) -> SimulatedMicrograph:
    """Simulate a field; each has clumps of particles of another shape."""
    specimen = SpecimenParameters(
        phantoms=f"random{index + 1}",
        phantom_diameter=max(diameter, _SMALLEST),
        phantom_seed=parameters.seed,
    )
    return simulate_micrograph(
        load_models(specimen),
        index=index,
        specimen=specimen,
        microscope=microscope,
        parameters=parameters,
    )


def _as_empty(seen: NetworkField, particles: pd.DataFrame) -> TrainingField:
    """Say that there is nothing, but for particles that stand alone."""
    working = seen.search.field
    alone = particles[particles["is_junk"] == 0][["y", "x"]].to_numpy(np.float64)
    nothing = np.empty((0, 2))
    return TrainingField(
        image=seen.image,
        is_valid=seen.search.is_valid,
        is_known=seen.search.is_valid,
        particles=nothing,
        rejected=nothing,
        ignored=(alone - np.array(working.offset)) / np.array(working.scale),
    )


def _microscope(ctfs: Sequence[FieldCtf]) -> MicroscopeParameters:
    """Make the lens of the micrographs, and the range of their defoci."""
    if not ctfs:
        return MicroscopeParameters()
    defoci = [max(0.0, (c.defocus_u + c.defocus_v) / 2) for c in ctfs]
    first = ctfs[0]
    return MicroscopeParameters(
        voltage=first.voltage,
        spherical_aberration=first.spherical_aberration,
        amplitude_contrast=first.amplitude_contrast,
        phase_shift=first.phase_shift,
        min_defocus=min(defoci),
        max_defocus=max(defoci),
    )


def _field_ctf(microscope: MicroscopeParameters, defocus: Defocus) -> FieldCtf:
    return FieldCtf(
        defocus_u=defocus.defocus_u,
        defocus_v=defocus.defocus_v,
        defocus_angle=defocus.defocus_angle,
        voltage=microscope.voltage,
        spherical_aberration=microscope.spherical_aberration,
        amplitude_contrast=microscope.amplitude_contrast,
        phase_shift=microscope.phase_shift,
    )
