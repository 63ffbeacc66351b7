"""Where the images of a 2D classification are aligned: by threads here, or by a cluster."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cryopick.class2d.em_workers import ShardWorkers
from cryopick.class2d.stable_workers import Run
from cryopick.execution.local import make_executor
from cryopick.execution.parameters import ComputeParameters
from cryopick.pipeline.class2d_parameters import ClusterMachineParameters
from cryopick.pipeline.class2d_source import ParticleSource

if TYPE_CHECKING:
    from cryopick.execution.cluster import ClusterSession

__all__ = ["AlignmentPlace", "open_place"]

_SHARDS = "shards"  # folder of what workers on other machines read


class AlignmentPlace:
    """A place to align images.

    Parameters
    ----------
    session
        The cluster; None is this machine.
    out
        Folder of the job, which the workers see, too.
    device
        Of each worker of the cluster.
    """

    def __init__(self, session: ClusterSession | None, out: Path, device: str = "cpu") -> None:
        self._session, self._folder, self._device = session, out / _SHARDS, device

    def workers(self, source: ParticleSource) -> ShardWorkers | None:
        """Make workers for the images of a source; None: threads of the classifier's own."""
        if self._session is None:
            return None
        from cryopick.pipeline.class2d_shards import ClusterShards
        from cryopick.pipeline.shared_files import SharedFiles

        return ClusterShards(self._session, source, SharedFiles(self._folder), self._device)

    def run(self) -> Run | None:
        """Make workers for the parts of a stable classification; None: threads of its own."""
        if self._session is None:
            return None
        from cryopick.pipeline.class2d_blocks import ClusterBlocks

        return ClusterBlocks(self._session, self._folder, self._device)


@contextlib.contextmanager
def open_place(compute: ClusterMachineParameters, out: Path) -> Iterator[AlignmentPlace]:
    """Open the place that the user chose, for the job in a folder.

    What a job that was killed has left there for workers is removed.

    Raises
    ------
    ProjectError
        If it is a cluster that is not there.
    """
    shutil.rmtree(out / _SHARDS, ignore_errors=True)
    if not compute.is_remote:
        yield AlignmentPlace(None, out)
        return
    where = ComputeParameters(execution=compute.execution, device=compute.device)
    executor = make_executor(where, n_items=1, bytes_per_item=0)
    with executor.session() as session:  # type: ignore[union-attr] # a cluster's
        yield AlignmentPlace(session, out, compute.device)
