"""The set that a session makes beside its micrographs: classes, a selection, a trained picker."""

from __future__ import annotations

from dataclasses import replace

from cryopick.errors import CryopickError
from cryopick.pipeline.planner import Event
from cryopick.pipeline.runner import Course, Work
from cryopick.pipeline.session_aside import Aside

__all__ = ["SetBeside"]


def _quiet(*_: object) -> None:
    pass


class SetBeside:
    """One set at work in a process of its own.

    Attributes
    ----------
    identity
        Of the set that is made; empty while none is.
    step
        Its step.
    """

    def __init__(self) -> None:
        self.identity = self.step = ""
        self._course: Course | None = None
        self._work: Work | None = None
        self._aside: Aside | None = None

    @property
    def is_at_work(self) -> bool:
        """Whether a set is being made."""
        return self._course is not None

    @property
    def share(self) -> float:
        """How much of it is done, from 0 to 1."""
        return 0.0 if self._aside is None else self._aside.share

    @property
    def note(self) -> str:
        """What is known of it."""
        return "" if self._aside is None else self._aside.note

    def begin(self, course: Course, *, identity: str, step: str) -> Event | None:
        """Begin a set.

        Parameters
        ----------
        course
            Of the instruction to make it.
        identity, step
            What is made.

        Returns
        -------
        Event or None
            What happened, where there was nothing to do.
        """
        try:
            work = next(course)
        except StopIteration as end:
            event: Event = end.value
            return event
        self._course, self.identity, self.step = course, identity, step
        self._hand_over(work)
        return None

    def hear(self) -> Event | None:
        """Go on if the process has ended; give what happened when the set is made or broke.

        Raises
        ------
        OutputError, ProjectError
            If the project cannot be written any more, or is another's.
        """
        if self._course is None or self._aside is None or self._work is None:
            return None
        is_over = self._aside.is_over
        for sentence in self._aside.sentences:
            self._work.context.say(sentence)
        self._aside.sentences.clear()
        if not is_over:
            return None
        aside, course = self._aside, self._course
        aside.end()
        try:
            try:
                outcome = aside.result()
            except CryopickError as error:
                work = course.throw(error)
            else:
                work = course.send(outcome)
        except StopIteration as end:
            self.end()
            event: Event = end.value
            return event
        self._hand_over(work)
        return None

    def end(self) -> None:
        """End the process; what it has committed stays."""
        if self._aside is not None:
            self._aside.end()
        if self._course is not None:
            self._course.close()
        self._course = self._work = self._aside = None
        self.identity = self.step = ""

    def _hand_over(self, work: Work) -> None:
        from cryopick.pipeline.session_steps import perform_set  # loads what computes

        alone = replace(work.context, tell=_quiet, say=_quiet)  # what can go to another process
        self._work = work
        self._aside = Aside(work.step, perform_set, replace(work, context=alone))
