"""One self-contained HTML page: a header with the numbers, then sections; no script, no link out.

The page knows nothing of projects: it is given titles, numbers and blocks of HTML, which the
functions of `cryopick.report.blocks` make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import NewType

from cryopick import __version__

__all__ = ["Fact", "Html", "Section", "make_page"]

Html = NewType("Html", str)  # markup whose every text has been escaped


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One number of the header."""

    label: str
    value: str
    unit: str = ""
    note: str = ""  # a few words below the number


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page."""

    title: str
    blocks: Sequence[Html]
    lead: str = ""  # a sentence or two, plain text

    @property
    def anchor(self) -> str:
        """The name by which the navigation finds it."""
        return "".join(c if c.isalnum() else "-" for c in self.title.lower())


def make_page(
    *,
    title: str,
    subtitle: str = "",
    alarm: str = "",
    facts: Sequence[Fact] = (),
    remarks: Sequence[str] = (),
    sections: Sequence[Section] = (),
) -> str:
    """Compose the page.

    Parameters
    ----------
    title, subtitle
        Plain text.
    alarm
        What the reader must know before all else: that the work was not finished, and why.
    facts
        Numbers of the header.
    remarks
        Sentences on what the reader should look after; none leaves the box out.
    sections
        In reading order; one without blocks is left out.

    Returns
    -------
    str
        A complete HTML 5 document.
    """
    here = files("cryopick.report")
    kept = [s for s in sections if s.blocks]
    return Template(here.joinpath("page.html").read_text("utf-8")).substitute(
        version=escape(__version__),
        title=escape(title),
        subtitle=escape(subtitle),
        style=here.joinpath("page.css").read_text("utf-8"),
        navigation=_navigation(kept),
        alarm=f'<p class="alarm" role="alert">{escape(alarm)}</p>' if alarm else "",
        facts=_facts(facts),
        remarks=_remarks(remarks),
        sections="\n".join(_section(s) for s in kept),
    )


def _navigation(sections: Sequence[Section]) -> str:
    links = (f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in sections)
    return f"<nav>{' '.join(links)}</nav>" if sections else ""


def _facts(facts: Sequence[Fact]) -> str:
    parts = []
    for fact in facts:
        unit = f' <span class="unit">{escape(fact.unit)}</span>' if fact.unit else ""
        note = f'<dd class="note">{escape(fact.note)}</dd>' if fact.note else ""
        value = f'<dd class="value">{escape(fact.value)}{unit}</dd>'
        parts.append(f"<div><dt>{escape(fact.label)}</dt>{value}{note}</div>")
    return f'<dl class="facts">{"".join(parts)}</dl>' if parts else ""


def _remarks(remarks: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(r)}</li>" for r in remarks)
    return f'<ul class="remarks">{items}</ul>' if items else ""


def _section(section: Section) -> str:
    lead = f'<p class="lead">{escape(section.lead)}</p>' if section.lead else ""
    body = "\n".join(section.blocks)
    heading = f"<h2>{escape(section.title)}</h2>"
    return f'<section id="{section.anchor}">\n{heading}\n{lead}\n{body}\n</section>'
