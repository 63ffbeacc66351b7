"""Micrographs as networks see them and what these answer, on disk: memory does not grow with them.

A file holds a head of JSON and one field, its pixels as float32 and which of them are valid, or
one answer. It is mapped into memory, where the system keeps as much as there is room for. What
was prepared or answered before is not done again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryopick.errors import FormatError
from cryopick.io.atomic import writing
from cryopick.picking.consensus_network import ConsensusField, answer_of
from cryopick.picking.network_pick import PickModel
from cryopick.pipeline.consensus_prepare import PreparedCandidates
from cryopick.pipeline.network_picker import model_identity

__all__ = ["SPOOL", "SpooledAnswers", "is_spooled", "open_spooled", "spool_field"]

SPOOL = "prepared"
_HEAD = 4096  # bytes


def spool_field(path: Path, prepared: PreparedCandidates, *, identity: str) -> None:
    """Write a field; its candidates are not written.

    Parameters
    ----------
    path
        Of the file.
    prepared
        The field.
    identity
        Names all that it was made from: its origin, when it is opened.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    image = prepared.seen.image.to(torch.float32).contiguous()
    head = {
        "identity": identity,
        "shape": list(image.shape),
        "scale": prepared.scale.tolist(),
        "offset": prepared.offset.tolist(),
        "name": prepared.seen.name,
    }
    text = json.dumps(head).encode()
    assert len(text) <= _HEAD
    with writing(path) as handle:
        handle.write(text.ljust(_HEAD))
        handle.write(image.numpy().tobytes())
        handle.write(prepared.seen.is_valid.to(torch.uint8).numpy().tobytes())


def is_spooled(path: Path, *, identity: str) -> bool:
    """Whether a whole field that was made from the same is there."""
    head = _read_head(path)
    return head is not None and head["identity"] == identity


def open_spooled(path: Path, *, positions: np.ndarray) -> PreparedCandidates:
    """Map a field into memory.

    Parameters
    ----------
    path
        Of the file.
    positions
        (n, 2) x and y of its candidates, px of the micrograph.

    Raises
    ------
    FormatError
        If the file is not whole.
    """
    head = _read_head(path)
    if head is None:
        raise FormatError(
            str(path), must="hold a prepared field", got="no whole file", remedy="Start again"
        )
    height, width = head["shape"]
    count = height * width
    data = torch.from_file(str(path), shared=False, size=_HEAD + 5 * count, dtype=torch.uint8)
    image = data[_HEAD : _HEAD + 4 * count].view(torch.float32).reshape(height, width)
    is_valid = data[_HEAD + 4 * count :].view(torch.bool).reshape(height, width)
    scale, offset = np.array(head["scale"]), np.array(head["offset"])
    bare = ConsensusField(
        image, is_valid, np.empty((0, 2)), name=head["name"], origin=head["identity"]
    )
    prepared = PreparedCandidates(bare, scale, offset)
    return prepared._replace(seen=bare._replace(candidates=prepared.in_image(positions)))


class SpooledAnswers:
    """Answers of models about fields, each asked for once and kept in a folder.

    Parameters
    ----------
    folder
        That keeps them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._models: dict[int, tuple[PickModel, str]] = {}

    def __call__(self, models: Sequence[PickModel], field: ConsensusField) -> Tensor:
        """Ask several models about a field.

        Parameters
        ----------
        models
            One or more.
        field
            To look at; its origin must not be empty.

        Returns
        -------
        Tensor
            As `answer_of` gives it, mapped from a file.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        named = [field.origin, str(models[0].network.prior.device), *map(self._identity, models)]
        identity = hashlib.sha256(" ".join(named).encode()).hexdigest()[:24]
        path = self._folder / "answers" / identity[:2] / f"{identity}.answer"
        head = _read_json(path)
        if head is None or not _is_answer(path, head):
            found = answer_of(models, field).to(torch.float32).contiguous()
            head = {"shape": list(found.shape)}
            with writing(path) as handle:
                handle.write(json.dumps(head).encode().ljust(_HEAD))
                handle.write(found.numpy().tobytes())
        shape = head["shape"]
        size = _HEAD + 4 * math.prod(shape)
        data = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
        return data[_HEAD:].view(torch.float32).reshape(shape)

    def _identity(self, model: PickModel) -> str:
        known = self._models.get(id(model))
        if known is None or known[0] is not model:
            known = self._models[id(model)] = (model, model_identity(model))
        return known[1]


def _is_answer(path: Path, head: dict[str, Any]) -> bool:
    try:
        return path.stat().st_size == _HEAD + 4 * int(math.prod(head["shape"]))
    except (OSError, KeyError, TypeError):
        return False


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as handle:
            head = json.loads(handle.read(_HEAD))
    except (OSError, ValueError):
        return None
    return head if isinstance(head, dict) else None


def _read_head(path: Path) -> dict[str, Any] | None:
    """Read the head of a whole field."""
    head = _read_json(path)
    try:
        height, width = (head or {})["shape"]
        whole = path.stat().st_size == _HEAD + 5 * height * width
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return head if whole else None
