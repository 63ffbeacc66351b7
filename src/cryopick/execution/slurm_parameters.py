"""What jobs to ask Slurm for: a small TOML file, checked like every other parameter."""

from __future__ import annotations

import re
import tomllib
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryopick.errors import FormatError, ParameterError
from cryopick.parameters import ParameterDescription, Parameters, describe, option

__all__ = ["SlurmParameters", "read_slurm_parameters"]

_WALLTIME = re.compile(r"(?:(\d+)-)?(\d{1,2}):(\d{2}):(\d{2})")


@dataclass(frozen=True, kw_only=True)
class SlurmParameters(Parameters):
    """Jobs of Slurm; each is one worker."""

    jobs: int = option(4, help="Jobs to keep running; --workers goes before it.", minimum=1)
    cores: int = option(1, help="Cores of a job.", minimum=1)
    memory: float = option(4.0, help="Memory of a job.", unit="GB", minimum=0.1)
    walltime: str = option("04:00:00", help="Time limit of a job, [days-]hours:minutes:seconds.")
    gpus: int = option(0, help="GPUs of a job; a worker uses one.", minimum=0, maximum=1)
    queue: str = option("", help="Partition; empty is Slurm's default.")
    account: str = option("", help="Account; empty is Slurm's default.")
    interface: str = option("", help="Network interface of scheduler and workers, such as ib0.")
    python: str = option("", help="Python of the workers; empty is the one that runs cryopick.")
    prologue: tuple[str, ...] = option(
        (), help="Lines of shell before the worker starts, such as module load."
    )
    directives: tuple[str, ...] = option((), help="More options of sbatch, such as --nice=100.")
    skipped_directives: tuple[str, ...] = option(
        (), help="Options that the site does not allow, such as --mem."
    )
    scratch: str = option("", help="Folder of the worker's own files on the node's disk.")
    logs: str = option("slurm_logs", help="Folder of what the jobs print.")
    submissions_per_hour: int = option(
        20, help="Jobs that may be submitted again in an hour for those that ended.", minimum=0
    )

    @property
    def seconds(self) -> int:
        """The time limit of a job."""
        found = _WALLTIME.fullmatch(self.walltime)
        assert found is not None
        days, hours, minutes, seconds = (int(n or 0) for n in found.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds

    def check_together(self) -> None:
        """Check the form of the time limit.

        Raises
        ------
        ParameterError
            If it is no time as Slurm writes it, or nothing.
        """
        if not _WALLTIME.fullmatch(self.walltime) or not self.seconds:
            raise ParameterError(
                "walltime",
                must="be a time as [days-]hours:minutes:seconds",
                got=self.walltime or "nothing",
                remedy="Write 04:00:00 for four hours",
            )


def read_slurm_parameters(path: Path | None) -> SlurmParameters:
    """Read a file of parameters; without one all have their defaults.

    Raises
    ------
    ParameterError
        If the file is not there, or a name or a value in it is wrong.
    FormatError
        If it is no TOML.
    """
    if path is None:
        return SlurmParameters()
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise ParameterError(
            "execution",
            must="name a file that can be read",
            got=f"{path} ({error.strerror})",
            remedy="Correct --execution slurm:CONFIG",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(
            str(path), must="be TOML", got=f"an error: {error}", remedy="Correct the file"
        ) from error
    known = {d.name: d for d in describe(SlurmParameters)}
    try:
        for name, value in values.items():
            if name in known:
                _require_type(known[name], value)
        return SlurmParameters.from_dict(values)
    except ParameterError as error:  # its remedy names an option that there is not
        raise ParameterError(
            f"{error.what} in {path}",
            must=error.must.removesuffix(" of SlurmParameters"),
            got=error.got,
            remedy=f"Correct the file; it may say {', '.join(known)}",
        ) from error


def _require_type(known: ParameterDescription, value: Any) -> None:
    is_list = typing.get_origin(known.base_type) is tuple
    kinds: tuple[type, ...] = (str,) if is_list else (known.base_type,)
    if kinds == (float,):
        kinds = (float, int)
    values = value if is_list and isinstance(value, list) else [value]
    is_right = is_list == isinstance(value, list)
    if not is_right or any(isinstance(v, bool) or not isinstance(v, kinds) for v in values):
        words = {str: "text", int: "a whole number", float: "a number"}
        raise ParameterError(
            known.name,
            must="be " + ("a list of text" if is_list else words[kinds[0]]),
            got=repr(value),
            remedy="Correct the file",
        )
