"""What a session is asked to do, and what it remembers of itself from start to start."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryopick.errors import ProjectError
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.atomic import write_json
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.session_layout import SETTINGS, read_settings, session_folder
from cryopick.pipeline.session_parameters import SessionParameters

__all__ = ["KeptSettings", "SessionRequest", "read_kept", "write_settings"]


@dataclass(frozen=True, kw_only=True)
class SessionRequest:
    """What a session is asked to do."""

    inputs: tuple[str, ...]
    parameters: RunParameters
    session: SessionParameters
    compute: ComputeParameters
    pixel_size: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "inputs": list(self.inputs),
            "parameters": self.parameters.to_dict(),
            "session": self.session.to_dict(),
            "compute": self.compute.to_dict(),
            "pixel_size": self.pixel_size,
        }


@dataclass(kw_only=True)
class KeptSettings:
    """What a session remembers of itself, beside what it was asked."""

    subset: int = 0  # micrographs that the picker learns from; grown where they gave no good class
    is_live_over: bool = False
    added: list[str] = field(default_factory=list)


def write_settings(folder: Path, request: SessionRequest, kept: KeptSettings) -> None:
    """Write what a session is asked, and what it remembers.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    values = {**request.to_dict(), "kept": vars(kept)}
    write_json(session_folder(folder) / SETTINGS, values)


def read_kept(folder: Path, request: SessionRequest) -> KeptSettings:
    """Take up what a session remembered, as far as it is asked the same.

    Parameters
    ----------
    folder
        Of the project.
    request
        What it is asked now.
    """
    kept = KeptSettings(subset=request.parameters.subset)
    try:
        before = read_settings(folder)
    except ProjectError:
        return kept
    values = before.get("kept") or {}
    kept.added = [str(name) for name in values.get("added", ())]
    if before.get("parameters") == request.parameters.to_dict():
        kept.subset = max(kept.subset, int(values.get("subset", 0)))
        kept.is_live_over = bool(values.get("is_live_over"))
    return kept
