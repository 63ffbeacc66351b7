"""What a result was made with: the versions of cryopick, Python and the libraries that compute."""

from __future__ import annotations

import functools
import platform
from importlib.metadata import PackageNotFoundError, version

from cryopick import __version__

__all__ = ["known_versions"]

_LIBRARIES = ("torch", "numpy", "scipy", "pandas", "mrcfile")


def known_versions() -> dict[str, str]:
    """Name the version of each; a library that is not installed is left out."""
    return dict(_found())


@functools.cache
def _found() -> dict[str, str]:
    found = {"cryopick": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
