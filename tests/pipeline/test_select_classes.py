"""Selecting classes of a run: files of RELION and ours, particles, averages, scores."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from classification_world import PIXEL, SIZE, shapes
from selection_world import COUNTS, MASK, OFF_CENTRE, averages, make_run, select

from cryopick.alignment.transform import transform_images
from cryopick.errors import DataError, OutputError, ParameterError, ProjectError, TableError
from cryopick.io.mrc import read_mrc, read_mrc_header, write_mrc
from cryopick.io.star import read_star, write_star
from cryopick.picking.template_parameters import TemplateParameters
from cryopick.pipeline.class2d_references import averages_of_run, read_references
from cryopick.pipeline.scored_classes import read_scored_classes
from cryopick.pipeline.show import read_images
from cryopick.pipeline.templates import read_templates
from cryopick.selection.class_features import class_inputs
from cryopick.tables.relion import read_particles
from cryopick.tables.relion_class2d import read_classification

pytest_plugins = ("selection_world",)

ALL = ("particles", "class_averages", "backup_selection", "class_scores", "rank_optimiser",
       "rank_model", "rank_data", "rank_sampling")  # fmt: skip
OCCUPIED = [1, 2, 4, 5]


def table(path):
    (rows,) = read_star(Path(path)).values()
    return rows


def contents(folder):
    """Bytes of each file, less the heads of stacks, which say when they were written."""
    files = [p for p in sorted(Path(folder).rglob("*")) if p.name not in ("job.json", ".lock")]
    return {p: p.read_bytes()[1024 * (p.suffix == ".mrcs") :] for p in files if p.is_file()}


def test_classes_at_the_threshold_and_above_are_kept_with_their_particles(project):
    everything = {c["number"]: c["score"] for c in select("all", minimum_score=0)["classes"]}
    known = sorted(s for s in everything.values() if s is not None)
    threshold = (known[1] + known[2]) / 2

    values = select(minimum_score=threshold)

    kept = [n for n in OCCUPIED if everything[n] >= threshold]
    assert everything[3] is None
    assert sorted(values["selected"]) == kept
    assert len(kept) == 2
    before = read_classification(Path("Class2D/job003")).particles.rows
    after = read_particles(Path("sel/particles.star")).rows
    expected = before[before["class_number"].isin(kept)]
    assert len(after) == values["n_particles_selected"] == sum(COUNTS[n - 1] for n in kept)
    pd.testing.assert_frame_equal(
        after, expected.reset_index(drop=True), check_like=True, check_dtype=False
    )
    assert values["n_particles"] == sum(COUNTS) + 10
    assert json.loads(Path("sel/result.json").read_text()) == values
    assert all((Path("sel") / name).exists() for name in values["files"])
    assert {p.name for p in Path("sel").iterdir()} - set(values["files"]) <= {"job.json", ".lock"}


def test_only_optics_groups_in_use_are_kept_and_keep_their_numbers(project):
    select(classes="5")
    select("both", classes="4,5")

    assert read_particles(Path("sel/particles.star")).optics["optics_group"].tolist() == [2]
    assert read_particles(Path("both/particles.star")).optics["optics_group"].tolist() == [1, 2]


def test_averages_come_best_first_and_are_templates_and_references(project):
    values = select(minimum_score=0)

    rows = table("sel/class_averages.star")
    scores = rows["rlnPredictedClassScore"].to_numpy()
    assert rows["rlnClassNumber"].tolist() == values["selected"]
    assert (np.diff(scores) <= 0).all()
    np.testing.assert_allclose(scores, [c["score"] for c in values["classes"][:4]], atol=1e-4)
    place = rows["rlnClassNumber"].to_numpy() - 1
    expected = averages().numpy()[place]
    np.testing.assert_allclose(rows["rlnClassDistribution"], np.array(COUNTS)[place] / 107)
    accuracy = dict(zip(rows["rlnClassNumber"], rows["rlnAccuracyRotations"], strict=True))
    assert (accuracy[1], accuracy[4]) == (4.0, 999.0)
    templates = read_templates(
        Path("sel/class_averages.star"), parameters=TemplateParameters(diameter=MASK)
    )
    np.testing.assert_array_equal(templates.images.numpy(), expected)
    assert templates.pixel_size == PIXEL
    for name in ("class_averages.star", "class_averages.mrcs", "rank_model.star"):
        n_classes = 5 if name.startswith("rank") else 4
        found = read_references(
            Path("sel") / name, n_classes=n_classes, box_size=SIZE, pixel_size=PIXEL
        )
        np.testing.assert_array_equal(found, averages() if n_classes == 5 else expected)


def test_names_are_found_from_where_the_selection_lies(project, tmp_path_factory, monkeypatch):
    away = tmp_path_factory.mktemp("away")
    shutil.copy("weights.npz", away)
    monkeypatch.chdir(away)

    select(source=project / "Class2D/job003", classes="2")
    select(project / "sel", source=project / "Class2D/job003", classes="2")

    particles = read_particles(Path("sel/particles.star"))
    assert all(Path(n).exists() for n in particles.rows["image"].unique())
    first = particles.rows.head(3)
    images = read_images(first["image"], first["image_index"], table=particles.source)
    stack = read_mrc(project / "Class2D/job003/stack.mrcs")
    np.testing.assert_array_equal(images, stack[first["image_index"]])
    ranked = read_classification(Path("sel/rank_optimiser.star"))
    assert Path(ranked.classes["image"][0]).exists()
    assert Path(ranked.particles.rows["image"][0]).exists()
    assert Path(table("sel/class_averages.star")["rlnReferenceImage"][0].split("@")[1]).exists()
    inside = read_particles(project / "sel/particles.star")  # as RELION wants it, started there
    assert set(inside.rows["image"]) == {"Class2D/job003/stack.mrcs"}


def test_the_ranked_run_is_the_run_with_scores(project):
    values = select(minimum_score=0)

    before = read_classification(Path("Class2D/job003"))
    after = read_classification(Path("sel/rank_optimiser.star"))
    score = {c["number"]: c["score"] for c in values["classes"]}
    expected = [-999.0 if score[n] is None else score[n] for n in range(1, 6)]
    np.testing.assert_allclose(after.classes["rlnClassScore"], expected, atol=1e-4)
    pd.testing.assert_frame_equal(after.classes.drop(columns="rlnClassScore"), before.classes)
    pd.testing.assert_frame_equal(after.particles.rows, before.particles.rows)
    pd.testing.assert_frame_equal(after.spectra, before.spectra)
    assert (after.sampling, after.model) == (before.sampling, before.model)
    np.testing.assert_array_equal(averages_of_run(after), averages_of_run(before))
    again = select("again", source="sel", minimum_score=0)  # a selection can be scored again
    assert [c["score"] for c in again["classes"]] == [c["score"] for c in values["classes"]]


def test_a_run_without_optimiser_is_ranked_without_one(project):
    for kind in ("optimiser", "sampling"):
        Path(f"Class2D/job003/run_it005_{kind}.star").unlink()

    files = select(minimum_score=0, mask_diameter=MASK)["files"]

    assert "rank_model.star" in files
    assert not Path("sel/rank_optimiser.star").exists()
    assert not {"rank_optimiser.star", "rank_sampling.star"} & set(files)


def test_a_saved_selection_gives_the_same_classes(project):
    by_hand = select(classes="4,1-2")
    assert table("sel/backup_selection.star")["rlnSelected"].tolist() == [1, 1, 0, 1, 0]

    for name, given in (("b", "sel"), ("c", "sel/backup_selection.star")):
        values = select(name, selection=Path(given))
        assert values["selected"] == by_hand["selected"]
        assert values["is_by_hand"]
        ours, theirs = Path(name, "particles.star"), Path("sel/particles.star")
        assert ours.read_bytes() == theirs.read_bytes()


def test_colours_of_relion_are_all_selected_and_another_number_of_classes_refused(project):
    write_star(Path("old.star"), {"": pd.DataFrame({"rlnSelected": [2, 0, 6, 0, 1]})})
    write_star(Path("short.star"), {"": pd.DataFrame({"rlnSelected": [1, 0]})})
    write_star(Path("other.star"), {"": pd.DataFrame({"rlnOther": [1, 0]})})

    assert sorted(select(selection=Path("old.star"))["selected"]) == [1, 5]  # class 3 is empty
    for name, words in (
        ("short", r"--selection short.star must have one row for each of the 5 classes; got 2"),
        ("other", r"--selection other.star must have a column rlnSelected; got none"),
    ):
        with pytest.raises(TableError, match=words):
            select("new", selection=Path(f"{name}.star"))
    with pytest.raises(ParameterError, match="selection must not come with --classes"):
        select("new", selection=Path("old.star"), classes="1")
    with pytest.raises(ParameterError, match="minimum_particles must not come with --selection"):
        select("new", selection=Path("old.star"), minimum_particles=3)
    assert not Path("new").exists()


def test_what_was_known_of_the_classes_comes_back(project):
    values = select(classes="2,5")
    select("scored", minimum_score=0)

    known = read_scored_classes(Path("sel"))
    assert known.is_by_hand
    assert not read_scored_classes(Path("scored")).is_by_hand
    assert known.is_selected.tolist() == [False, True, False, False, True]
    assert known.table["why"].tolist() == ["not chosen", "chosen", "empty", "not chosen", "chosen"]
    run = read_classification(Path("Class2D/job003"))
    inputs = class_inputs(
        averages_of_run(run), pixel_size=PIXEL, mask_diameter=MASK, classification=run
    )
    pd.testing.assert_frame_equal(known.inputs.features, inputs.features, check_dtype=False)
    np.testing.assert_array_equal(known.inputs.images, inputs.images)
    record = {c["number"]: c for c in values["classes"]}
    for _, row in known.table.iterrows():
        ours = record[row["class_number"]]
        if ours["score"] is None:
            assert np.isnan(row["score"])
            assert row["reasons"] == ""
        else:
            assert row["score"] == pytest.approx(ours["score"], abs=1e-4)
            assert [part.rsplit(" (", 1)[0] for part in row["reasons"].split("; ") if part] == [
                r["text"] for r in ours["reasons"]
            ]


def test_no_class_good_enough_is_one_sentence_but_the_scores_are_there_to_choose(project):
    with pytest.raises(DataError, match=r"at least 1\.00 for it to be kept; got 0\.\d\d for"):
        select(minimum_score=1)

    names = {p.name for p in Path("sel").iterdir()}
    assert {"class_scores.png", "class_scores.star", "backup_selection.star"} <= names
    assert not {"particles.star", "class_averages.star", "result.json"} & names
    assert not read_scored_classes(Path("sel")).is_selected.any()
    assert select(classes="2", overwrite=True)["n_particles_selected"] == COUNTS[1]


def test_a_choice_of_empty_classes_and_a_run_of_them_are_one_sentence(project):
    make_run(Path("empty"), empty=True)

    with pytest.raises(DataError, match="--classes must name a class with particles"):
        select(classes="3")
    with pytest.raises(DataError, match="must hold at least one class with particles; got 5 empty"):
        select("new", source="empty")
    assert not Path("new").exists()


def test_next_best_classes_are_added_for_the_number(project):
    order = [c["number"] for c in select("all", minimum_score=0)["classes"]]

    values = select(minimum_score=1, minimum_classes=2)

    assert values["selected"] == order[:2]
    whys = {c["number"]: c["why"] for c in values["classes"]}
    assert whys[order[0]] == "added to reach the number"
    assert whys[order[2]] == "below the threshold"
    most = select("most", minimum_score=1, minimum_particles=10**6)
    assert sorted(most["selected"]) == OCCUPIED
    assert any("Only 107 particles are in classes with a score" in w for w in most["warnings"])


def test_a_stack_of_averages_has_no_particles(project):
    write_mrc(Path("averages.mrcs"), averages().numpy(), pixel_size=PIXEL)

    values = select(source="averages.mrcs", minimum_score=0)

    assert sorted(values["selected"]) == OCCUPIED
    assert values["n_particles"] is None
    assert values["particles"] is None
    assert not list(Path("sel").glob("rank*"))
    assert not Path("sel/particles.star").exists()
    assert len(read_mrc(Path("sel/class_averages.mrcs"))) == 4
    assert table("sel/backup_selection.star")["rlnSelected"].tolist() == [1, 1, 0, 1, 1]
    assert read_mrc_header(Path("sel/class_averages.mrcs")).pixel_size == PIXEL
    listed = select("listed", source="sel/class_averages.star", minimum_score=0)
    assert listed["n_classes"] == 4
    np.testing.assert_array_equal(
        read_mrc(Path("listed/class_averages.mrcs")), read_mrc(Path("sel/class_averages.mrcs"))
    )
    for name, value in (("regroup", 3), ("minimum_particles", 5)):
        with pytest.raises(ParameterError, match=f"{name} must come with a run"):
            select("new", source="averages.mrcs", **{name: value})


def test_the_same_again_is_the_same_and_other_parameters_need_overwrite(project):
    select(minimum_score=0, regroup=3, recenter=True)
    before = contents("sel")

    select(minimum_score=0, regroup=3, recenter=True)
    assert contents("sel") == before
    with pytest.raises(ProjectError, match=r"minimum_score 0 instead of 0\.001"):
        select(minimum_score=0.001, regroup=3, recenter=True)
    assert contents("sel") == before

    write_mrc(Path("averages.mrcs"), averages().numpy(), pixel_size=PIXEL)
    select(source="averages.mrcs", minimum_score=0, overwrite=True)
    assert not Path("sel/particles.star").exists()  # nothing is left of the first selection


def test_the_run_itself_is_never_written_to(project):
    before = contents("Class2D")

    for overwrite in (False, True):
        with pytest.raises(OutputError, match="must be another folder than that of the input"):
            select("Class2D/job003", minimum_score=0, overwrite=overwrite)
    select(classes="1")
    with pytest.raises(OutputError, match="must be another folder than that of the input"):
        select(selection=Path("sel"), overwrite=True)

    assert contents("Class2D") == before


def test_files_of_another_program_are_refused(project):
    Path("sel").mkdir()
    Path("sel/particles.star").write_text("precious")

    with pytest.raises(ProjectError, match=r"particles.star of unknown origin"):
        select(classes="1")
    assert Path("sel/particles.star").read_text() == "precious"


def mean_of(particles, number):
    """Average the images of a class at the poses of the table."""
    rows = particles.rows[particles.rows["class_number"] == number]
    images = read_images(rows["image"], rows["image_index"], table=particles.source)
    moved = transform_images(
        torch.from_numpy(images),
        psi=torch.tensor(rows["psi"].to_numpy(), dtype=torch.float32),
        shift_x=torch.tensor(rows["shift_x"].to_numpy() / PIXEL, dtype=torch.float32),
        shift_y=torch.tensor(rows["shift_y"].to_numpy() / PIXEL, dtype=torch.float32),
    )
    return moved.mean(0).numpy()


def test_centred_averages_are_what_the_particles_average_to(project):
    select("plain", classes="1")
    select("centred", classes="1", recenter=True)

    off_centre = read_mrc(Path("plain/class_averages.mrcs")).reshape(SIZE, SIZE)
    centred = read_mrc(Path("centred/class_averages.mrcs")).reshape(SIZE, SIZE)
    before = read_particles(Path("plain/particles.star"))
    after = read_particles(Path("centred/particles.star"))
    truth = shapes()[2].numpy()  # its centre of mass is the middle
    assert np.abs(off_centre - truth).max() > 0.5
    np.testing.assert_allclose(centred, truth, atol=0.02)
    np.testing.assert_allclose(mean_of(before, 1), off_centre, atol=0.05)
    np.testing.assert_allclose(mean_of(after, 1), truth, atol=0.05)
    moved = after.rows[["shift_x", "shift_y"]] - before.rows[["shift_x", "shift_y"]]
    length = np.hypot(moved["shift_x"], moved["shift_y"]) / PIXEL
    np.testing.assert_allclose(length, np.hypot(*OFF_CENTRE), atol=0.05)
    np.testing.assert_array_equal(after.rows["psi"], before.rows["psi"])


def test_groups_of_like_scale_are_joined_to_equal_sizes(project):
    run = read_classification(Path("Class2D/job003"))

    values = select(minimum_score=0, regroup=3)

    rows = read_particles(Path("sel/particles.star")).rows
    sizes = rows["group_number"].value_counts()
    assert values["n_groups"] == 3
    assert sorted(sizes.index) == [1, 2, 3]
    largest = rows["micrograph"].value_counts().max()
    assert sizes.max() - sizes.min() <= 2 * largest
    assert (rows["rlnGroupName"] == [f"group_{g:03d}" for g in rows["group_number"]]).all()
    assert (rows.groupby("micrograph")["group_number"].nunique() == 1).all()
    scale = rows["micrograph"].map(run.groups.set_index("group_name")["scale_correction"])
    limits = scale.groupby(rows["group_number"]).agg(["min", "max"])
    assert (limits["max"].to_numpy()[:-1] < limits["min"].to_numpy()[1:]).all()


def test_more_groups_than_micrographs_leave_each_alone(project):
    assert select(minimum_score=0, regroup=1000)["n_groups"] == 9
    assert select("one", minimum_score=0, regroup=1)["n_groups"] == 1


def test_what_makes_scores_doubtful_is_said(project):
    make_run(Path("no_ctf"), corrects_ctf=False)

    plain = select(classes="1")["warnings"]
    doubtful = select("new", source="no_ctf", relative_threshold=0.99)["warnings"]

    assert plain == []
    assert "did not correct for the CTF" in doubtful[0]


@pytest.mark.parametrize("mask_diameter", [0.0, -5.0, float("nan")])
def test_a_mask_without_width_is_refused(project, mask_diameter):
    with pytest.raises(ParameterError, match="mask_diameter must be above 0 A"):
        select(mask_diameter=mask_diameter)


@pytest.mark.data
def test_a_run_of_relion_5_is_selected_from(test_data, project):
    source = test_data / "relion5" / "Class2D" / "job003"
    run = read_classification(source)

    values = select(source=source, classes="4,9,15")

    theirs = read_star(source / "run_it025_data.star")["particles"]
    ours = read_star(Path("sel/particles.star"))["particles"]
    assert set(theirs.columns) == set(ours.columns)
    expected = theirs[theirs["rlnClassNumber"].isin([4, 9, 15])].reset_index(drop=True)
    pd.testing.assert_frame_equal(ours[theirs.columns], expected, check_dtype=False)
    counts = theirs["rlnClassNumber"].value_counts()
    for record in values["classes"]:
        assert record["n_particles"] == counts.get(record["number"], 0)
    averages_of = dict(
        zip(values["selected"], read_mrc(Path("sel/class_averages.mrcs")), strict=True)
    )
    for number, average in averages_of.items():
        np.testing.assert_array_equal(average, averages_of_run(run)[number - 1])
    ranked = read_star(Path("sel/rank_model.star"))["model_classes"]["rlnReferenceImage"]
    assert Path(ranked[0].split("@")[1]).samefile(source / "run_it025_classes.mrcs")  # it was moved
    assert "rlnTomoTomogramsFile" in read_star(Path("sel/rank_optimiser.star"))["optimiser_general"]


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_refine") is None, reason="no relion on PATH")
def test_relion_goes_on_with_the_particles_and_averages(project):
    select(classes="1,2,5", regroup=2, recenter=True)
    Path("next").mkdir()

    command = (
        "relion_refine --i sel/particles.star --ref sel/class_averages.star --o next/run --K 3"
        f" --iter 1 --particle_diameter {MASK} --norm --scale --zero_mask --flatten_solvent"
        " --skip_align --tau2_fudge 2 --pool 30 --j 1 --random_seed 1"
        " --dont_combine_weights_via_disc"
    )
    for words in (command, "relion_star_handler --i sel/particles.star --o kept.star"):
        done = subprocess.run(words.split(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    before = read_particles(Path("sel/particles.star")).rows
    numbers = table("sel/class_averages.star")["rlnClassNumber"].tolist()
    theirs = read_classification(Path("next"))
    assert len(theirs.groups) == 2
    after = theirs.particles.rows.set_index("image_index").loc[before["image_index"]]
    found = np.array(numbers)[after["class_number"].to_numpy() - 1]
    assert (found == before["class_number"]).mean() > 0.95  # at the poses that moved with them
    assert len(read_particles(Path("kept.star"))) == len(before)
