"""What came in, what was kept and what was lost at each step: a table whose bars make a funnel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from cryopick.report.page import Html

__all__ = ["FlowGroup", "FlowRow", "flow_block"]


@dataclass(frozen=True, kw_only=True)
class FlowRow:
    """One step of a flow."""

    name: str
    kept: int
    losses: Sequence[tuple[int, str]] = ()  # how many, and why

    @property
    def came(self) -> int:
        """How many came in."""
        return self.kept + sum(count for count, _ in self.losses)


@dataclass(frozen=True, kw_only=True)
class FlowGroup:
    """Steps that hand on things of one kind, such as micrographs."""

    title: str
    rows: Sequence[FlowRow]


def flow_block(groups: Sequence[FlowGroup]) -> Html:
    """Draw each step as a bar: kept in colour, lost in a pale one, with the reasons beside.

    It is text and boxes, not a picture, so that it can be read on a telephone and by a machine.

    Parameters
    ----------
    groups
        Each with bars on a scale of its own: the most that came into one of its steps.
    """
    parts = []
    for group in groups:
        widest = max((row.came for row in group.rows), default=0)
        parts.append(
            f'<tbody><tr><th class="group" colspan="4" scope="colgroup">{escape(group.title)}'
            f"</th></tr>{''.join(_row(row, widest) for row in group.rows)}</tbody>"
        )
    return Html(f'<table class="flow">{"".join(parts)}</table>') if parts else Html("")


def _row(row: FlowRow, widest: int) -> str:
    shares = [(row.kept, "kept"), *((count, "lost") for count, _ in row.losses)]
    bars = "".join(
        f'<i class="{kind}" style="width:{100 * count / widest:.2f}%"></i>'
        for count, kind in shares
        if count
    )
    lost = ", ".join(f"\N{MINUS SIGN}{count:,} {why}" for count, why in row.losses if count)
    return (
        f'<tr><th scope="row">{escape(row.name)}</th><td class="bar">{bars}</td>'
        f'<td class="number">{row.kept:,}</td><td class="lost">{escape(lost)}</td></tr>'
    )
