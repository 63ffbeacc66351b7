"""Sections of the report of a run on classes: scores, and why; and the particles selected."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from cryopick.pipeline.report_sample import sample_particles
from cryopick.pipeline.report_source import ReportSource
from cryopick.pipeline.scored_classes import ScoredClasses, read_scored_classes
from cryopick.report.blocks import grid_block, image_block
from cryopick.report.class_cards import ClassCard, class_cards_block
from cryopick.report.page import Html, Section
from cryopick.report.pictures import mean_power, spread_contrast, tile_images
from cryopick.selection.class_choice import EMPTY, best_first
from cryopick.selection.score_words import show_score, show_threshold
from cryopick.tables.relion import read_particles

__all__ = ["PARTICLE_STEPS", "classes_section", "particles_section"]

PARTICLE_STEPS = {  # the last that is done is shown
    "first_particles": "First particles",
    "first_selection": "First selected particles",
    "particles": "Particles",
    "selection": "Selected particles",
}

_MOST = 60  # classes shown
_REASONS = 2  # of a class
_REASON = re.compile(r"(.+?) \(([+-][^()]*)\)(?:; |$)")
_GALLERY = 60  # particles shown
_AVERAGED = 400  # particles in the mean, at most
_PIXELS = 1 << 26  # of these, at most
_LOW_PASS = 15.0  # A, of the particles shown


def classes_section(source: ReportSource, name: str, *, title: str) -> Section:
    """Show the classes of a selection step with scores and reasons, also where none was good.

    Parameters
    ----------
    source
        The run.
    name
        Of the step.
    title
        Of the section.
    """
    folder = source.folder(name)
    if folder is None:
        return Section(title=title, blocks=[])
    found = read_scored_classes(folder)
    threshold = source.parameters.minimum_score
    counts = found.table["particle_count"].to_numpy(np.float64)
    order = best_first(found.table["score"].to_numpy(np.float64), counts)
    order = order[(found.table["why"].to_numpy(str) != EMPTY)[order]]
    shown = order if len(order) <= _MOST else np.r_[order[: _MOST // 2], order[-_MOST // 2 :]]
    blocks = []
    for flag, words in ((True, "Selected"), (False, "Not selected")):
        total = order[found.is_selected[order] == flag]
        cards = [_card(found, int(k), threshold) for k in shown if found.is_selected[k] == flag]
        if len(total):
            heading = f"{words}: {len(total):,} of {len(order):,} classes, "
            heading += f"{int(counts[total].sum()):,} particles"
            blocks.append(class_cards_block(heading, cards))
    return Section(title=title, lead=_lead(len(shown), len(order), threshold), blocks=blocks)


def _lead(n_shown: int, total: int, threshold: float) -> str:
    lead = (
        "The score of a class says from 0 to 1 how good it is; a class is good from "
        f"{show_threshold(threshold)}. Below each, what raised (+) or lowered (\N{MINUS SIGN}) its "
        "score most."
    )
    if n_shown < total:
        half = _MOST // 2
        lead += f" The {half} best and the {half} worst of {total:,} classes are shown."
    return lead


def _card(found: ScoredClasses, place: int, threshold: float) -> ClassCard:
    row = found.table.iloc[place]
    features = found.inputs.features
    resolution = float(features["resolution"].iloc[place]) if "resolution" in features else np.nan
    score, count = float(row["score"]), float(row["particle_count"])
    details = [f"{int(count):,}" if np.isfinite(count) else ""]
    details.append(f"{resolution:.1f} Å" if np.isfinite(resolution) else "")
    reasons = _REASON.findall(str(row["reasons"]))[:_REASONS]
    return ClassCard(
        number=int(row["class_number"]),
        pixels=spread_contrast(found.inputs.images[place]),
        score=show_score(score, threshold) if np.isfinite(score) else "no score",
        share=float(np.clip(np.nan_to_num(score), 0, 1)),
        details=details,
        reasons=[(effect.startswith("+"), text) for text, effect in reasons],
        is_selected=bool(found.is_selected[place]),
    )


def particles_section(source: ReportSource) -> Section:
    """Show particles of good classes, their mean, their spread and their spectrum."""
    name = [n for n in PARTICLE_STEPS if n in source.steps][-1]
    particles = read_particles(source.steps[name].folder / "particles.star")
    pixel_size = float(particles.optics["pixel_size"].iloc[0])
    gallery = sample_particles(particles, most=_GALLERY, by_score=True)
    side = gallery.shape[-1]
    most = max(_GALLERY, min(_AVERAGED, _PIXELS // side**2))
    sample = sample_particles(particles, most=most, by_score=False)
    sheet = tile_images(gallery, columns=12, side=96, pixel_size=pixel_size, low_pass=_LOW_PASS)
    of = "of good classes" if name.endswith("selection") else "extracted"
    blocks = [
        image_block(
            sheet,
            caption=f"{len(gallery)} of {len(particles):,} particles {of}, the best score first "
            f"and evenly spread down to the worst. Box {side} px, {side * pixel_size:.0f} Å; "
            f"filtered to {_LOW_PASS:g} Å to be seen.",
            label="Gallery of particles",
        ),
        grid_block(_averages(sample, pixel_size), columns=3),
    ]
    path = f"jobs/{source.steps[name].folder.name}/particles.star"
    return Section(
        title=PARTICLE_STEPS[name],
        lead=f"{len(particles):,} particles are listed in {path}.",
        blocks=blocks,
    )


def _averages(sample: NDArray[np.float32], pixel_size: float) -> list[Html]:
    mean, spread = (
        tile_images(i[None], columns=1, pixel_size=pixel_size, low_pass=_LOW_PASS)
        for i in (sample.mean(axis=0), sample.std(axis=0))
    )
    panels = [
        (
            mean,
            f"Mean of {len(sample)} particles as they are, not aligned. A round blob in the "
            "middle says that picks are well centred.",
        ),
        (
            spread,
            "Standard deviation. Brighter in the middle is particles that differ; brighter at the "
            "rim is neighbours.",
        ),
        (
            spread_contrast(mean_power(sample)),
            "Mean power spectrum, logarithmic, zero frequency in the middle. Rings are Thon "
            "rings; a cross is damaged edges.",
        ),
    ]
    return [image_block(pixels, caption=text, label=text, is_sharp=True) for pixels, text in panels]
