"""The report of a run: what it says is what the files of the jobs hold."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from run_world import ALONE, GENERAL, NOT_OF_CTF, TABLE, changed, run, simulate

from cryopick.io.mrc import write_mrc
from cryopick.picking.log_parameters import LogParameters
from cryopick.pipeline.pickers import LogPicker
from cryopick.pipeline.picking import pick_micrographs
from cryopick.pipeline.picking_files import read_picking
from cryopick.pipeline.report_classes import classes_section
from cryopick.pipeline.report_sample import choose_over_range
from cryopick.pipeline.report_source import ReportSource
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.run_report import write_run_report
from cryopick.pipeline.runner import StepDone
from cryopick.pipeline.scored_classes import write_scored_classes
from cryopick.selection.class_choice import choose_by_score
from cryopick.selection.class_features import FEATURES
from cryopick.selection.class_scores import IMAGE_SIZE, ClassInputs, ClassScores, Reason
from cryopick.selection.select_classes_parameters import SelectClassesParameters
from cryopick.tables.model import Micrographs
from cryopick.tables.relion import read_micrographs, read_particles, write_micrographs

CUT = "sim_00004.mrc"
BARE = "data/bare.star"
STORY = RunParameters(
    diameter=180.0, subset=3, first_classes=4, classes=4, coarse_pixel_size=6.0, training_steps=1
)
SECTIONS = (
    "Numbers",
    "Fields",
    "CTF",
    "Training",
    "Scores",
    "First classes",
    "Final classes",
    "Selected particles",
    "Refused",
    "Commands",
)
FLOW = re.compile(
    r'<th scope="row">([^<]+)</th><td class="bar">.*?</td>'
    r'<td class="number">([\d,]+)</td><td class="lost">([^<]*)</td>'
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A whole run over four fields without CTF, one of which is cut short."""
    folder = tmp_path_factory.mktemp("told")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # tables name files from where the program was started
        simulate(Path("data"), number=4, particles=40)
        cut = Path("data/micrographs", CUT)
        cut.write_bytes(cut.read_bytes()[:400_000])
        table = read_micrographs(Path(TABLE))
        kept = [c for c in table.rows if c not in NOT_OF_CTF]
        bare = Micrographs(rows=table.rows[kept], optics=table.optics, source=table.source)
        write_micrographs(Path(BARE), bare)
        return folder, run(BARE, parameters=STORY)


@pytest.fixture
def told(world, monkeypatch):
    """That run, whose files nobody may change, from where it was started."""
    folder, result = world
    monkeypatch.chdir(folder)
    return result


@pytest.fixture
def copied(told, tmp_path):
    """The same run, moved; its files may be changed."""
    shutil.copytree("project", tmp_path, symlinks=True, dirs_exist_ok=True)
    steps = tuple(replace(s, folder=tmp_path / "jobs" / s.folder.name) for s in told.steps)
    return replace(told, folder=tmp_path, steps=steps)


def write_again(result):
    """Write the report anew; give its text and what could not be drawn."""
    path = result.folder / "report.html"
    problems = write_run_report(
        path,
        title="t",
        table=result.folder / "micrographs.star",
        parameters=STORY,
        steps=result.steps,
        halted=result.halted,
    )
    return path.read_text(), problems


def titles(page):
    return re.findall(r"<h2>([^<]+)</h2>", page)


def flows(page):
    """Rows of each group: name, kept, losses."""
    found = []
    for body in re.findall(r"<tbody>.*?</tbody>", page.split('class="flow"')[1]):
        rows = [
            (name, int(kept.replace(",", "")), [int(n) for n in re.findall("\u2212(\\d+)", lost)])
            for name, kept, lost in FLOW.findall(body)
        ]
        found += [rows] if rows else []
    return found


def folder_of(result, name):
    return next(s.folder for s in result.steps if s.name == name)


def n_picks(folder):
    return sum(m.n_picks for m in read_picking(folder).picked)


def test_all_sections_stand_in_reading_order(told):
    page = told.report.read_text()

    assert told.halted is None
    assert told.report_problems == []
    assert titles(page) == list(SECTIONS)


def test_the_flow_of_each_kind_adds_up(told):
    groups = flows(told.report.read_text())

    assert len(groups) == 3
    for rows in groups:
        for (_, before, _), (name, kept, losses) in itertools.pairwise(rows):
            assert kept == before - sum(losses), name
    assert "not accounted for" not in told.report.read_text()


