"""What a user may get wrong, and disks that take nothing more."""

from __future__ import annotations

import contextlib
import json
import re
import resource
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_world import (
    ALONE,
    BOX,
    PIXEL_SIZE,
    RUN,
    contents,
    extract,
    leftovers,
    make_field,
    pick,
    refused,
    run,
    write_table,
)

from cryopick.io.mrc import read_mrc, write_mrc
from cryopick.io.star import read_star
from cryopick.pipeline.job import Job
from cryopick.tables.relion import read_particles

pytest_plugins = ("command_world",)


COMMANDS = [pick, run]


# --- micrographs and their tables


@pytest.mark.parametrize("command", [pick, extract, run])
def test_a_missing_pixel_size_is_asked_for(project, cryopick, command):
    pick(cryopick)
    write_table(
        project / "none.star",
        ["fields/f0.mrc 1"],
        optics=("og1 1",),
        optics_columns=("rlnOpticsGroupName", "rlnOpticsGroup"),
    )

    ended = command(cryopick, micrographs="none.star", out="new")

    refused(ended, "none.star must give the pixel size", "Give it with --pixel-size")
    assert not Path("new").exists()


def test_a_pixel_size_given_by_hand_stands_in(project, cryopick):
    write_mrc(Path("bare.mrc"), read_mrc(Path("fields/f0.mrc")), pixel_size=0.0)
    refused(pick(cryopick, micrographs="bare.mrc"), "pixel_size must be known", "bare.mrc")

    assert pick(cryopick, "--pixel-size", PIXEL_SIZE, micrographs="bare.mrc").code == 0


@pytest.mark.parametrize("size", ["0", "-1.5", "nan", "inf"])
@pytest.mark.parametrize("command", [pick, extract, run])
def test_a_pixel_size_that_is_no_length_is_refused(project, cryopick, command, size):
    pick(cryopick)
    refused(command(cryopick, "--pixel-size", size, out="new"), "pixel_size must be above 0 A")

    write_table(project / "odd.star", ["fields/f0.mrc 1"], optics=(f"og1 1 {size}",))
    if size != "inf":
        ended = command(cryopick, micrographs="odd.star", out="new")
        refused(ended, "odd.star must give the pixel size", f"got {size} A")


@pytest.mark.parametrize("command", [pick, run])
def test_micrographs_named_twice_are_refused_and_the_remedy_works(project, cryopick, command):
    write_table(project / "twice.star", [f"fields/f{n}.mrc 1" for n in (0, 1, 0)])

    refused(command(cryopick, micrographs="twice.star"), "each micrograph once", "fields/f0 2")

    words = ("--remove-duplicates", "--out", "once")
    assert cryopick("select", "subset", "twice.star", *words).code == 0
    assert pick(cryopick, micrographs="once/micrographs.star").code == 0


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("empty.star", "", ("empty.star, line 1", "data_ block")),
        ("words.star", "hello world\n", ("words.star, line 1", "data_ block")),
        (
            "nocolumn.star",
            "data_micrographs\n\nloop_\n_rlnDefocusU #1\n10000\n\n",
            ("rlnMicrographName",),
        ),
        (
            "norows.star",
            "data_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnMicrographPixelSize #2\n\n",
            ("at least one micrograph",),
        ),
        (
            "ragged.star",
            "data_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnX #2\na.mrc 1\nb.mrc\n\n",
            ("ragged.star, line 7",),
        ),
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_broken_table_is_refused(project, cryopick, command, name, text, parts):
    Path(name).write_text(text)

    refused(command(cryopick, "--pixel-size", "2", micrographs=name), *parts)


def test_a_table_cut_anywhere_within_its_rows_is_refused(project, cryopick):
    text = Path("mics.star").read_text().rstrip("\n")
    start = text.index("fields/f1")
    for length in range(start + 1, len(text)):
        if text[length - 1] != "\n":  # a table cut after a whole row is a shorter table
            Path("cut.star").write_text(text[:length])
            refused(pick(cryopick, micrographs="cut.star", out="new"), "cut.star, line")


