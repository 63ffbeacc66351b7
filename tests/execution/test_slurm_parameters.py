"""The file that says what jobs to ask Slurm for, and the script made of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cryopick.errors import CryopickError, ProjectError
from cryopick.execution.local import make_executor
from cryopick.execution.parameters import ComputeParameters
from cryopick.execution.slurm import job_script
from cryopick.execution.slurm_parameters import SlurmParameters, read_slurm_parameters


def test_the_script_asks_for_what_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "slurm.toml"
    file.write_text(
        'queue = "long"\naccount = "em"\ncores = 8\nmemory = 32\nwalltime = "1-02:00:00"\n'
        'gpus = 1\ninterface = "lo"\nprologue = ["module load cuda"]\ndirectives = ["--nice=9"]\n'
        f'skipped_directives = ["--mem"]\npython = "/opt/python"\nlogs = "{tmp_path}/logs"\n'
        'scratch = "/scratch"\n'
    )

    lines = job_script(read_slurm_parameters(file)).splitlines()

    asked = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")}
    assert {"-p long", "-A em", "--cpus-per-task=8", "-t 1-02:00:00"} <= asked
    assert {"--gres=gpu:1", "--nice=9"} <= asked
    assert not any(line.startswith("--mem") for line in asked)
    assert "module load cuda" in lines
    (command,) = (line for line in lines if line.startswith("/opt/python"))
    assert "--nthreads 1 " in command
    assert "--resources GPU=1" in command
    assert "--interface lo" in command
    assert "--local-directory /scratch" in command
    assert f"--lifetime {26 * 3600 - 120}s" in command


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jobz = 3", r"jobz in .* must be a parameter; got an unknown name"),
        ("jobs = 0", r"jobs in .* must be at least 1; got 0"),
        ("jobs = 1.5", r"jobs in .* must be a whole number; got 1\.5"),
        ('memory = "4GB"', r"memory in .* must be a number; got '4GB'"),
        ("queue = 3", r"queue in .* must be text; got 3"),
        ('prologue = "module load"', r"prologue in .* must be a list of text"),
        ('walltime = "4h"', r"walltime in .* must be a time as .*; got 4h"),
        ('walltime = "00:00:00"', "walltime in"),
        ("jobs =", "must be TOML"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "slurm.toml"
    file.write_text(text)

    with pytest.raises(CryopickError, match=message) as caught:
        read_slurm_parameters(file)

    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CryopickError, match=r"must name a file that can be read; got .*no\.toml"):
        read_slurm_parameters(tmp_path / "no.toml")


def test_a_gpu_that_the_jobs_have_not_is_refused() -> None:
    compute = ComputeParameters(execution="slurm", device="cuda")

    with pytest.raises(CryopickError, match="device must be cpu where the jobs of Slurm have no"):
        make_executor(compute, n_items=1, bytes_per_item=1)


def test_a_machine_without_slurm_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert shutil.which("sinfo") is None
    executor = make_executor(ComputeParameters(execution="slurm"), n_items=1, bytes_per_item=1)

    with pytest.raises(ProjectError, match="must find Slurm's commands; got no sinfo"):
        list(executor.map_unordered(abs, [1]))


def test_the_defaults_are_four_jobs_of_four_hours() -> None:
    parameters = read_slurm_parameters(None)

    assert parameters == SlurmParameters()
    assert (parameters.jobs, parameters.seconds) == (4, 4 * 3600)
