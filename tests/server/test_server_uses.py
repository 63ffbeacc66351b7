"""What is chosen on the page goes into the job that is made of it, and nothing else does."""

from __future__ import annotations

import io
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree
from served_project import copy_project
from server_world import PATIENCE, run_cli, served

from cryopick.io.eman_hdf_write import write_eman_stack
from cryopick.io.json_files import read_object
from cryopick.io.mrc import read_mrc, read_mrc_header
from cryopick.io.star import read_star, write_star
from cryopick.tables.relion import read_particles, read_picks

sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))
from stable_world import CHOSEN, make_views

pytest_plugins = ("server_world",)

ALONE = {"workers": 1, "threads": 1}


def finished(page, started):
    """Wait for a job, and give its folder."""
    deadline = time.monotonic() + PATIENCE
    while (job := page.get(f"jobs/{started['job']}"))["state"] == "running":
        assert time.monotonic() < deadline, page.get(f"jobs/{started['job']}/log")["text"]
        time.sleep(0.2)
    assert job["state"] == "done", page.get(f"jobs/{started['job']}/log")["text"]
    (folder,) = (page.folder / "tasks").glob(f"{int(started['job'][1:]):04d}_*/")
    return folder


def named(results, name):
    """Find one by its name: other tests, in any order, add some of their own."""
    (found,) = [r for r in results if r["name"] == name]
    return found


