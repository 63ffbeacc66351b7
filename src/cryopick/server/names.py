"""From an id in a request to a folder of the project. No path of a client is ever opened."""

from __future__ import annotations

from pathlib import Path

from cryopick.pipeline.project_places import is_plain_name, list_results
from cryopick.server.answers import Missing, WrongCall
from cryopick.server.served import Served

__all__ = ["all_folders", "find_folder", "require_name"]


def require_name(name: str) -> str:
    """Refuse what is no plain name for a folder.

    Raises
    ------
    WrongCall
        If it is none.
    """
    if not is_plain_name(name):
        raise WrongCall("A name must have 1 to 64 letters, digits, _ and -, and not begin with -.")
    return name


def find_folder(served: Served, identity: str) -> Path:
    """Find the folder that an id stands for.

    Raises
    ------
    Missing
        If there is none.
    """
    folder = all_folders(served).get(identity)
    if folder is None:
        raise Missing("There is nothing of this id in the project.")
    return folder


def all_folders(served: Served) -> dict[str, Path]:
    """Give all folders of results by their id, in the order in which they were made."""
    return list_results(served.folder)
