"""What a result was made with: the versions of cryopick, Python and the libraries that compute."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from cryopick import __version__

__all__ = ["known_versions"]

_LIBRARIES = ("torch", "numpy", "scipy", "pandas", "mrcfile")


def known_versions() -> dict[str, str]:
    """Version of each by its name; a library that is not installed is left out."""
    found = {"cryopick": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
