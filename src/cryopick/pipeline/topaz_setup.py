"""Install Topaz into an environment of its own, beside cryopick and never in it.

Topaz (GPL-3) asks for torchvision, whose wheels bring a CUDA build of PyTorch, for three small
functions. So it is installed without its dependencies, these are installed by exact versions, and
a stub of our own stands in for torchvision where there is none.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cryopick.errors import OutputError, ProjectError
from cryopick.io.atomic import make_folder, output_errors, write_text
from cryopick.pipeline.topaz_program import TopazProgram, find_topaz, telling_line

__all__ = ["set_up_topaz"]

_TORCH = "torch==2.13.0"
_TOPAZ = "topaz-em==0.3.20"
_OTHERS = (
    "numpy==2.4.6",
    "pandas==3.1.1",
    "scipy==1.17.1",
    "scikit-learn==1.9.1",
    "pillow==13.0.0",
    "h5py==3.16.0",
    "tqdm==4.70.1",
    "future==1.0.0",
    "psutil==7.2.2",
)
_NEWEST = (3, 13)  # Python that Topaz takes
_LAUNCHER = "launch_topaz.py"

_SHELL = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
exec "$here/environment/bin/python" "$here/launch_topaz.py" "$@"
"""

_LAUNCH = '''"""Start Topaz; stand in for torchvision where it is not installed."""

import importlib
import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("torchvision") is None:
    sys.path.append(str(Path(__file__).resolve().parent / "stub"))
sys.argv[0] = "topaz"
importlib.import_module("topaz.main").main()
'''

_STUB = {
    "__init__.py": '"""The three functions of torchvision that Topaz uses."""\n\n'
    "from . import transforms\n",
    "transforms/__init__.py": "from . import functional\n",
    "transforms/functional.py": '''"""Flips and rotations of images (..., y, x)."""

import math

import torch


def hflip(image):
    """Mirror left and right."""
    return image.flip(-1)


def vflip(image):
    """Mirror top and bottom."""
    return image.flip(-2)


def rotate(image, angle):
    """Turn counter-clockwise about the centre by degrees: nearest pixels, 0 outside."""
    height, width = image.shape[-2:]
    y = torch.arange(height, device=image.device) - (height - 1) / 2
    x = torch.arange(width, device=image.device) - (width - 1) / 2
    y, x = torch.meshgrid(y, x, indexing="ij")
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    columns = torch.round(c * x - s * y + (width - 1) / 2).long()
    rows = torch.round(s * x + c * y + (height - 1) / 2).long()
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    turned = image[..., rows.clamp(0, height - 1), columns.clamp(0, width - 1)]
    return turned * inside.to(image.dtype)
''',
}


def set_up_topaz(
    folder: Path,
    *,
    python: str = "",
    torch_index: str = "",
    report: Callable[[str], None] | None = None,
) -> TopazProgram:
    """Make a virtual environment with Topaz and a program ``topaz`` that starts it.

    This is the only work of cryopick that uses the network, through pip. Called again, it mends
    what is missing.

    Parameters
    ----------
    folder
        A new folder, or one of an earlier call.
    python
        Python that the environment is made of; the one that runs cryopick if empty.
    torch_index
        Address of the package index that PyTorch comes from; pip's own if empty.
    report
        Called with a sentence before each step.

    Returns
    -------
    TopazProgram
        What was installed, started once.

    Raises
    ------
    OutputError
        If the folder holds something else or cannot be written.
    ProjectError
        If Python is too new for Topaz, or a step fails.
    """
    folder = Path(folder).absolute()
    say = report or (lambda _: None)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _LAUNCHER).exists():
        raise OutputError(
            str(folder),
            must="be empty or hold an environment that this command made",
            got="other files",
            remedy="Choose another --out",
        )
    make_folder(folder)
    _write_program(folder)
    log = folder / "setup.log"
    python = python or sys.executable
    _require_version(python, log)
    say("Making the environment")
    _step([python, "-m", "venv", str(folder / "environment")], log)
    pip = [str(folder / "environment" / "bin" / "python"), "-I", "-m", "pip", "install"]
    say(f"Installing PyTorch ({_TORCH}): with CUDA some GB, without 200 MB")
    _step([*pip, _TORCH, *(["--index-url", torch_index] if torch_index else [])], log)
    say("Installing what Topaz needs")
    _step([*pip, _TORCH, *_OTHERS], log)
    say(f"Installing Topaz ({_TOPAZ})")
    _step([*pip, "--no-deps", _TOPAZ], log)
    return find_topaz(str(folder / "topaz"))


def _write_program(folder: Path) -> None:
    write_text(folder / _LAUNCHER, _LAUNCH)
    for name, text in _STUB.items():
        write_text(folder / "stub" / "torchvision" / name, text)
    write_text(folder / "topaz", _SHELL)
    (folder / "topaz").chmod(0o755)


def _require_version(python: str, log: Path) -> None:
    said = _step([python, "-c", "import sys; print(*sys.version_info[:2])"], log)
    version = tuple(int(word) for word in said.split()[-2:])
    if version > _NEWEST:
        raise ProjectError(
            python,
            must="be Python 3.13 or older, for Topaz",
            got=".".join(map(str, version)),
            remedy="Name an older one with --python",
        )


def _step(command: Sequence[str], log: Path) -> str:
    """Run one step, add what it says to the log, and return it."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, env=clean
        )
    except OSError as error:
        raise ProjectError(
            command[0],
            must="be a Python that starts",
            got=error.strerror or str(error),
            remedy="Name another with --python",
        ) from error
    with output_errors(log), log.open("a") as handle:
        handle.write(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}\n")
    if done.returncode:
        lines = (done.stdout + "\n" + done.stderr).splitlines()
        raise ProjectError(
            f"`{' '.join(command[1:5])}`",
            must="end without an error",
            got=telling_line(lines) or f"exit code {done.returncode}",
            remedy=f"Check the network, and see {log}; the same command goes on",
        )
    return done.stdout
