"""Class averages with their scores and the reasons of these, as text beside small pictures."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from cryopick.io.png import encode_webp
from cryopick.report.page import Html

__all__ = ["ClassCard", "class_cards_block"]


@dataclass(frozen=True, kw_only=True)
class ClassCard:
    """One class as the report shows it."""

    number: int  # from 1
    pixels: NDArray[np.uint8]  # (y, x) of the average
    score: str  # as people read it
    share: float  # 0..1, of the bar that shows the score
    details: Sequence[str]  # particles, resolution
    reasons: Sequence[tuple[bool, str]]  # whether it raised the score, and what was found
    is_selected: bool


def class_cards_block(title: str, cards: Sequence[ClassCard]) -> Html:
    """Set classes in rows that are as long as the page is wide.

    Parameters
    ----------
    title
        Above them.
    cards
        In the order in which they are shown.
    """
    shown = "".join(_card(card) for card in cards)
    return Html(f'<h3>{escape(title)}</h3><div class="classes">{shown}</div>')


def _card(card: ClassCard) -> str:
    content = b64encode(encode_webp(card.pixels, quality=82)).decode()
    height, width = card.pixels.shape
    reasons = "".join(
        f"<li>{'+' if is_good else chr(0x2212)} {escape(text)}</li>"
        for is_good, text in card.reasons
    )
    details = "".join(f"<span>{escape(text)}</span>" for text in card.details)
    return (
        f'<figure class="class{"" if card.is_selected else " out"}">'
        f'<img src="data:image/webp;base64,{content}" width="{width}" height="{height}" '
        f'alt="class {card.number}">'
        f'<div class="share"><i style="width:{100 * card.share:.1f}%"></i></div>'
        f"<figcaption><div><b>{escape(card.score)}</b><span>class {card.number}</span></div>"
        f"<div>{details}</div><ul>{reasons}</ul></figcaption></figure>"
    )
