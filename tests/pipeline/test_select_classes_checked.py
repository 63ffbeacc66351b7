"""What `select classes` checks of its input, and what it warns of."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from classification_world import PIXEL, SIZE
from selection_world import MASK, averages, make_weights, select

from cryopick.errors import DataError, FormatError, ParameterError, TableError
from cryopick.io.mrc import write_mrc
from cryopick.io.star import write_star
from cryopick.pipeline.select_classes_source import ClassSource
from cryopick.pipeline.select_classes_warnings import warnings_of
from cryopick.selection.class_choice import choose_by_score
from cryopick.selection.class_scores import ClassScores
from cryopick.selection.select_classes_parameters import SelectClassesParameters
from cryopick.tables.relion_class2d import read_classification, write_classification

pytest_plugins = ("selection_world",)

PARTICLES = "If these are particles, classify them first"


def run_with_counts(folder: str, counts: list[int]) -> None:
    """The run of the project, whose particles belong to classes 1 to 5 as often as said."""
    shutil.copytree("Class2D/job003", folder)
    run = read_classification(Path(folder))
    number = np.zeros(len(run.particles), int)
    number[: sum(counts)] = np.repeat(np.arange(1, 6), counts)
    run.particles.rows["class_number"] = number
    write_classification(Path(folder) / "run_it005", run)


def test_a_selection_of_another_run_with_as_many_classes_is_refused(project):
    select("first", classes="2")
    run_with_counts("other", [40, 30, 0, 13, 24])

    with pytest.raises(
        TableError,
        match=r"--selection first/backup_selection\.star must be of this run; got one whose class "
        r"4 has 12 particles, not 13\.",
    ):
        select(source="other", selection=Path("first"))
    assert not Path("sel").exists()
    assert select(selection=Path("first"))["warnings"] == []


def test_a_selection_that_nothing_tells_of_is_taken_with_a_warning(project):
    write_star(Path("old.star"), {"": pd.DataFrame({"rlnSelected": [1, 1, 0, 0, 0]})})

    (warning,) = select(selection=Path("old.star"))["warnings"]

    assert warning == (
        "It could not be checked that old.star was made for Class2D/job003; look at the gallery."
    )


def test_tiny_classes_that_are_kept_and_empty_ones_that_are_not_are_named(project):
    run_with_counts("tiny", [40, 3, 0, 9, 0])

    both = select("both", source="tiny", classes="1-5")["warnings"]
    one = select("one", source="tiny", classes="1,4")["warnings"]

    little = "kept with fewer than 10 particles; an average of so few says little."
    assert both == [
        "Classes 3 and 5 are empty and are left out.",
        f"Classes 2 and 4 are {little}",
    ]
    assert one == [f"Class 4 is {little}"]


def test_a_mask_larger_than_the_box_is_refused_and_another_one_is_told(project):
    box = SIZE * PIXEL
    with pytest.raises(
        ParameterError, match=f"mask_diameter must be at most {box:.4g} A, the box of the averages;"
    ):
        select(mask_diameter=1.1 * box)
    assert not Path("sel").exists()

    assert select("same", classes="1", mask_diameter=MASK)["warnings"] == []
    (warning,) = select("full", classes="1", mask_diameter=box)["warnings"]
    assert warning == (
        f"The mask is {box:.4g} A wide, as given, instead of {MASK:.4g} A of the run."
    )


def test_a_map_is_not_taken_for_a_stack(project):
    cube = np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32)
    write_mrc(Path("cube.mrc"), cube, pixel_size=PIXEL)
    write_mrc(Path("slab.mrc"), cube[:7], pixel_size=PIXEL)  # a map too, says its header
    write_mrc(Path("cube.mrcs"), cube, pixel_size=PIXEL)

    for name, depth in (("cube", 20), ("slab", 7)):
        with pytest.raises(
            FormatError,
            match=rf"{name}\.mrc must hold class averages; got a 3D map of 20 x 20 x {depth} vox",
        ):
            select(source=f"{name}.mrc", minimum_score=0)
    assert select(source="cube.mrcs", minimum_score=0)["n_classes"] == 20


def test_a_file_of_another_kind_is_told_what_is_read(project):
    Path("notes.txt").write_text("nothing here")
    Path("cut.mrcs").write_bytes(b"\0" * 100)

    with pytest.raises(
        FormatError,
        match=r"notes\.txt must be a folder or file of a 2D classification, or an MRC stack of "
        r"averages; got a \.txt file",
    ):
        select(source="notes.txt")
    with pytest.raises(FormatError, match=r"cut\.mrcs must begin with a header"):
        select(source="cut.mrcs")


def test_a_stack_without_good_images_may_hold_particles(project):
    write_mrc(Path("stack.mrcs"), averages().numpy(), pixel_size=PIXEL)
    poor = make_weights(Path("poor.npz"), offset=-60.0)

    with pytest.raises(DataError, match=rf"add --overwrite\. {PARTICLES}\.$"):
        select("none", source="stack.mrcs", weights=poor)
    kept = select("all", source="stack.mrcs", weights=poor, minimum_score=0)
    of_run = select("run", weights=poor, minimum_score=0)

    assert max(c["score"] or 0 for c in kept["classes"]) < 0.5
    assert kept["warnings"][-1] == f"No score reaches 0.5. {PARTICLES}."
    assert not any(PARTICLES in sentence for sentence in of_run["warnings"])


@pytest.mark.parametrize(("count", "is_told"), [(2000, False), (2001, True)])
def test_a_stack_of_very_many_images_may_hold_particles(count, is_told):
    good = np.full(count, 0.9)
    scores = ClassScores(score=good, purity=good, quality=good, reasons=((),) * count)
    source = ClassSource(
        path=Path("many.mrcs"),
        averages=np.ones((count, 16, 16), np.float32),
        pixel_size=None,
        mask_diameter=None,
        run=None,
    )
    parameters = SelectClassesParameters()
    choice = choose_by_score(good, source.particle_count, parameters)

    told = warnings_of(source, scores, choice, parameters, None, None)

    assert told == ([f"many.mrcs holds 2,001 images. {PARTICLES}."] if is_told else [])