def test_columns_that_are_unknown_are_carried(project, cryopick):
    write_table(
        project / "more.star",
        [f"fields/f{n}.mrc 1 word{n} 2.5" for n in range(3)],
        columns=("rlnMicrographName", "rlnOpticsGroup", "myFooBar", "rlnBeamTiltClass"),
    )
    assert pick(cryopick, micrographs="more.star").code == 0

    words = ("--n-subsets", "3", "--out", "part")
    assert cryopick("select", "subset", "more.star", *words).code == 0

    rows = read_star(Path("part/micrographs_split2.star"))["micrographs"]
    assert rows["myFooBar"].tolist() == ["word1"]
    assert rows["rlnBeamTiltClass"].astype(float).tolist() == [2.5]


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("none*.mrc", ("none*.mrc must fit at least one file",)),
        ("gone.star", ("gone.star must be a readable file", "no such file")),
        ("gone.mrc", ("gone.mrc must be a readable file", "no such file")),
        ("mics.txt", ("mics.txt must be a STAR file or an image", ".txt")),
        ("hollow", ("hollow must hold images",)),
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_inputs_that_are_not_there_are_named(project, cryopick, command, given, parts):
    Path("mics.txt").write_text("fields/f0.mrc")
    Path("hollow").mkdir()

    refused(command(cryopick, micrographs=given), *parts)
    assert not Path("pick").exists()
    assert not Path("project").exists()


