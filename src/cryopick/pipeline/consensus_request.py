"""All that a user has asked of a consensus, checked before any work starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryopick.errors import DataError, ParameterError
from cryopick.execution.local import require_devices
from cryopick.execution.parameters import ComputeParameters
from cryopick.picking.consensus_parameters import ConsensusParameters
from cryopick.picking.consensus_training_parameters import ConsensusTraining
from cryopick.pipeline.consensus_chances import CHANCES
from cryopick.pipeline.consensus_output import particle_box
from cryopick.pipeline.consensus_output_parameters import ConsensusOutputParameters
from cryopick.pipeline.consensus_plan import TrainingFiles, TrainingPlan, require_no_training
from cryopick.pipeline.consensus_sets import CoordinateSet, consensus_box, read_set
from cryopick.pipeline.consensus_tested import ROC, TESTING
from cryopick.pipeline.job import Job
from cryopick.pipeline.picking import PICKING_FILES
from cryopick.tables.micrographs import pixel_sizes
from cryopick.tables.model import Micrographs

__all__ = ["CONSENSUS_REPORT", "RESULT", "XMD", "ConsensusRequest"]

RESULT, XMD, CONSENSUS_REPORT = "consensus.json", "coordinates.xmd", "report.html"
_TABLE = "micrographs.star"
_RESULTS = (*PICKING_FILES, RESULT, CHANCES, XMD, CONSENSUS_REPORT, TESTING, ROC)
_ADJUSTABLE = ("threshold", "min_distance", "quorum")  # what they change is written anew


@dataclass(frozen=True, kw_only=True)
class ConsensusRequest:
    """Sets, micrographs, and what to do with them."""

    sets: tuple[Path, ...]
    micrographs: tuple[str, ...]
    parameters: ConsensusParameters
    training: ConsensusTraining = field(default_factory=ConsensusTraining)
    files: TrainingFiles = field(default_factory=TrainingFiles)
    output: ConsensusOutputParameters = field(default_factory=ConsensusOutputParameters)
    compute: ComputeParameters = field(default_factory=ComputeParameters)
    set_pixel_sizes: tuple[float | None, ...] = ()  # A/px, as they were given
    pixel_size: float | None = None  # A/px of the micrographs
    overwrite: bool = False

    @property
    def sizes(self) -> list[float | None]:
        """Pixel size of each set, A/px; None for that of the micrographs."""
        return list(self.set_pixel_sizes) or [None] * len(self.sets)

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises
        ------
        ParameterError
            If there are too few sets, not as many pixel sizes as sets, more votes are asked for
            than there are sets, options of networks have no say, or a device is not there.
        """
        require_devices(self.compute)
        has_networks = self.parameters.method == "network"
        if len(self.sets) < 2 and not (self.sets and has_networks and self.training.is_skipped):
            raise ParameterError(
                "SETS",
                must="be at least two",
                got=len(self.sets),
                remedy="Give the picks of another picker, or score one set with --skip-training",
            )
        if self.set_pixel_sizes and len(self.set_pixel_sizes) != len(self.sets):
            raise ParameterError(
                "set_pixel_size",
                must=f"be given once for each of the {len(self.sets)} sets",
                got=len(self.set_pixel_sizes),
                remedy="Give as many as sets, in their order",
            )
        least = self.parameters.least_votes(len(self.sets))
        if self.parameters.method == "votes" and least > len(self.sets):
            raise ParameterError(
                "quorum",
                must=f"be at most the number of sets, {len(self.sets)}",
                got=self.parameters.quorum,
                remedy="Lower --quorum; 0 stands for all",
            )
        if self.parameters.white_particles and not (has_networks or self.output.particles):
            raise ParameterError(
                "white_particles",
                must="be given with --method network or --particles only",
                got=f"--method {self.parameters.method} and --no-particles",
                remedy="Leave out --white-particles",
            )
        if not has_networks:
            require_no_training(self.training, self.files, self.parameters.method)

    def read_sets(self, table: Micrographs) -> list[CoordinateSet]:
        """Read all sets.

        Raises
        ------
        DataError
            If they hold no picks.
        CryopickError
            If one cannot be read.
        """
        read = [
            read_set(p, table, pixel_size=s) for p, s in zip(self.sets, self.sizes, strict=True)
        ]
        if not sum(s.count for s in read):
            raise DataError(
                "the sets",
                must="hold picks on these micrographs",
                got="none",
                remedy="Check that the sets are of these micrographs",
            )
        return read

    def box(self, sets: Sequence[CoordinateSet], table: Micrographs) -> float:
        """Side of the box: as given, or as the first set says it, or of the usual size, A."""
        side = self.parameters.box_size
        given = None if side is None else side * float(pixel_sizes(table).iloc[0])
        return consensus_box(sets, given=given, usual=self.parameters.usual_box)

    def radius(self, box: float) -> float:
        """Least distance of different particles, A."""
        return self.parameters.relative_radius * box

    def box_size(self, box: float, table: Micrographs) -> int:
        """Side of the box that particles are cut in, px.

        Raises
        ------
        ParameterError
            If particles would have to be enlarged.
        """
        return particle_box(box, float(pixel_sizes(table).iloc[0]), self.output)

    def job(
        self,
        folder: Path,
        *,
        name: str,
        plan: TrainingPlan | None,
        has_table: bool,
        results: Sequence[str] = (),
        more: dict[str, Any] | None = None,
    ) -> Job:
        """Make the job of a consensus, which is not open yet.

        Parameters
        ----------
        folder
            Where the results go.
        name
            Of the job.
        plan
            Of the networks, if there are any.
        has_table
            Whether the micrographs are named by a STAR file.
        results
            Names of files beside those of every consensus.
        more
            Values beside the parameters that the result depends on.
        """
        return Job(
            folder,
            name=name,
            parameters={
                **self.parameters.to_dict(),
                "pixel_size": self.pixel_size,
                "set_pixel_sizes": self.sizes,
                "training": None if plan is None else plan.record(),
                **(more or {}),
            },
            inputs=[
                *map(str, self.sets),
                *self.micrographs,
                *map(str, self.files.given().values()),
            ],
            results=(*_RESULTS, *results, *(() if has_table else (_TABLE,))),
            overwrite=self.overwrite,
            adjustable=_ADJUSTABLE,
        )
