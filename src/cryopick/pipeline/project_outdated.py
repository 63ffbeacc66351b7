"""Which jobs of a project are outdated, why, and which of them others are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryopick.pipeline.project_records import StepRecord

__all__ = ["find_needed", "find_outdated"]

_MANY = 3  # changes that are told


def find_outdated(jobs: Mapping[int, StepRecord], aliases: Mapping[str, int]) -> dict[int, str]:
    """Say of each outdated job why it is.

    A job is outdated if no alias stands for it while one stands for another job of its step, if
    it was made from a job that is no longer the current one of its step, or that has another
    content since (where its record says which it had), and if it was made from an outdated job.
    A job that was begun after the current one of its step and is not done is not replaced but
    on its way.

    Parameters
    ----------
    jobs
        By number.
    aliases
        Numbers of jobs. The current job of a step is the one whose alias is the step's name.

    Returns
    -------
    dict
        A clause for each number.
    """
    named = set(aliases.values())
    found = {}
    for number, job in jobs.items():
        current = jobs.get(aliases.get(job.step, 0))
        is_on_its_way = current is not None and number > current.number and not job.is_done
        if current is not None and number not in named and not is_on_its_way:
            found[number] = f"replaced by job {current.number}{_difference(job, current)}"
        elif number in named and (why := _stale_upstream(job, jobs, aliases)):
            found[number] = why
    sources = _sources(jobs, aliases)
    for number in jobs:
        if number not in found and (why := _redone_upstream(jobs[number], jobs, sources[number])):
            found[number] = why
    return _with_made_from(found, sources)


def find_needed(jobs: Mapping[int, StepRecord], kept: set[int]) -> dict[int, int]:
    """Say of each job that is not kept itself which kept job is made from it.

    Parameters
    ----------
    jobs
        By number.
    kept
        Numbers of jobs that stay.

    Returns
    -------
    dict
        Number of a job: number of one that needs it.
    """
    by_identity: dict[tuple[str, str], list[int]] = {}
    for number, job in jobs.items():
        by_identity.setdefault((job.step, job.identity), []).append(number)
    needed: dict[int, int] = {}
    waiting = sorted(kept)
    while waiting:
        user = waiting.pop()
        for source in jobs[user].upstream.items():
            for number in by_identity.get(source, ()):
                if number not in kept and number not in needed:
                    needed[number] = user
                    waiting.append(number)
    return needed


def _difference(old: StepRecord, new: StepRecord) -> str:
    changes = [
        f"{name} {_shown(old.parameters.get(name))} instead of {_shown(new.parameters.get(name))}"
        for name in {**old.parameters, **new.parameters}
        if old.parameters.get(name) != new.parameters.get(name)
    ]
    changes += [
        f"made from another {step}"
        for step in new.upstream
        if old.upstream.get(step) != new.upstream[step]
    ]
    if len(changes) > _MANY:
        changes[_MANY:] = [f"{len(changes) - _MANY} more"]
    return f": {', '.join(changes)}" if changes else ""


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)


def _stale_upstream(
    job: StepRecord, jobs: Mapping[int, StepRecord], aliases: Mapping[str, int]
) -> str:
    for step, identity in job.upstream.items():
        current = jobs.get(aliases.get(step, 0))
        if current is not None and current.identity != identity:
            return f"made from a {step} that job {current.number} has replaced"
    return ""


def _sources(
    jobs: Mapping[int, StepRecord], aliases: Mapping[str, int]
) -> dict[int, dict[str, int]]:
    """Say of each job which job of each step it was made from; one that is gone is left out."""
    by_identity: dict[tuple[str, str], int] = {}

    def worth(number: int) -> tuple[bool, bool, int]:  # of several with one identity
        job = jobs[number]
        return aliases.get(job.step) == number, job.is_done, number

    for number in sorted(jobs, key=worth):
        by_identity[jobs[number].step, jobs[number].identity] = number
    return {
        number: {step: by_identity[step, i] for step, i in job.upstream.items()
                 if (step, i) in by_identity}
        for number, job in jobs.items()
    }  # fmt: skip


def _redone_upstream(
    job: StepRecord, jobs: Mapping[int, StepRecord], sources: Mapping[str, int]
) -> str:
    """Say which job was done again in place, with another result, since this was made from it."""
    for step, number in sources.items():
        known, now = job.upstream_content.get(step), (jobs[number].result or {}).get("content")
        if jobs[number].is_done and known and now and known != now:
            return f"made from job {number} ({step}) before that was done again"
    return ""


def _with_made_from(
    found: Mapping[int, str], sources: Mapping[int, Mapping[str, int]]
) -> dict[int, str]:
    """Add the jobs that are made from outdated ones, and those made from these, and so on."""
    outdated = dict(found)
    while True:
        more = {
            number: f"made from job {source} ({step}), which is outdated"
            for number, used in sources.items()
            if number not in outdated
            for step, source in used.items()
            if source in outdated and source != number
        }
        if not more:
            return dict(sorted(outdated.items()))
        outdated |= more