def test_the_flow_says_what_the_files_hold(told):
    micrographs, first, final = (
        {name: kept for name, kept, _ in rows} for rows in flows(told.report.read_text())
    )

    assert micrographs["Given"] == len(read_micrographs(Path(BARE)).rows) == 4
    assert micrographs["CTF estimated"] == micrographs["Searched"] == 3
    for flow, prefix in ((first, "first_"), (final, "")):
        picks = folder_of(told, f"{prefix}picks")
        listed = [p.read_text() for p in picks.rglob("*_autopick.star")]
        rows = sum(len(re.findall(r"^\s*[\d.]+ +[\d.]+ ", t, re.MULTILINE)) for t in listed)
        assert flow["Picked"] == rows == n_picks(picks)
        extracted = read_particles(folder_of(told, f"{prefix}particles") / "particles.star")
        assert flow["Extracted"] == len(extracted)
        data = max(folder_of(told, f"{prefix}classes").glob("run_it*_data.star"))
        assert flow["In a class"] == (read_particles(data).rows["class_number"] > 0).sum()
        selected = read_particles(folder_of(told, f"{prefix}selection") / "particles.star")
        assert flow["In good classes"] == len(selected)
    learned = json.loads((folder_of(told, "training") / "result.json").read_text())
    assert first["Learned from"] == learned["n_train_labels"] + learned["n_held_out_labels"]


def test_each_step_has_its_time_and_its_folder(told):
    page = told.report.read_text()

    table = page[page.index('<table class="steps">') :].split("</table>")[0]
    total = 0.0
    for step in told.steps:
        seconds = json.loads((step.folder / "step.json").read_text())["seconds"]
        total += seconds
        assert f"<td>jobs/{step.folder.name}</td>" in table
        assert f'<td class="number">{seconds:,.1f}</td>' in table
    assert f'<td>In all</td><td>\u2013</td><td class="number">{total:,.1f}</td>' in table


def test_the_same_fields_are_shown_with_first_and_final_picks(told):
    page = told.report.read_text()

    n_first, n_final = (n_picks(folder_of(told, n)) for n in ("first_picks", "picks"))
    assert page.count('<figure class="field">') == 6
    assert page.count('<image id="field-') == page.count('<use href="#field-') == 3  # held once
    assert page.count("<circle") == n_first + n_final
    for words, count in (("First picks", n_first), ("Final picks", n_final)):
        said = [int(n) for n in re.findall(rf"{words}: (\d+) picks?,", page)]
        assert sum(said) == count


def test_classes_stand_with_score_and_reasons_as_text(told):
    page = told.report.read_text()

    for name, title in (("first_selection", "First classes"), ("selection", "Final classes")):
        part = page[page.index(f"<h2>{title}</h2>") :].split("</section>")[0]
        result = json.loads((folder_of(told, name) / "result.json").read_text())
        occupied = [c for c in result["classes"] if c["n_particles"]]
        assert part.count("<figure") == len(occupied)
        assert part.count('class="class out"') == sum(not c["is_selected"] for c in occupied)
        for one in occupied:
            assert f"<span>class {one['number']}</span>" in part
            for reason in one["reasons"][:2]:
                assert reason["text"].replace("'", "&#x27;") in part


def test_what_was_refused_is_listed_with_its_reason(told):
    page = told.report.read_text()

    refused = page[page.index("<h2>Refused</h2>") :].split("</section>")[0]
    assert re.search(rf"<td>CTF</td><td>[^<]*{CUT}</td><td>[^<]*must hold[^<]*</td>", refused)
    assert "1 micrograph was refused" in page


def test_every_job_stands_with_its_command_and_parameters(told):
    page = told.report.read_text()

    commands = page[page.index("<h2>Commands</h2>") :]
    assert commands.count('<div class="command">') == 1 + len(told.steps)
    for step in told.steps:
        record = json.loads((step.folder / "step.json").read_text())
        assert f"{step.number}. " in commands
        assert " ".join(record["command"].split()[1:])[:40] in commands
    assert "<dt>training steps</dt><dd>1</dd>" in commands
    box = json.loads((folder_of(told, "particles") / "job.json").read_text())["parameters"]
    assert f"<dt>box size</dt><dd>{box['box_size']} px</dd>" in commands


