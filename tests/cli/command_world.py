"""Commands as a user runs them, on small micrographs with discs in them, and disks with faults.

A plugin of pytest: a test module takes its fixtures with ``pytest_plugins``, and imports the
rest before pytest could rewrite it (PYTEST_DONT_REWRITE).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cryopick.cli.app import main
from cryopick.io.mrc import write_mrc

PIXEL_SIZE = 6.0  # A
DIAMETERS = ("--min-diameter", "130", "--max-diameter", "170")
SENTENCE = re.compile(r"Error: .+ must .+; got .+\. .+\.")
ALONE = ("--workers", "1", "--threads", "1")
BOX = ("--box-size", "40")
FIRST = ("--first-picker", "log", "--until", "first_particles", "--ctf", "ignore")
RUN = (*FIRST, *DIAMETERS, *ALONE)  # a dozen particles are too few for classes


def pick(cryopick, *words, micrographs="mics.star", out="pick"):
    return cryopick("pick", "log", micrographs, "--out", out, *DIAMETERS, *ALONE, *words)


def extract(cryopick, *words, micrographs="mics.star", coordinates="pick", out="extract"):
    box = () if "--box-size" in words else BOX
    return cryopick("extract", micrographs, coordinates, "--out", out, *box, *ALONE, *words)


def run(cryopick, *words, micrographs="mics.star", out="project"):
    return cryopick("run", micrographs, "--out", out, *RUN, *words)


def refused(ended, *parts, code=1):
    """One sentence in the house's form, nothing on stdout, the exit code of an error."""
    assert ended.code == code, ended
    assert ended.out == ""
    (line,) = ended.errors
    assert SENTENCE.fullmatch(line), line
    for part in parts:
        assert part in line


def is_left_over(path):
    return path.name.startswith(".") and path.name.endswith(".tmp")


def leftovers(folder=Path()):
    return [p for p in folder.rglob("*") if is_left_over(p)]


def contents(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def make_field(path: Path, *, seed: int = 0, shape: tuple[int, int] = (260, 300)) -> Path:
    """Write noise with dark discs of 150 A, a micrograph that is not square."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(size=shape)
    y, x = np.indices(shape)
    for center_y, center_x in [(60, 70), (70, 200), (190, 120), (180, 230)]:
        pixels[np.hypot(y - center_y, x - center_x + 3 * seed) < 75 / PIXEL_SIZE] -= 1.5
    write_mrc(path, pixels.astype(np.float32), pixel_size=PIXEL_SIZE)
    return path


def write_table(
    path: Path,
    rows: list[str],
    *,
    columns: tuple[str, ...] = ("rlnMicrographName", "rlnOpticsGroup"),
    optics: tuple[str, ...] = (f"og1 1 {PIXEL_SIZE}",),
    optics_columns: tuple[str, ...] = (
        "rlnOpticsGroupName",
        "rlnOpticsGroup",
        "rlnMicrographPixelSize",
    ),
) -> Path:
    """Write a RELION table of micrographs by hand."""

    def block(name: str, labels: tuple[str, ...], lines: list[str] | tuple[str, ...]) -> str:
        head = "".join(f"_{label} #{n + 1}\n" for n, label in enumerate(labels))
        return f"data_{name}\n\nloop_\n{head}" + "".join(f"{line}\n" for line in lines) + "\n"

    path.write_text(
        block("optics", optics_columns, optics) + "\n" + block("micrographs", columns, rows)
    )
    return path


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """Lines on stderr less those of the progress."""
        steps = ("Picking", "Extracting", "Simulating:")
        return [line for line in self.err.splitlines() if not line.startswith(steps)]


@pytest.fixture
def cryopick(monkeypatch):
    """Run the command line in this process, through `main`, as the installed script does."""

    def call(*words: object) -> Ended:
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "argv", ["cryopick", *map(str, words)])
        code = 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as end:
                code = end.code or 0
        return Ended(code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture(scope="session")
def fields(tmp_path_factory) -> Path:
    """A folder of three micrographs."""
    folder = tmp_path_factory.mktemp("fields")
    for number in range(3):
        make_field(folder / f"f{number}.mrc", seed=number)
    return folder


@pytest.fixture
def project(tmp_path, fields, monkeypatch) -> Path:
    """An empty working folder with the micrographs and their table."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fields").symlink_to(fields)
    write_table(tmp_path / "mics.star", [f"fields/f{n}.mrc 1" for n in range(3)])
    return tmp_path


@contextlib.contextmanager
def _mounted(folder: Path, options: str):
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        is_there = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        is_there = False
    if not is_there:
        pytest.skip("needs the right to mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_disk(project):
    """A folder on a disk of 256 kB."""
    with _mounted(project / "small", "size=256k") as folder:
        yield folder


@pytest.fixture
def read_only(project):
    """A folder that cannot be written to."""
    if os.geteuid():
        folder = project / "locked"
        folder.mkdir(mode=0o500)
        yield folder
        folder.chmod(0o700)
        return
    with _mounted(project / "locked", "ro") as folder:
        yield folder
