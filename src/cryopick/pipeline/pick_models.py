"""Models of the network picker as files: the one that is shipped, and those that users train."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.errors import FormatError
from cryopick.io.weights import Weights, read_weights, write_weights
from cryopick.picking.network import PARTICLE, PickNetwork
from cryopick.picking.network_pick import PickModel

__all__ = ["KIND", "MODEL", "read_model", "write_model"]

KIND = "particle picker"
MODEL = "model.npz"  # in the folder of a training
_VERSION = 1
_SHIPPED = "general_picker.npz"
_REMEDY = "Leave --model out for the general model, or train it again with pick train"


def read_model(path: Path | None = None) -> tuple[PickModel, dict[str, Any]]:
    """Read a model; a file holds numbers only and cannot run code.

    Parameters
    ----------
    path
        A file of `write_model`, or the folder of a training with it; the general model that is
        shipped if not given.

    Returns
    -------
    tuple of PickModel and dict
        The model, and notes on how it was made.

    Raises
    ------
    FormatError
        If the file is missing, damaged, or of something else.
    """
    if path is not None:
        path = path / MODEL if path.is_dir() else path
        return _from_weights(read_weights(path, kind=KIND, versions=(_VERSION,)), Path(path))
    with resources.as_file(resources.files("cryopick.picking") / _SHIPPED) as shipped:
        return _from_weights(read_weights(shipped, kind=KIND, versions=(_VERSION,)), shipped)


def write_model(path: Path, model: PickModel, notes: Mapping[str, Any]) -> None:
    """Write a model.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    arrays = {f"network.{n}": a for n, a in model.network.arrays().items()}
    arrays["calibration"] = np.array([model.slope, model.offset, model.threshold, model.prior])
    described = {"particle_px": PARTICLE, **notes}
    write_weights(path, Weights(kind=KIND, version=_VERSION, arrays=arrays, notes=described))


def _from_weights(weights: Weights, path: Path) -> tuple[PickModel, dict[str, Any]]:
    prefix = "network."
    own = {n.removeprefix(prefix): a for n, a in weights.arrays.items() if n.startswith(prefix)}
    network = PickNetwork()
    try:
        network.load_arrays(own)
        slope, offset, threshold, prior = (float(v) for v in weights.arrays["calibration"])
    except (KeyError, RuntimeError, TypeError, ValueError):
        raise FormatError(
            str(path), must="hold the weights of a picking network", got="others", remedy=_REMEDY
        ) from None
    model = PickModel(
        network=network.eval(), slope=slope, offset=offset, threshold=threshold, prior=prior
    )
    return model, dict(weights.notes)
