"""Workers as jobs of Slurm: submitted with dask-jobqueue, looked after here.

dask-jobqueue writes the script of a job and submits it. It does not see a job that ended before
its worker came up, or that waits for ever. So the queue is asked every few seconds, for all jobs
at once: a job that is gone is submitted again, so often in an hour and no more, and the reason
that Slurm gives for a job that waits is told.
"""

from __future__ import annotations

import logging
import subprocess
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dask_jobqueue import SLURMCluster
from distributed import Status

from cryopick.errors import ParameterError, ProjectError
from cryopick.execution.cluster import ClusterExecutor
from cryopick.execution.parameters import ComputeParameters
from cryopick.execution.slurm_parameters import SlurmParameters, read_slurm_parameters

__all__ = ["SlurmFleet", "job_script", "slurm_executor"]

_LOOK = 2.0  # s, between questions to Slurm
_HOUR = 3600.0
_SOUND = 600.0  # s, after which the end of a job is no sign of a fault
_FRESH = 10.0  # s, in which a job just submitted may not yet be listed
_LAST = 0.1, 120.0  # share of the time limit and s before it, when a worker stops taking items
_QUESTION = 20.0  # s, for squeue to answer
_log = logging.getLogger("cryopick.execution")


def slurm_executor(compute: ComputeParameters, config: str) -> ClusterExecutor:
    """Make an executor whose workers are jobs of Slurm.

    Parameters
    ----------
    compute
        Workers, threads and device as given; they go before what the file says.
    config
        Path of the file of `SlurmParameters`; empty for the defaults.

    Raises
    ------
    ParameterError
        If the file is wrong, or it asks for no GPU where one is wanted.
    FormatError
        If the file is no TOML.
    """
    parameters = read_slurm_parameters(Path(config) if config else None)
    if compute.uses_gpu and not parameters.gpus:
        raise ParameterError(
            "device",
            must="be cpu where the jobs of Slurm have no GPU",
            got=compute.device,
            remedy="Write gpus = 1 into the file of --execution slurm:CONFIG",
        )
    return ClusterExecutor(
        open_fleet=partial(SlurmFleet, parameters, jobs=compute.workers or parameters.jobs),
        threads=compute.threads or parameters.cores,
        place=compute.execution,
        needs_gpu=compute.uses_gpu,
    )


def job_script(parameters: SlurmParameters) -> str:
    """Write the script that is submitted for each job."""
    options = _job_options(parameters)
    return str(SLURMCluster.job_cls("tcp://SCHEDULER", name="NAME", **options).job_script())


def _job_options(p: SlurmParameters) -> dict[str, Any]:
    """Say in dask-jobqueue's words what a job is: one process with one item at a time."""
    share, most = _LAST
    last = max(1.0, min(share * p.seconds, most))
    extra = ["--lifetime", f"{p.seconds - last:.0f}s", "--lifetime-stagger", f"{last / 4:.0f}s"]
    directives = list(p.directives)
    if p.gpus:
        extra += ["--resources", "GPU=1"]
        directives.append(f"--gres=gpu:{p.gpus}")
    return {
        "cores": 1,
        "processes": 1,
        "job_cpu": p.cores,
        "memory": f"{p.memory:g}GB",
        "walltime": p.walltime,
        "queue": p.queue or None,
        "account": p.account or None,
        "interface": p.interface or None,
        "python": p.python or None,
        "job_name": "cryopick",
        "job_script_prologue": list(p.prologue),
        "job_extra_directives": directives,
        "job_directives_skip": list(p.skipped_directives),
        "local_directory": p.scratch or None,
        "log_directory": p.logs or None,
        "worker_extra_args": extra,
    }


