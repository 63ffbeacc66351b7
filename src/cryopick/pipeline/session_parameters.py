"""What a user can choose about a session, beside what `run` takes."""

from __future__ import annotations

from dataclasses import dataclass

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, option

__all__ = ["SessionParameters"]


@dataclass(frozen=True, kw_only=True)
class SessionParameters(Parameters):
    """Watching."""

    poll: float = option(
        2.0, help="Pause between two looks for new micrographs; ten times as long as a look takes "
        "where that is more.", unit="s", above=0, maximum=60,
    )  # fmt: skip
    settle: float = option(
        2.0, help="A file is taken when size and time of change have stood still for so long and "
        "its header says that it is whole; one that was renamed, at once.", unit="s", minimum=0,
    )  # fmt: skip
    idle: float = option(
        0.0, help="Close the session after so long without a new micrograph; 0 never does.",
        unit="min", minimum=0,
    )  # fmt: skip
    backlog: float = option(
        0.25, help="Share of the work that goes to those that have waited longest when micrographs "
        "come faster than they are worked on; the rest goes to the newest. 1 takes them in the "
        "order in which they came. Results do not depend on it.", above=0, maximum=1,
    )  # fmt: skip
    live_picks: bool = option(
        default=True, help="Pick with the general model until the picker has learned, so that "
        "micrographs do not wait for it.",
    )  # fmt: skip
    live_classes: bool = option(default=True, help="Classify particles while they come.")
    first_batch: int = option(1000, help="Particles that make the first live classes.", minimum=50)
    report: float = option(
        2.0, help="Pause between two reports; 0 writes one at the end only.", unit="min", minimum=0
    )
    notify: str = option(
        "", help="URL that is sent JSON (POST) when the session starts, breaks, waits for the "
        "disk, has new classes, and ends.",
    )  # fmt: skip
    notify_pause: float = option(
        5.0, help="Least time between two of these; what happens meanwhile is sent together.",
        unit="min", minimum=0,
    )  # fmt: skip

    def check_together(self) -> None:
        """Refuse a URL that cannot be one.

        Raises
        ------
        ParameterError
            If `notify` is neither http nor https.
        """
        if self.notify and not self.notify.startswith(("http://", "https://")):
            raise ParameterError(
                "notify",
                must="begin with http:// or https://",
                got=self.notify,
                remedy="Change --notify",
            )