@pytest.fixture
def bad_fields(project):
    """Micrographs that cannot be worked on beside one that can; returns the bad ones' names."""
    good = read_mrc(Path("fields/f0.mrc"))
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        pixels = good.copy()
        pixels[7, 9] = value
        write_mrc(Path(f"{name}.mrc"), pixels, pixel_size=PIXEL_SIZE)
    write_mrc(Path("constant.mrc"), np.full_like(good, 5), pixel_size=PIXEL_SIZE)
    write_mrc(Path("tiny.mrc"), np.eye(2, dtype=np.float32), pixel_size=PIXEL_SIZE)
    write_mrc(Path("movie.mrcs"), np.stack([good, good]), pixel_size=PIXEL_SIZE)
    whole = Path("fields/f0.mrc").read_bytes()
    for tenth in range(10):
        Path(f"cut{tenth}.mrc").write_bytes(whole[: len(whole) * tenth // 10])
    Path("text.mrc").write_text("not an image " * 1000)
    Path("broken.tif").write_bytes(b"II*\0junk")
    Path("broken8.png").write_bytes(b"\x89PNG junk")
    Path("folder.mrc").mkdir()
    Path("unreadable.mrc").symlink_to("/proc/self/mem")  # opens, and fails when read; also as root
    Path("suffix.xyz").write_bytes(whole)
    names = ["nan.mrc", "inf.mrc", "constant.mrc", "tiny.mrc", "movie.mrcs"]
    names += [f"cut{tenth}.mrc" for tenth in range(10)]
    names += ["text.mrc", "broken.tif", "broken8.png", "folder.mrc", "unreadable.mrc"]
    names += ["suffix.xyz", "gone.mrc"]
    write_table(project / "bad.star", [f"{n} 1" for n in [*names, "fields/f0.mrc"]])
    return names


@pytest.mark.parametrize("mode", ["default", "relion"])
def test_bad_micrographs_are_listed_and_the_others_picked(bad_fields, cryopick, mode):
    ended = pick(cryopick, "--json", "--mode", mode, micrographs="bad.star")

    result = json.loads(ended.out)
    assert ended.code == 3
    assert list(result["failed"]) == bad_fields
    assert all(re.fullmatch(r".+ must .+; got .+\. .+\.", s) for s in result["failed"].values())
    assert result["n_picks"] > 0
    listed = read_star(Path("pick/failed.star"))["failed"]
    assert listed["rlnMicrographName"].tolist() == bad_fields
    assert listed["cryopickReason"].tolist() == list(result["failed"].values())
    assert "Traceback" not in ended.err
    assert not leftovers()


def test_bad_micrographs_are_listed_and_particles_of_the_others_extracted(bad_fields, cryopick):
    rows = [f"{name} 60 60" for name in [*bad_fields, "fields/f0.mrc"]]
    head = "data_\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n"
    Path("picks.star").write_text(head + "\n".join(rows) + "\n\n")

    ended = extract(cryopick, "--json", micrographs="bad.star", coordinates="picks.star")

    result = json.loads(ended.out)
    assert ended.code == 3
    assert set(bad_fields) - set(result["failures"]) == {"tiny.mrc"}  # has no room for a box
    assert (result["n_particles"], result["n_outside"]) == (1, 1)
    assert len(ended.errors) == len(result["failures"])
    assert [p.name for p in Path("extract").rglob("*.mrcs")] == ["f0.mrcs"]
    assert not leftovers()


def test_a_mended_micrograph_is_taken_up_by_the_same_command(bad_fields, cryopick, project):
    write_table(project / "some.star", ["cut5.mrc 1", "fields/f1.mrc 1"])
    assert pick(cryopick, micrographs="some.star").code == 3
    assert Path("pick/failed.star").exists()

    make_field(Path("cut5.mrc"), seed=5)
    ended = pick(cryopick, "--json", micrographs="some.star")

    assert (ended.code, json.loads(ended.out)["n_failed"]) == (0, 0)
    assert not Path("pick/failed.star").exists()
    assert Path("pick/cut5_autopick.star").exists()


def test_a_run_over_bad_micrographs_reports_them(bad_fields, cryopick):
    ended = run(cryopick, "--json", "--subset", "30", micrographs="bad.star")

    result = json.loads(ended.out)
    assert ended.code == 3
    assert sorted(result["refused"]) == sorted(bad_fields)
    assert result["steps"]["first_particles"]["n_particles"] > 0
    report = Path(result["report"]).read_text()
    assert all(name in report for name in bad_fields)
    assert ended.errors == [f"{len(bad_fields)} micrographs refused; the report says why."]


def test_fields_of_several_sizes_and_pixel_sizes_go_in_one_run(project, cryopick):
    make_field(Path("tall.mrc"), shape=(400, 300))
    half = read_mrc(Path("fields/f1.mrc")).repeat(2, 0).repeat(2, 1)
    write_mrc(Path("fine.mrc"), half, pixel_size=PIXEL_SIZE / 2)

    ended = cryopick(*("run", "tall.mrc", "fine.mrc", "fields", "--out", "project", "--json", *RUN))

    result = json.loads(ended.out)
    assert ended.code == 0, ended
    picks = result["steps"]["first_picks"]
    assert picks["n_micrographs"] == 5
    assert picks["n_without_picks"] == 0
    optics = read_star(Path("project/first_particles/particles.star"))["optics"]
    sizes = optics["rlnMicrographPixelSize"].astype(float)
    assert sorted(sizes) == [PIXEL_SIZE / 2, PIXEL_SIZE]
    coarse, fine = (read_picks_of(n) for n in ("fields/f1", "fine"))
    nearest = np.abs(coarse[:, None] - (fine - 0.5)[None] / 2).sum(-1).min(1)
    assert np.median(nearest) < 1  # the same places, in px of the coarse field


def read_picks_of(key):
    (table,) = read_star(Path(f"project/first_picks/{key}_autopick.star")).values()
    return table[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy(float)


@pytest.mark.parametrize("name", ["données du soir", "粒子 micrographs", "a'b (1) [2] #3"])
def test_odd_paths_work_from_micrograph_to_particle(project, cryopick, name):
    folder = Path(name)
    folder.mkdir()
    make_field(folder / "mic 1.mrc")

    assert pick(cryopick, micrographs=str(folder), out=folder / "pick").code == 0
    ended = extract(
        *(cryopick, "--json"),
        micrographs=str(folder / "mic 1.mrc"),
        coordinates=folder / "pick" / "autopick.star",
        out=folder / "extract",
    )

    assert ended.code == 0, ended
    particles = read_particles(folder / "extract" / "particles.star")
    assert len(particles) == json.loads(ended.out)["n_particles"] > 0
    assert Path(particles.rows["image"][0]).exists()
    shown = cryopick("show", folder / "extract" / "particles.star", "--out", folder / "x.png")
    assert shown.code == 0


# --- values


@pytest.mark.parametrize("command", [extract, run])
def test_an_odd_box_is_refused_with_the_next_even_one(project, cryopick, command):
    pick(cryopick)

    refused(command(cryopick, "--box-size", "41", out="new"), "box_size", "got 41 px", "Try 42")
    assert not Path("new").exists()


def test_a_box_beyond_every_field_leaves_none_and_says_so(project, cryopick):
    pick(cryopick)

    ended = extract(cryopick, "--box-size", "1000", out="new")

    assert ended.code == 3
    assert "No particle could be extracted." in ended.out
    assert "over an edge" in ended.out
    assert not list(Path("new").rglob("*.mrcs"))
    assert not list(Path("new").rglob("particles.star"))


def test_no_pick_at_all_is_a_result_that_extraction_refuses(project, cryopick):
    words = ("--false-positives", "1e-300")
    write_mrc(Path("n.mrc"), np.random.default_rng(9).normal(size=(200, 200)), pixel_size=6.0)
    ended = pick(cryopick, *words, "--json", micrographs="n.mrc")
    assert (ended.code, json.loads(ended.out)["n_picks"]) == (0, 0)

    refused(extract(cryopick, micrographs="n.mrc", out="new"), "must hold at least one position")


@pytest.mark.parametrize("command", COMMANDS)
def test_diameters_the_wrong_way_round_are_refused(project, cryopick, command):
    ended = command(cryopick, "--min-diameter", "200")

    refused(ended, "min_diameter must be at most max_diameter (170 A); got 200 A")


@pytest.mark.parametrize("words", [[], ["--mode", "relion"]])
def test_a_particle_larger_than_the_field_refuses_the_field(project, cryopick, words):
    ended = pick(cryopick, "--max-diameter", "1600", "--json", *words)

    failed = json.loads(ended.out)["failed"]
    assert ended.code == 3
    assert len(failed) == 3
    for sentence in failed.values():
        assert "larger than the largest particle, 1600 A; got a side of 1560 A" in sentence


@pytest.mark.parametrize("command", [pick, extract, run])
def test_a_device_that_is_not_there_is_refused(project, cryopick, command):
    pick(cryopick)

    refused(command(cryopick, "--device", "cuda:77", out="new"), "device must be on this machine")


@pytest.mark.parametrize("command", [pick, extract, run])
def test_too_little_memory_is_refused_with_what_is_needed(project, cryopick, command):
    pick(cryopick)

    ended = command(cryopick, "--memory", "0.1", out="new")

    (line,) = ended.errors
    assert ended.code == 1
    assert re.search(r"memory must be at least .+; got 0\.1 GB\. Raise --memory\.", line)


@pytest.mark.parametrize(
    "words",
    [
        ["pick", "log"],
        ["pick", "log", "mics.star", "--out", "x", "--min-diameter", "abc"],
        ["extract", "mics.star", "pick", "--out", "x"],
        ["extract", "mics.star", "pick", "--out", "x", *BOX, "--edges", "nope"],
        ["nothing"],
        ["pick", "log", "mics.star", "--unknown"],
    ],
)
def test_wrong_usage_ends_with_code_two_and_without_a_traceback(project, cryopick, words):
    ended = cryopick(*words)

    assert ended.code == 2
    assert ended.out == ""
    assert "Traceback" not in ended.err
    assert "Error" in ended.err


def test_the_version_is_printed_alone(cryopick):
    ended = cryopick("--version")

    assert (ended.code, ended.err) == (0, "")
    assert re.fullmatch(r"cryopick \d+\.\d+\.\d+\S*\n", ended.out)


# --- output


@pytest.mark.parametrize("command", [pick, extract, run])
def test_a_folder_of_another_job_is_refused_and_left_as_it_is(project, cryopick, command):
    pick(cryopick)
    simulated = ("--number", "1", "--width", "100", "--height", "80", *ALONE)
    assert cryopick("simulate", "micrographs", "--out", "sim", *simulated).code == 0
    before = contents(Path("sim"))

    got = "a folder with job.json" if command is run else "`simulate micrographs`"
    refused(command(cryopick, out="sim"), got, "Choose another")
    assert contents(Path("sim")) == before


def test_results_of_another_program_are_not_overwritten(project, cryopick):
    pick(cryopick)
    for folder, name in (("theirs", "autopick.star"), ("theirs2", "particles.star")):
        Path(folder).mkdir()
        Path(folder, name).write_text("precious")

    refused(pick(cryopick, out="theirs"), "autopick.star of unknown origin")
    refused(extract(cryopick, out="theirs2"), "particles.star of unknown origin")

    assert Path("theirs/autopick.star").read_text() == "precious"
    assert Path("theirs2/particles.star").read_text() == "precious"


def test_other_parameters_are_refused_until_overwrite_is_given(project, cryopick):
    pick(cryopick)
    before = contents(Path("pick"))

    refused(pick(cryopick, "--min-distance", "2"), "with min_distance 0.75 instead of 2")
    assert contents(Path("pick")) == before

    assert pick(cryopick, "--min-distance", "2", "--overwrite").code == 0
    assert contents(Path("pick")) != before


@pytest.mark.parametrize("command", [pick, extract, run])
def test_an_output_that_is_a_file_is_refused(project, cryopick, command):
    pick(cryopick)
    Path("file").write_text("precious")

    refused(command(cryopick, out="file"), "file must be a", "; got a file")
    refused(command(cryopick, out="file/below"), "file/below")
    assert Path("file").read_text() == "precious"


@pytest.mark.parametrize("command", [pick, extract, run])
def test_a_read_only_folder_is_refused(read_only, cryopick, command):
    pick(cryopick)

    refused(command(cryopick, out=read_only), "writable", "Choose another")
    refused(command(cryopick, out=read_only / "below"), "writable", "Choose another")


def test_pictures_and_tables_for_a_read_only_folder_are_refused(read_only, cryopick):
    pick(cryopick)
    for words in (
        ["show", "fields/f0.mrc", "--out", read_only / "x.png"],
        ["convert", "pick/autopick.star", read_only / "x", "--to", "topaz"],
        ["select", "subset", "mics.star", "--n-subsets", "2", "--out", read_only / "part"],
        ["simulate", "micrographs", "--out", read_only / "sim", "--number", "1"],
    ):
        refused(cryopick(*words))


def test_stacks_for_which_the_disk_is_full_are_listed_and_written_when_there_is_room(
    small_disk, cryopick
):
    pick(cryopick)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(232 << 10))  # leaves room for the records, not for 4 particles

    ended = extract(cryopick, "--json", out=small_disk / "extract")

    failures = json.loads(ended.out)["failures"]
    assert ended.code == 3
    assert len(failures) == 3
    assert all("must have room left on its disk" in sentence for sentence in failures.values())
    assert not leftovers(small_disk)

    filler.unlink()
    ended = extract(cryopick, "--json", out=small_disk / "extract")

    assert (ended.code, json.loads(ended.out)["failures"]) == (0, {})
    assert len(list(small_disk.rglob("*.mrcs"))) == 3


def test_a_full_disk_refuses_every_command_with_one_sentence(small_disk, cryopick):
    pick(cryopick)
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb") as filler:
        while True:
            filler.write(bytes(512))
            filler.flush()

    for ended in (
        pick(cryopick, out=small_disk / "pick"),
        extract(cryopick, out=small_disk / "extract"),
        run(cryopick, out=small_disk / "project"),
        cryopick("show", "fields/f0.mrc", "--out", small_disk / "x.png"),
        cryopick("convert", "pick/autopick.star", small_disk / "x", "--to", "topaz"),
        cryopick("select", "subset", "mics.star", "--n-subsets", "2", "--out", small_disk / "s"),
        cryopick("simulate", "micrographs", "--out", small_disk / "sim", "--number", "1"),
    ):
        refused(ended, "must have room left on its disk", "Free some space")
    assert not leftovers(small_disk)


@pytest.fixture
def file_limit():
    """Let no file grow beyond some bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_stacks_over_the_size_limit_are_listed_and_the_others_written(
    project, cryopick, file_limit
):
    head = "data_\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n"
    rows = [f"fields/f0.mrc {60 + 9 * n} 60" for n in range(9)] + ["fields/f1.mrc 60 60"]
    Path("picks.star").write_text(head + "\n".join(rows) + "\n\n")
    file_limit(20_000)  # a particle has 6,400 bytes

    ended = extract(cryopick, "--json", coordinates="picks.star")

    failures = json.loads(ended.out)["failures"]
    assert ended.code == 3
    assert list(failures) == ["fields/f0.mrc"]
    assert "within the size limit of files; got file too large" in failures["fields/f0.mrc"]
    assert [p.name for p in Path("extract").rglob("*.mrcs")] == ["f1.mrcs"]
    assert not leftovers()


def test_two_runs_at_once_in_one_folder_are_refused(project, cryopick):
    pick(cryopick)
    before = contents(Path("pick"))
    parameters = json.loads(Path("pick/job.json").read_text())["parameters"]

    with Job(Path("pick"), name="pick log", parameters=parameters):
        refused(pick(cryopick), "pick must be used by one run at a time")

    assert set(contents(Path("pick"))) == set(before)
    assert pick(cryopick).code == 0


def test_a_column_that_is_missing_is_named(project, cryopick):
    columns = pd.DataFrame({"rlnMicrographName": ["fields/f0.mrc"], "rlnCoordinateX": [1.0]})
    lines = "\n".join(f"_{c} #{n + 1}" for n, c in enumerate(columns))
    Path("noy.star").write_text(f"data_\n\nloop_\n{lines}\nfields/f0.mrc 1\n\n")

    refused(extract(cryopick, coordinates="noy.star"), "noy.star", "rlnCoordinateY")

    refused(pick(cryopick, "--mode", "relion", "--use-ctf"), "mics.star", "defocus")