class SlurmFleet:
    """Jobs of Slurm that are kept running until `close`.

    Parameters
    ----------
    parameters
        What a job is.
    jobs
        How many to keep running.

    Raises
    ------
    ProjectError
        If Slurm is not there or refuses the jobs.
    """

    def __init__(self, parameters: SlurmParameters, *, jobs: int) -> None:
        self._parameters, self._jobs = parameters, jobs
        self._submitted: dict[str, float] = {}  # time of each job id
        self._again: deque[float] = deque()  # times of submissions after the first
        self._avoided: list[str] = []
        self._told = ""
        self._looked = time.monotonic()
        _ask("sinfo", "--version")
        self._options = _job_options(parameters)
        self._cluster = SLURMCluster(
            scheduler_options={"dashboard": False, "dashboard_address": ":0"}, **self._options
        )
        try:
            self._submit()
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """Of the scheduler, which runs in this process."""
        return str(self._cluster.scheduler_address)

    @property
    def job_ids(self) -> dict[str, str]:
        """Slurm's number of the job of each worker."""
        return {str(n): str(w.job_id) for n, w in list(self._cluster.workers.items())}

    def look(self, workers: Sequence[str]) -> None:
        """Submit again what is gone, and tell why jobs wait.

        Raises
        ------
        ProjectError
            If all jobs have ended and no more may be submitted in this hour, or Slurm refuses.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        try:
            listed = _queue(list(self.job_ids.values()))
        except ProjectError:  # a busy controller is no reason to stop
            return
        self._tell_reasons(listed)
        gone = [
            name
            for name, job in self.job_ids.items()
            if job not in listed and now - self._submitted.get(job, 0.0) > _FRESH
        ]
        self._replace(gone, now)
        if not self.job_ids and not workers:
            raise ProjectError(
                "the jobs of Slurm",
                must="stay alive",
                got=f"{len(self._again) + self._jobs} that ended",
                remedy=f"See what they printed in {self._parameters.logs}, and run the same "
                "command again; finished work is kept",
            )

    def expect(self) -> None:
        """Leave it to Slurm how long its jobs wait."""

    def avoid(self, host: str) -> None:
        """Ask for no more workers on a host."""
        if host in self._avoided:
            return
        self._avoided.append(host)
        directives = self._options["job_extra_directives"]
        directives[:] = [d for d in directives if not d.startswith("--exclude=")]
        directives.append("--exclude=" + ",".join(self._avoided))

    def close(self) -> None:
        """Cancel the jobs."""
        self._cluster.close(timeout=30)

    def _replace(self, gone: Sequence[str], now: float) -> None:
        n_sound = 0  # came to the end of their time: to be expected
        for name in gone:
            job = self._cluster.workers.pop(name, None)
            begun = self._submitted.get(str(job.job_id), now) if job else now
            n_sound += now - begun > _SOUND
        while self._again and now - self._again[0] > _HOUR:
            self._again.popleft()
        left = self._parameters.submissions_per_hour - len(self._again)
        missing = min(self._jobs - len(self.job_ids), left + n_sound)
        if missing > 0:
            self._again.extend([now] * max(missing - n_sound, 0))
            self._submit(len(self.job_ids) + missing)

    def _submit(self, jobs: int | None = None) -> None:
        cluster, wanted = self._cluster, self._jobs if jobs is None else jobs
        for name in set(cluster.worker_spec) - set(cluster.workers):
            del cluster.worker_spec[name]

        async def submit() -> None:
            while len(cluster.worker_spec) < wanted:
                cluster.worker_spec.update(cluster.new_worker_spec())
            try:
                await cluster
            finally:
                for name, job in list(cluster.workers.items()):
                    if job.job_id is None:  # refused; there is nothing to cancel
                        job.status = Status.failed
                        del cluster.workers[name], cluster.worker_spec[name]

        try:
            cluster.sync(submit)
        except RuntimeError as error:
            raise _refused(str(error)) from error
        now = time.monotonic()
        for job in self.job_ids.values():
            self._submitted.setdefault(job, now)

    def _tell_reasons(self, listed: Mapping[str, tuple[str, str]]) -> None:
        waiting = Counter(why for state, why in listed.values() if state == "PENDING")
        told = ", ".join(f"{n} for {why}" for why, n in sorted(waiting.items()))
        if told and told != self._told:
            _log.warning("Jobs that wait in Slurm, and its reasons: %s.", told)
        self._told = told


def _queue(jobs: Sequence[str]) -> dict[str, tuple[str, str]]:
    """State and reason of the jobs that Slurm still has, asked for once for all of them."""
    if not jobs:
        return {}
    text = _ask("squeue", "--me", "--noheader", "--format=%i|%T|%r")
    rows = (line.split("|", 2) for line in text.splitlines() if line.count("|") >= 2)
    found = {job.strip(): (state, why) for job, state, why in rows}
    over = ("COMPLETED", "COMPLETING", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")
    return {job: found[job] for job in jobs if job in found and found[job][0] not in over}


def _ask(*command: str) -> str:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_QUESTION
        ).stdout
    except FileNotFoundError as error:
        raise ProjectError(
            "--execution slurm",
            must="find Slurm's commands",
            got=f"no {command[0]}",
            remedy="Run on a machine that can submit jobs, or choose another --execution",
        ) from error
    except subprocess.SubprocessError as error:
        told = getattr(error, "stderr", None) or str(error)
        raise _refused(str(told)) from error


def _refused(told: str) -> ProjectError:
    """Take the line of Slurm's own words out of what a command printed."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower()] or lines or ["no answer"]
    return ProjectError(
        "Slurm",
        must="take the jobs",
        got=telling[-1],
        remedy="Correct the file of --execution slurm:CONFIG, or ask the site",
    )