@pytest.fixture(scope="module")
def shared(made_project, tmp_path_factory):
    """A server of a copy, for tests whose changes do not meet."""
    folder = copy_project(made_project, tmp_path_factory.mktemp("used"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with served(folder / "project") as page:
            yield page


@pytest.fixture(scope="module")
def good(shared):
    """Particles of the two largest classes, selected on the page."""
    run = named(shared.get("classifications")["classifications"], "Classes")
    classes = shared.get(f"classifications/{run['id']}")["classes"]
    chosen = [int(k) for k in sorted(np.argsort(classes["count"])[-2:] + 1)]
    shared.change("PUT", "selections/good", {"classification": run["id"], "classes": chosen})
    return read_particles(shared.folder / "selections" / "good" / "particles.star").rows


@pytest.fixture(autouse=True)
def in_folder(shared, monkeypatch):
    """Commands are run where the server was started."""
    monkeypatch.chdir(shared.folder.parent)


def places_of(rows):
    """Where particles lie: micrograph and px."""
    found = {}
    for name, group in rows.groupby("micrograph", observed=True):
        found[str(name)] = group[["x", "y"]].to_numpy(np.float64)
    return found


def test_extracted_are_the_particles_of_the_selected_classes(shared, good):
    body = {"as": "extract", "parameters": ALONE}
    started = shared.change("POST", "selections/good/use", body)
    folder = finished(shared, started)
    again = run_cli(*shlex.split(started["command"].replace(str(folder), "again"))[1:])

    cut = read_particles(folder / "particles.star").rows
    assert again["n_particles"] == len(cut) == len(good) - again["n_edge"]
    wanted = places_of(good)
    for name, places in places_of(cut).items():
        distance, nearest = cKDTree(wanted[name]).query(places)
        assert distance.max() < 1.5
        assert len(set(nearest.tolist())) == len(places)
    before = read_object(shared.folder / "particles" / "job.json")["parameters"]
    now = read_object(folder / "job.json")["parameters"]
    assert (now["box_size"], now["rescale"]) == (before["box_size"], before["rescale"])


def test_templates_are_the_averages_of_the_selected_classes(shared, good):
    body = {"as": "templates", "parameters": ALONE | {"angular_step": 30}}
    folder = finished(shared, shared.change("POST", "selections/good/use", body))

    assert len(read_star(shared.folder / "selections" / "good" / "class_averages.star")[""]) == 2
    assert read_mrc_header(folder / "templates.mrcs").shape[0] == 2
    assert set(read_picks(folder).rows["class_number"]) <= {1, 2}


def test_a_network_learns_from_the_particles_of_the_selected_classes(shared, good):
    body = {"as": "train", "parameters": ALONE | {"steps": 2}}
    folder = finished(shared, shared.change("POST", "selections/good/use", body))
    result = read_object(folder / "result.json")

    assert n_labels(result) == len(good)
    assert (folder / "model.npz").is_file()


def n_labels(result):
    names = ("n_train_labels", "n_held_out_labels", "n_outside", "n_masked", "n_repeated")
    return sum(result[name] for name in names)


def test_a_network_learns_from_picks_that_were_edited_by_hand(shared):
    found = named(shared.get("sets")["sets"], "Picks")
    edited = sorted(shared.fields.items())[:3]
    n_picks = 0
    for number, (_, field) in enumerate(edited):
        root = f"sets/{found['id']}/fields/{field}"
        columns = shared.get(root)["columns"]
        gone = list(zip(columns["x"], columns["y"], strict=True))[: number + 1]
        shared.change("POST", f"{root}/edits", {"add": [[300.5, 21.5]], "remove": gone})
        n_picks += len(columns["x"]) - (number + 1) + 1
    body = {"name": "by_hand", "only_edited": True}
    saved = shared.change("POST", f"sets/{found['id']}/save", body)
    body = {
        "command": "pick train",
        "inputs": {"labels": saved["set"], "micrographs": "accepted"},
        "parameters": ALONE | {"diameter": 180.0, "steps": 2},
    }
    folder = finished(shared, shared.change("POST", "jobs", body))
    result = read_object(folder / "result.json")

    assert saved["n_picks"] == n_picks
    assert saved["n_fields"] == 3
    assert n_labels(result) == n_picks
    assert result["n_train"] + result["n_held_out"] == 3


def test_limits_that_were_saved_are_found_again_by_their_name(shared):
    strict = {"picks": [10.5, None], "defocus": [None, 20000.25]}
    shared.change("PUT", "limits", {"limits": strict, "name": "strict"})
    shared.change("PUT", "limits", {"limits": {"picks": [1, None]}})
    said = shared.change("PUT", "limits", {"use": "strict"})

    assert said["limits"] == strict
    assert [one["name"] for one in said["named"]] == ["strict"]
    assert run_cli("project", "limits", shared.folder, "--none")["limits"] == {}
    assert run_cli(*shlex.split(said["command"])[1:])["limits"] == strict
    run_cli("project", "limits", shared.folder, "--limit", "picks=3:", "--name", "loose")
    named = {one["name"]: one["limits"] for one in shared.get("limits")["named"]}
    assert named == {"strict": strict, "loose": {"picks": [3, None]}}
    shared.change("PUT", "limits", {"use": "unknown"}, status=400)
    shared.change("PUT", "limits", {"limits": {}, "name": "../out"}, status=400)
    shared.change("PUT", "limits", {"limits": {}})


def test_images_of_a_stack_of_eman_are_shown_as_those_of_relion(shared):
    """The same particles in HDF, as SPHIRE has them."""
    tables = shared.get("particles")["tables"]
    table = next(t for t in tables if t["kind"] == "extract")
    source = (shared.folder / "particles").resolve()
    blocks = read_star(source / "particles.star")
    rows = blocks["particles"]
    images = []
    for name in rows["rlnImageName"]:
        index, _, path = str(name).partition("@")
        images.append(read_mrc(source.parents[2] / path, dtype=np.float32)[int(index) - 1])
    folder = shared.folder / "tasks" / "9999_extract"
    folder.mkdir(parents=True)
    write_eman_stack(folder / "stack.hdf", np.stack(images), pixel_size=table["pixel_size"])
    names = [f"{n + 1:06d}@{folder / 'stack.hdf'}" for n in range(len(rows))]
    unknown = ["rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY"]
    blocks["particles"] = rows.assign(rlnImageName=names).drop(columns=unknown)
    write_star(folder / "particles.star", blocks)
    (folder / "job.json").write_text('{"name": "extract"}')

    both = (table["id"], "t9999")
    atlases = [shared.get(f"particles/{k}", limit=40)["atlas"]["url"] for k in both]
    ours, theirs = (shared.picture(url) for url in atlases)
    assert ours.content == theirs.content
    body = {"rows": "0-20", "aligned": False}
    means = [shared.change("POST", f"particles/{k}/average", body) for k in both]
    assert shared.picture(means[0]["mean"]).content == shared.picture(means[1]["mean"]).content


@pytest.mark.slow
def test_stable_classes_of_a_stack_of_eman_open_as_those_of_em(shared, tmp_path):
    """From images alone, as SPHIRE's users have them: nothing says where they lie."""
    make_views(tmp_path)
    write_eman_stack(
        tmp_path / "stack.hdf", read_mrc(tmp_path / "stack.mrcs", dtype=np.float32), pixel_size=5.0
    )
    run_cli(
        "class2d", "stable", tmp_path / "stack.hdf", "--radius", 11, "--ctf", "none",
        "--out", shared.folder / "tasks" / "9998_class2d_stable",
        *(w for k, v in CHOSEN.items() for w in (f"--{k.replace('_', '-')}", v)),
    )  # fmt: skip
    said = shared.get("classifications/t9998")
    classes = said["classes"]
    members = shared.get("particles/t9998", **{"class": 1})
    made = shared.change("POST", "particles/t9998/average", {"class": 1})
    tile = said["atlas"]["tile"]
    average = grey(shared.picture(said["atlas"]["url"]))[:tile, :tile]
    mean = grey(shared.picture(made["mean"], tile=tile))

    assert len(classes["number"]) >= 2
    assert members["n"] == made["n"] == classes["count"][0]
    assert shared.get("classifications/t9998/classes/1")["n_fields"] == 0
    assert np.corrcoef(average.ravel(), mean.ravel())[0, 1] > 0.8
    assert grey(shared.picture(members["atlas"]["url"])).std() > 10


def grey(answer):
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)), np.float64)
