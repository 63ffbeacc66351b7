"""Make or read the particles that a simulation is of."""

from __future__ import annotations

import functools
from pathlib import Path

from cryopick.errors import FormatError, ParameterError
from cryopick.io.model import is_atomic_model, read_atomic_model
from cryopick.io.mrc import read_mrc, read_mrc_header
from cryopick.pipeline.job import identity_of
from cryopick.simulation.models import model_from_atoms, model_from_map
from cryopick.simulation.parameters import SpecimenParameters
from cryopick.simulation.phantoms import make_phantom
from cryopick.simulation.projection import Model

__all__ = ["load_models", "species_identity"]


def species_identity(specimen: SpecimenParameters) -> str:
    """Tell whether a model file was replaced."""
    return " ".join(identity_of(Path(name)) for name in specimen.model_files)


@functools.lru_cache(maxsize=2)
def load_models(specimen: SpecimenParameters) -> tuple[Model, ...]:
    """Make the phantoms, or read the models, once in each process.

    Raises
    ------
    FormatError
        If a file is broken or is no model.
    ParameterError
        If there is no such phantom, or two files have one name.
    """
    if not specimen.model_files:
        return tuple(
            make_phantom(n, diameter=specimen.phantom_diameter, seed=specimen.phantom_seed)
            for n in specimen.names
        )
    paths = [Path(name) for name in specimen.model_files]
    names = [path.name.partition(".")[0] for path in paths]
    if len(set(names)) < len(names):
        raise ParameterError(
            "model", must="name files of different names", got=specimen.model, remedy="Rename one"
        )
    return tuple(_read_model(path, name) for path, name in zip(paths, names, strict=True))


def _read_model(path: Path, name: str) -> Model:
    if is_atomic_model(path):
        atoms = read_atomic_model(path)
        return model_from_atoms(atoms.positions, atoms.masses, atoms.is_nucleic, name=name)
    header = read_mrc_header(path)
    if header.shape[0] < 2 or header.pixel_size <= 0:
        raise FormatError(
            str(path),
            must="be a PDB or mmCIF file, or a map with a pixel size",
            got=f"an array of {' x '.join(map(str, header.shape))} at {header.pixel_size:g} A",
            remedy="Give another --model",
        )
    density = read_mrc(path, dtype="float32")
    return model_from_map(density, pixel_size=header.pixel_size, name=name)