def test_the_page_is_one_well_formed_file_that_needs_no_network(told):
    page = told.report.read_text()

    links = re.findall(r'(?:href|src)="([^"]{0,30})', page)
    assert all(link.startswith(("#", "data:image/")) for link in links)
    anchors = re.findall(r'<(?:section|image) id="([^"]+)"', page)
    assert len(anchors) == len(set(anchors))
    parser = Balance()
    parser.feed(page)
    assert parser.open == []


class Balance(HTMLParser):
    """Checks that every element is closed in order."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_results_of_earlier_runs_are_told_from_their_folders(copied):
    before = (copied.folder / "report.html").read_text()

    again = run(BARE, parameters=STORY, out=copied.folder)

    assert not any(step.is_new for step in again.steps)
    after = again.report.read_text()
    assert titles(after) == titles(before)
    assert flows(after) == flows(before)
    assert after.count("<circle") == before.count("<circle")


def test_a_run_that_halts_says_why_and_shows_the_classes_it_scored(copied):
    halted = run(BARE, parameters=changed(STORY, minimum_score=1.0), out=copied.folder)

    page = halted.report.read_text()
    assert not any(step.is_new for step in halted.steps)
    assert halted.halted.step == "first_selection"
    assert halted.report_problems == []
    alarm = re.search(r'<p class="alarm" role="alert">([^<]+)</p>', page)[1]
    assert "must be at least 1.00 for it to be kept" in alarm
    assert titles(page) == [
        "Numbers",
        "Fields",
        "CTF",
        "Scores",
        "First classes",
        "First particles",
        "Refused",
        "Commands",
    ]
    part = page[page.index("<h2>First classes</h2>") :].split("</section>")[0]
    assert part.count('<figure class="class out">') == part.count("<figure") > 0


def test_a_run_without_training_leaves_out_what_it_has_not_done(told, tmp_path):
    general = run(TABLE, parameters=GENERAL, out=tmp_path / "general")

    page = general.report.read_text()
    assert general.report_problems == []
    assert titles(page) == [
        "Numbers",
        "Fields",
        "Scores",
        "Final classes",
        "Selected particles",
        "Refused",
        "Commands",
    ]
    assert len(flows(page)) == 2
    assert page.count("<circle") == n_picks(folder_of(general, "picks"))


def test_no_pick_at_all_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(3).normal(size=(2, 256, 256)).astype(np.float32)
    for name, pixels in zip("ab", noise, strict=True):
        write_mrc(Path(f"{name}.mrc"), pixels, pixel_size=4.0)
    parameters = changed(GENERAL, until="picks", ctf="ignore")

    nothing = run("a.mrc", "b.mrc", parameters=parameters)

    page = nothing.report.read_text()
    assert n_picks(folder_of(nothing, "picks")) == 0
    assert nothing.report_problems == []
    assert "no micrograph gave a pick" in page
    assert flows(page)[0][-1] == ("With picks", 0, [2])
    assert "<circle" not in page


@pytest.mark.parametrize(
    ("step", "name", "lost"),
    [
        ("picks", "summary.star", ["Fields", "Scores"]),
        ("first_selection", "class_images.mrcs", ["First classes"]),
        ("selection", "particles.star", ["Selected particles"]),
        ("ctf", "micrographs_ctf.star", ["Fields", "CTF"]),
        ("training", "training.png", []),
    ],
)
def test_a_missing_file_costs_its_sections_only_and_they_are_named(copied, step, name, lost):
    (folder_of(copied, step) / name).unlink()

    page, problems = write_again(copied)

    assert titles(page) == [t for t in SECTIONS if t not in lost]
    assert len(problems) == len(lost)
    for title, problem in zip(lost, problems, strict=True):
        assert f"section {title.removeprefix('Selected ').lower()} " in problem.lower()
        assert name in problem
        assert name in page.split("<main>")[0]  # a remark


def test_an_estimated_diameter_stands_with_its_chart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    simulate(Path("data"), number=1, particles=12, side=320)

    result = run(TABLE, parameters=RunParameters(until="diameter"))

    page = result.report.read_text()
    found = json.loads((folder_of(result, "diameter") / "diameter.json").read_text())
    assert titles(page) == ["Numbers", "Diameter", "Commands"]
    part = page[page.index("<h2>Diameter</h2>") :].split("</section>")[0]
    low, best, high = (round(found[f"{n}diameter"]) for n in ("min_", "", "max_"))
    assert f"Particles of {best} Å explain the micrographs best; from {low} to {high} Å" in part
    assert "<svg" in part
    assert f'<dd class="value">{best} <span class="unit">Å</span></dd>' in page


def test_a_picking_is_read_back_from_its_folder_as_it_was(told, tmp_path):
    picker = LogPicker(parameters=LogParameters(min_diameter=150, max_diameter=210))
    made = pick_micrographs([BARE], tmp_path, picker=picker, compute=ALONE)

    found = read_picking(tmp_path)

    assert len(found.picked) == 3
    assert found.failed == made.failed
    for one, other in zip(found.picked, made.picked, strict=True):
        assert one.micrograph == other.micrograph
        assert (one.n_picks, one.n_peaks, one.ctf) == (other.n_picks, other.n_peaks, other.ctf)
        assert one.threshold == pytest.approx(other.threshold)
        assert one.mean_fom == pytest.approx(other.mean_fom)


def test_the_page_does_not_grow_with_the_number_of_fields(told, tmp_path):
    copies = [str(tmp_path / f"copy_{n:02d}.mrc") for n in range(15)]
    for number, copy in enumerate(copies):
        os.link(f"data/micrographs/sim_{number % 3 + 1:05d}.mrc", copy)
    few, many = (
        run(*paths, parameters=changed(GENERAL, until="picks", ctf="ignore"), out=tmp_path / out)
        for paths, out in ((copies[:6], "few"), (copies, "many"))
    )

    sizes = [r.report.stat().st_size for r in (few, many)]
    pictures = [len(re.findall(r"<image w", r.report.read_text())) for r in (few, many)]
    assert pictures == [6, 6]
    assert sizes[1] < 1.2 * sizes[0] < 1.5e6


@pytest.mark.parametrize(("count", "shown"), [(60, 60), (61, 60), (400, 60)])
def test_of_many_classes_the_best_and_the_worst_are_shown(count, shown, tmp_path):
    rng = np.random.default_rng(count)
    values = rng.permutation(np.linspace(0.01, 0.99, count))
    features = pd.DataFrame({"class_number": np.arange(1, count + 1), "particle_count": 7.0})
    features = features.assign(**dict.fromkeys(FEATURES, 1.0))
    images = rng.normal(size=(count, IMAGE_SIZE, IMAGE_SIZE)).astype(np.float32)
    inputs = ClassInputs(features=features, images=images)
    reasons = ((Reason(group="look", effect=-0.25, text="1 (of 2); looks odd"),),) * count
    scores = ClassScores(score=values, purity=values, quality=values, reasons=reasons)
    counts = features["particle_count"].to_numpy(np.float64)
    choice = choose_by_score(values, counts, SelectClassesParameters(minimum_score=0.5))
    write_scored_classes(tmp_path, inputs, scores, choice)
    step = StepDone(name="selection", number=1, folder=tmp_path, facts={}, seconds=1.0, is_new=True)
    source = ReportSource(
        table=tmp_path / "t.star",
        parameters=RunParameters(),
        steps={"selection": step},
        halted=None,
    )

    section = classes_section(source, "selection", title="Final classes")

    html = "".join(section.blocks)
    numbers = [int(n) for n in re.findall(r"<span>class (\d+)</span>", html)]
    order = list(np.argsort(-values) + 1)
    kept = order if count == shown else order[: shown // 2] + order[-shown // 2 :]
    assert numbers == kept
    assert ("30 best and the 30 worst" in section.lead) == (count > shown)
    assert f"of {count:,} classes" in html
    assert html.count("\u2212 1 (of 2); looks odd") == shown
    assert len(html) < 600_000


@pytest.mark.parametrize(("count", "most"), [(1, 12), (5, 12), (12, 12), (1000, 12), (3, 2)])
def test_fields_are_chosen_from_the_fullest_to_the_emptiest(count, most):
    counts = np.random.default_rng(count).permutation(count)

    chosen = counts[choose_over_range(counts.tolist(), most=most)]

    assert len(chosen) == min(count, most)
    assert chosen[0] == count - 1
    assert chosen[-1] == 0
    assert (np.diff(chosen) < 0).all()
