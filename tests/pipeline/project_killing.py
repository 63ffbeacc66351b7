"""Kill a process that works on a project before each single change of the disk, and look again.

A program of its own, because it forks: ``python project_killing.py FOLDER run|migrate`` prints how
many kills there were, and fails with the number of the first after which something was wrong.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from cryopick.pipeline.project import REMOVED, Project
from cryopick.pipeline.project_clean import find_removable, remove_jobs
from cryopick.pipeline.project_verify import verify_project

CHANGES = ("replace", "rename", "mkdir", "symlink", "link", "unlink", "rmdir", "fsync")
STEPS = [("ctf", "c1"), ("pick", "p1"), ("ctf", "c2")]


def work(folder, finished=lambda: None):
    """Do as a runner does: whatever is done already is left as it is."""
    with Project.open(folder, create=True) as project:
        finished()
        for step, identity in STEPS:
            job = project.find_job(step, identity) or project.new_job(step, identity)
            finished()
            if not job.is_done:
                (project.job_folder(job.number) / "ledger.jsonl").write_text(
                    '{"key": "a", "identity": "", "summary": {}, "error": ""}\n'
                )
                project.finish_job(job.number, result={"n": job.number})
            finished()
            project.set_alias(step, job.number)
            finished()
        project.update_index()
        if "reject" not in {d.what for d in project.decisions()}:
            project.add_decision("reject", micrograph="a")
        finished()
        remove_jobs(project, [j for j in find_removable(project) if j.number == 1])
        finished()


def work_through(folder, finished=lambda: None):
    """Like `work`; a job that was removed is not made again."""
    with Project.open(folder, create=True) as project:
        is_cleaned = REMOVED in {d.what for d in project.decisions()}
    if not is_cleaned:
        work(folder, finished)
        return
    with Project.open(folder) as project:
        remove_jobs(project, [j for j in find_removable(project) if j.number == 1])


def state_of(folder):
    """Read all that a project says."""
    if not (folder / "project.json").exists():
        return None
    with Project.open(folder, writes=False) as project:
        jobs = [(j.folder_name, j.identity, j.state) for j in project.jobs().values()]
        # a removal that was cut off is chosen again
        return jobs, project.aliases(), list(dict.fromkeys(d.what for d in project.decisions()))


def count_changes(before_change):
    """Call a function before every change of the disk."""

    def wrap(call):
        def changed(*args, **options):
            before_change()
            return call(*args, **options)

        return changed

    for name in CHANGES:
        setattr(os, name, wrap(getattr(os, name)))


def kill_before(change, do):
    """Fork; the child does something and dies before its n-th change. Gives how far it came."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    done, changes = [0], [0]

    def before_change():
        changes[0] += 1
        if changes[0] == change:
            os._exit(1 + done[0])

    def finished():
        done[0] += 1

    count_changes(before_change)
    do(finished)
    os._exit(0)


def states_of_a_whole_run(folder):
    states = [state_of(folder)]
    work(folder, lambda: states.append(state_of(folder)))
    jobs, aliases, choices = states[-2]
    states.insert(-1, (jobs, aliases, [*choices, REMOVED]))  # the choice comes first
    return states


def check_run(base):
    states = states_of_a_whole_run(base / "whole")
    change = 0
    while True:
        change += 1
        folder = base / f"killed{change}"
        end = kill_before(change, lambda finished, folder=folder: work(folder, finished))
        if end == 0:
            return change - 1
        if (folder / "project.json").exists():
            Project.open(folder).close()  # the next manager
            assert verify_project(folder) == [], (change, verify_project(folder))
        # what was finished is there, and of the next step all or nothing
        assert state_of(folder) in states[end - 1 : end + 2], (change, state_of(folder))
        work_through(folder)
        assert state_of(folder) == states[-1], (change, state_of(folder), states[-1])
        assert verify_project(folder) == [], (change, verify_project(folder))


def check_migration(base):
    from project_world import check_version_0_is_brought_up, make_version_0

    change = 0
    while True:
        change += 1
        folder = base / f"killed{change}"
        make_version_0(folder)
        end = kill_before(change, lambda finished, folder=folder: Project.open(folder).close())
        if end == 0:
            return change - 1
        Project.open(folder).close()
        check_version_0_is_brought_up(folder)
        shutil.rmtree(folder)


if __name__ == "__main__":
    os.fsync = lambda handle: None  # no power fails here
    check = {"run": check_run, "migrate": check_migration}[sys.argv[2]]
    print(check(Path(sys.argv[1])))  # noqa: T201
