"""A Slurm of one node on this machine: munged, slurmctld and slurmd, without systemd, as root."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0
MinJobAge=5
KillWait=2
InactiveLimit=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=16000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def require_slurm() -> None:
    missing = [name for name in PROGRAMS if find(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: install Debian's slurmctld, slurmd and munge")
    if os.geteuid() != 0:
        pytest.skip("Slurm on localhost is started by root only")


def find(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def ask(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=240).stdout


def jobs() -> dict[str, str]:
    """State of each job that is not over."""
    rows = (line.split() for line in ask("squeue", "--noheader", "--format=%i %T").splitlines())
    return {job: state for job, state in rows if state in ("PENDING", "RUNNING")}


def wait_until(condition: Callable[[], bool], *, seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def write_configuration(folder: Path) -> Path:
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
    (folder / "munge.key").chmod(0o400)
    file = folder / "slurm.conf"
    file.write_text(
        CONFIGURATION.format(folder=folder, host=node(), port=free_port(), node_port=free_port())
    )
    return file


def node() -> str:
    return socket.gethostname().partition(".")[0]


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[Path]:
    """Start the three daemons, and end them with all jobs; yields the configuration."""
    file = write_configuration(folder)
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(file)
    munge = [f"--{kind}={folder}/munge.{kind.split('-')[0]}" for kind in ("key-file", "socket")]
    more = [f"--{kind}-file={folder}/munged.{kind}" for kind in ("pid", "log", "seed")]
    commands = (
        ["munged", "--foreground", "--force", *munge, *more],
        ["slurmctld", "-D", "-f", str(file)],
        ["slurmd", "-D", "-f", str(file)],
    )
    with contextlib.ExitStack() as stack:
        for name, *arguments in commands:
            program = find(name)
            assert program is not None
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            stack.callback(end, subprocess.Popen([program, *arguments], **quiet))
            if name == "munged":
                wait_until((folder / "munge.socket").exists)
        stack.callback(cancel_all)
        wait_until(is_up)
        yield file
    os.environ.pop("SLURM_CONF")
    if before is not None:
        os.environ["SLURM_CONF"] = before


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(timeout=240)


def is_up() -> bool:
    try:
        return "idle" in ask("sinfo", "--noheader", "--format=%T")
    except subprocess.SubprocessError:
        return False


def cancel_all() -> None:
    ask("scancel", "--user=root", "--signal=KILL")
    ask("scancel", "--user=root")
    wait_until(lambda: not ask("squeue", "--noheader").strip())
