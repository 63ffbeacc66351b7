"""Averages are found wherever a run, a selection or a stack keeps them, with what is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from classification_world import PIXEL, SIZE
from selection_world import COUNTS, MASK, averages, select

from cryopick.class2d.ordering_parameters import OrderingParameters
from cryopick.io.star import read_star
from cryopick.pipeline.class2d_order import order_class_averages
from cryopick.pipeline.class2d_order_source import read_averages_to_order
from cryopick.pipeline.class2d_parameters import MachineParameters

pytest_plugins = ("selection_world",)


def test_a_run_says_particles_and_mask(project):
    found = read_averages_to_order(Path("Class2D/job003"))

    np.testing.assert_array_equal(found.images, averages().numpy())
    assert found.counts.tolist() == list(COUNTS)
    assert found.mask_diameter == np.float32(MASK) or abs(found.mask_diameter - MASK) < 1e-3
    assert found.pixel_size == PIXEL
    assert found.numbers.tolist() == [1, 2, 3, 4, 5]
    assert found.images.shape[1:] == (SIZE, SIZE)


def test_the_counts_of_a_run_are_written_beside_its_averages(project):
    source = read_averages_to_order(Path("Class2D/job003"))

    values = order_class_averages(
        Path("Class2D/job003"),
        Path("ordered"),
        parameters=OrderingParameters(),
        compute=MachineParameters(threads=1),
    ).values

    (rows,) = read_star(Path("ordered/ordered_class_averages.star")).values()
    assert rows["rlnClassNumber"].tolist() == values["order"]
    shown = np.flatnonzero(source.has_density) + 1
    assert sorted(values["order"]) == shown.tolist()
    for number, count in zip(values["order"], rows["cryopickParticleCount"], strict=True):
        assert count == COUNTS[number - 1]


def test_a_selection_gives_the_classes_that_were_kept_by_their_numbers(project):
    kept = select(classes="2,5")["selected"]

    found = read_averages_to_order(Path("sel"))

    assert found.numbers.tolist() == kept
    np.testing.assert_array_equal(found.images, averages().numpy()[np.array(kept) - 1])
    assert "rlnPredictedClassScore" in found.columns
