"""The network picker of a picking job."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cryopick.ctf.field_ctf import FieldCtf
from cryopick.picking.field_picks import FieldPicks
from cryopick.picking.network import PickNetwork
from cryopick.picking.network_parameters import NetworkParameters
from cryopick.picking.network_pick import PickModel, network_bytes, pick_network
from cryopick.pipeline.pick_models import read_model
from cryopick.tables.pick_scores import PROBABILITY, PickScore

__all__ = ["NetworkPicker", "make_network_picker", "model_identity"]

_OTHER_SIZE = 1.1  # times the diameter that a model was trained for, from which it is another


@dataclass(frozen=True, kw_only=True)
class NetworkPicker:
    """A trained network."""

    parameters: NetworkParameters
    model: PickModel
    trained_diameter: float | None = None  # A, that a model of one particle was trained with
    trained_white: bool | None = None  # contrast of the particles that it was trained with

    @property
    def name(self) -> str:
        """The command."""
        return "pick network"

    @property
    def score(self) -> PickScore:
        """A probability."""
        return PROBABILITY

    @property
    def largest_diameter(self) -> float:
        """Of a particle, A."""
        return self.parameters.diameter

    @property
    def is_other_size(self) -> bool:
        """Whether the model was trained with another diameter: it knows another scale then."""
        if self.trained_diameter is None:
            return False
        ratio = self.parameters.diameter / self.trained_diameter
        return max(ratio, 1 / ratio) > _OTHER_SIZE

    @property
    def is_other_sign(self) -> bool:
        """Whether the model was trained on particles of the other contrast."""
        white = self.parameters.white_particles
        return self.trained_white is not None and self.trained_white != white

    def __getstate__(self) -> dict[str, Any]:
        """Send the weights to workers as plain arrays."""
        values = {k: v for k, v in self.__dict__.items() if k != "model"}
        of_model = {k: v for k, v in self.model.__dict__.items() if k != "network"}
        return {**values, "model": (of_model, self.model.network.arrays())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make the network again."""
        of_model, arrays = state["model"]
        network = PickNetwork()
        network.load_arrays(arrays)
        model = PickModel(network=network.eval(), **of_model)
        self.__dict__.update({**state, "model": model})

    def record(self) -> dict[str, Any]:
        """All values that change the picks, and which weights they are."""
        values = {k: v for k, v in self.parameters.to_dict().items() if k != "tile"}
        return {**values, "model": model_identity(self.model)}

    def pick(self, micrograph: Tensor, *, pixel_size: float, ctf: FieldCtf | None) -> FieldPicks:
        """Pick one field; the network goes to its device."""
        self.model.network.to(micrograph.device)
        return pick_network(
            micrograph, pixel_size=pixel_size, parameters=self.parameters, model=self.model
        )

    def field_bytes(self, side: int, pixel_size: float) -> int:
        """So much a pixel, a working pixel and a pixel of the tile."""
        return network_bytes(side, pixel_size, parameters=self.parameters)

    @property
    def extras(self) -> tuple[str, ...]:
        """None."""
        return ()

    def write_extras(self, folder: Path) -> None:
        """Nothing."""


def make_network_picker(path: Path | None, *, parameters: NetworkParameters) -> NetworkPicker:
    """Read a model and make it a picker.

    Parameters
    ----------
    path
        A model that `pick train` wrote; the general model if not given.
    parameters
        Of the picker.

    Raises
    ------
    FormatError
        If the file is missing, damaged, or of something else.
    """
    model, notes = read_model(path)
    diameter, white = notes.get("diameter"), notes.get("white_particles")
    return NetworkPicker(
        parameters=parameters,
        model=model,
        trained_diameter=float(diameter) if isinstance(diameter, int | float) else None,
        trained_white=None if white is None else bool(white),
    )


def model_identity(model: PickModel) -> str:
    """Name a model by its numbers, so that other weights are noticed.

    Parameters
    ----------
    model
        Its weights and calibration count, and not where it came from.
    """
    digest = hashlib.sha256()
    for name, array in sorted(model.network.arrays().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array, "<f4").data)
    calibration = np.array([model.slope, model.offset, model.threshold, model.prior], "<f8")
    digest.update(calibration.data)
    return digest.hexdigest()[:16]
