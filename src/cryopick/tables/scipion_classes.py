"""Scipion's set of 2D classes: an SQLite file with the classes and the members of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cryopick.io.scipion_sqlite import ScipionItems, write_scipion_set
from cryopick.tables.classification import Classification
from cryopick.tables.scipion import scipion_particles

__all__ = ["write_scipion_classes"]


def write_scipion_classes(path: Path, classification: Classification) -> None:
    """Write a SetOfClasses2D: averages as representatives, and the members of each class.

    Parameters
    ----------
    path
        The ``.sqlite`` file.
    classification
        Particles without a class are in none. A class without members is left out, as Scipion
        cannot show one.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    particles = classification.particles
    number_of = particles.rows["class_number"].to_numpy(np.int64)
    is_full = np.isin(classification.classes["class_number"].to_numpy(np.int64), number_of)
    classes = classification.classes[is_full]
    numbers = [int(n) for n in classes["class_number"]]
    everything, properties = scipion_particles(particles)
    nested = {
        f"Class{number:03d}_": _members(everything, np.flatnonzero(number_of == number))
        for number in numbers
    }
    sizes = [content.count for content in nested.values()]
    pixel_size = classification.model.pixel_size
    kinds = [
        ("_size", "Integer"),
        ("_mapperPath", "CsvList"),
        ("_samplingRate", "Float"),
        ("_alignment", "String"),
        ("_representative", "Particle"),
        ("_representative._index", "Integer"),
        ("_representative._filename", "String"),
        ("_representative._samplingRate", "Float"),
    ]
    values: dict[str, list[Any]] = {
        "_size": sizes,
        "_mapperPath": [f"{path.name}, {prefix}" for prefix in nested],
        "_samplingRate": [properties["_samplingRate"]] * len(numbers),
        "_alignment": [properties["_alignment"]] * len(numbers),
        "_representative._index": (classes["image_index"] + 1).tolist(),
        "_representative._filename": [str(n) for n in classes["image"]],
        "_representative._samplingRate": [pixel_size] * len(numbers),
    }
    write_scipion_set(
        path,
        set_class="SetOfClasses2D",
        items=ScipionItems(
            item_class="Class2D",
            attributes=kinds,
            values=values,
            count=len(numbers),
            numbers=numbers,
        ),
        properties={
            **properties,
            "_representatives": True,
            "_imagesPointer": "",
            "_samplingRate": properties["_samplingRate"],
        },
        nested=nested,
    )


def _members(everything: ScipionItems, places: np.ndarray) -> ScipionItems:
    """Take some of the particles, with the ids that they have among all."""
    chosen = places.tolist()
    return ScipionItems(
        item_class=everything.item_class,
        attributes=everything.attributes,
        values={name: [column[i] for i in chosen] for name, column in everything.values.items()},
        count=len(chosen),
        numbers=[i + 1 for i in chosen],
    )
