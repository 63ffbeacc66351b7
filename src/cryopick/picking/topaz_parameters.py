"""Parameters of Topaz, which runs as a program of its own."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, option

__all__ = ["TopazComputeParameters", "TopazPickParameters", "TopazTrainParameters"]

_DEVICE = re.compile(r"cpu|cuda(:\d+)?")
_OF_PICK = {"-o", "--output", "--per-micrograph", "--format", "--suffix", "-m", "--model"}
_OF_PICK |= {"-d", "--device", "-s", "--down-scale", "-x", "--up-scale", "--targets"}
_OF_PICK |= {"--only-validate", "--dims", "-t", "--threshold"}
_OF_TRAIN = {"-o", "--output", "--save-prefix", "--train-images", "--train-targets", "-d"}
_OF_TRAIN |= {"--test-images", "--test-targets", "--device", "--num-epochs", "--epoch-size"}
_OF_TRAIN |= {"-n", "--num-particles", "--pi", "-r", "--radius", "-m", "--model", "-k", "--k-fold"}
_OF_TRAIN |= {"--describe", "--fold", "--format", "--image-ext"}
_ARGUMENTS = "More arguments for Topaz, in quotes, handed on as they are."
_EXECUTABLE = "The program; $CRYOPICK_TOPAZ_EXECUTABLE, or topaz on the PATH, if not given."
_DOWNSCALE = "Shrink micrographs by this factor; from diameter and pixel size if 0."
_PARTICLES_WHITE = "The particles are brighter than their surroundings."


@dataclass(frozen=True, kw_only=True)
class TopazComputeParameters(Parameters):
    """Machine for Topaz."""

    device: str = option("cpu", help="Where Topaz computes: cpu, cuda or cuda:1.")
    threads: int = option(0, help="Threads on the CPU; 0 is one per core.", minimum=0)

    @property
    def number(self) -> int:
        """The device as Topaz counts: -1 is the CPU."""
        return -1 if self.device == "cpu" else int(self.device.partition(":")[2] or 0)

    def check_together(self) -> None:
        """Check the name of the device.

        Raises
        ------
        ParameterError
            If it is not the CPU or one CUDA device.
        """
        if not _DEVICE.fullmatch(self.device):
            raise ParameterError(
                "device",
                must="be cpu or one CUDA device such as cuda:0",
                got=self.device or "nothing",
                remedy="Change --device",
            )


@dataclass(frozen=True, kw_only=True)
class TopazTrainParameters(Parameters):
    """Topaz training."""

    diameter: float = option(help="Diameter of a particle.", unit="A", above=0)
    particles_per_micrograph: float | None = option(
        None,
        help="Particles to expect in a micrograph, labelled or not; 1.5 times the labelled ones "
        "if not given.",
        above=0,
    )
    model: str = option("", help="Topaz's name of the network, such as resnet8; its own if empty.")
    epochs: int = option(10, help="Rounds of training.", minimum=1, maximum=999)
    epoch_size: int = option(1000, help="Updates in each round.", minimum=1)
    epoch: int = option(
        0,
        help="The round whose model is taken; 0 takes that of the best precision and recall "
        "on the test micrographs.",
        minimum=0,
    )
    test_share: float = option(
        0.2, help="Least share of the labels kept for the test.", above=0, below=1
    )
    downscale: int = option(0, help=_DOWNSCALE, minimum=0)
    white_particles: bool = option(default=False, help=_PARTICLES_WHITE)
    seed: int = option(1, help="Seed of the choice of test micrographs.", minimum=0)
    topaz_args: str = option("", help=_ARGUMENTS)
    executable: str = option("", help=_EXECUTABLE)

    @property
    def arguments(self) -> list[str]:
        """The further arguments, split as a shell does."""
        return _split(self.topaz_args)

    def check_together(self) -> None:
        """Check the round that is taken and the further arguments.

        Raises
        ------
        ParameterError
            If there is no such round, or an argument is one that cryopick gives itself.
        """
        if self.epoch > self.epochs:
            raise ParameterError(
                "epoch",
                must=f"be at most --epochs ({self.epochs})",
                got=self.epoch,
                remedy="Change --epoch",
            )
        _require_free(self.arguments, _OF_TRAIN)


@dataclass(frozen=True, kw_only=True)
class TopazPickParameters(Parameters):
    """Topaz picking."""

    diameter: float = option(help="Diameter of a particle.", unit="A", above=0)
    model: str = option(
        "",
        help="File of a trained model, or Topaz's name of one that came with it, such as "
        "resnet8_u64; its own if empty.",
    )
    threshold: float = option(
        -3.0, help="Least score of a pick: Topaz's logarithm of the odds for a particle."
    )
    mask: bool = option(
        default=True, help="Leave out ice, carbon and holes larger than a particle."
    )
    edge_distance: float = option(
        0.2,
        help="Least distance of a pick from the edge, as a fraction of the diameter.",
        minimum=0,
        maximum=5,
    )
    downscale: int = option(0, help=_DOWNSCALE, minimum=0)
    white_particles: bool = option(default=False, help=_PARTICLES_WHITE)
    topaz_args: str = option("", help=_ARGUMENTS)
    executable: str = option("", help=_EXECUTABLE)

    @property
    def arguments(self) -> list[str]:
        """The further arguments, split as a shell does."""
        return _split(self.topaz_args)

    def check_together(self) -> None:
        """Check the further arguments.

        Raises
        ------
        ParameterError
            If an argument is one that cryopick gives itself.
        """
        _require_free(self.arguments, _OF_PICK)


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ParameterError(
            "topaz_args",
            must="have its quotes closed",
            got=text,
            remedy="Change --topaz-args",
        ) from error


def _require_free(arguments: Collection[str], taken: Collection[str]) -> None:
    """Refuse arguments that would break what is read back from Topaz."""
    for word in arguments:
        name = word.partition("=")[0]
        if not name.startswith("--"):
            name = name[:2]  # a value may follow at once
        is_long = name.startswith("--") and len(name) > len("--")
        if name in taken or (is_long and any(full.startswith(name) for full in taken)):
            raise ParameterError(
                "topaz_args",
                must="leave to cryopick what it gives itself",
                got=name,
                remedy="Remove it; cryopick pick topaz has options of its own for this",
            )
