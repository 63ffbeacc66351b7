"""What the page says and does is what the command line says and does, by real requests."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import affine_transform
from served_project import N_FIELDS
from server_world import PATIENCE, TOKEN, run_cli, served

from cryopick.io.mrc import read_mrc
from cryopick.io.star import read_star
from cryopick.server.served import Served
from cryopick.server.settings import ServerSettings
from cryopick.server.watch import Watch
from cryopick.tables.relion import read_micrographs, read_particles, read_picks

pytest_plugins = ("server_world",)

BLOCKED = "data/micrographs/sim_00002.mrc"


@pytest.fixture(scope="module")
def seen(made_project):
    """A server for tests that change nothing."""
    with served(made_project / "project") as page:
        yield page


def grey(answer):
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)), np.float64)


def test_the_overview_counts_what_the_files_hold(seen):
    said = seen.get("overview")
    picks = read_picks(seen.folder / "picks")
    good = read_particles(seen.folder / "selection" / "particles.star")

    assert said["state"] == "idle"
    assert said["counts"]["fields"] == said["counts"]["picked"] == N_FIELDS
    assert said["counts"]["picks"] == len(picks)
    assert said["counts"]["selected"] == len(good)
    assert [s["name"] for s in said["steps"]] == ["picks", "particles", "classes", "selection"]
    assert {s["state"] for s in said["steps"]} == {"done"}
    assert f"{len(picks):,} picks" in said["steps"][0]["sentence"]


def test_limits_and_ticks_accept_the_same_fields_as_the_command_line(page):
    picks = sorted(row[1] for row in page.get("fields", columns="picks")["rows"])
    bound = picks[1] + 0.5  # two are below
    seen = page.change("POST", "limits/preview", {"limits": {"picks": [bound, None]}})
    assert page.get("limits")["limits"] == {}, "a preview must change nothing"
    done = page.change("PUT", "limits", {"limits": {"picks": [bound, None]}})

    assert seen["n_rejected"] == done["n_rejected"] == sum(p < bound for p in picks)
    assert run_cli("project", "limits", page.folder)["n_accepted"] == done["n_accepted"]
    below = page.get("fields", state="rejected", columns="picks,reason")["rows"]
    assert all(p < bound and "Picks" in why for _, p, why in below)

    page.change("PUT", "ticks", {"fields": [below[0][0]], "tick": "accepted"})
    saved = page.change("POST", "fields/save")
    names = set(read_micrographs(page.folder / "micrographs_selected.star").rows["micrograph"])
    accepted = {row[1] for row in page.get("fields", state="accepted", columns="name")["rows"]}
    assert saved["n"] == len(names) == done["n_accepted"] + 1
    assert names == accepted


def test_the_count_above_a_threshold_is_that_of_the_command_line(seen, tmp_path):
    (found,) = [s for s in seen.get("sets")["sets"] if s["kind"] == "picks"]
    scores = seen.get(f"sets/{found['id']}/histogram")
    lowest, highest = scores["edges"][0], scores["edges"][-1]
    exact = seen.get(f"sets/{found['id']}/fields/{seen.fields[BLOCKED]}", source="peaks")
    thresholds = [lowest, 0.5 * (lowest + highest), exact["columns"]["score"][3], highest]

    for number, threshold in enumerate(thresholds):
        n = seen.get(f"sets/{found['id']}/count", threshold=repr(threshold))["n"]
        kept = run_cli(
            "select", "subset", seen.folder / "picks" / "peaks", "--by", "fom",
            "--min-value", repr(threshold), "--out", tmp_path / f"{number}",
        )  # fmt: skip
        assert n == kept["n_kept"]


def test_picks_of_a_field_are_those_of_its_file_in_both_forms(seen):
    (found,) = [s for s in seen.get("sets")["sets"] if s["kind"] == "picks"]
    path = f"sets/{found['id']}/fields/{seen.fields[BLOCKED]}"
    said = seen.get(path)
    table = read_picks(seen.folder / "picks").rows
    rows = table[table["micrograph"] == BLOCKED]

    assert said["columns"]["x"] == rows["x"].tolist()
    assert said["columns"]["score"] == rows["fom"].tolist()
    raw = seen.http.get(f"/api/{path}", headers={"Accept": "application/octet-stream"}).content
    (length,) = struct.unpack("<I", raw[:4])
    header = json.loads(raw[4 : 4 + length])
    values = np.frombuffer(raw[4 + length :], "<f8").reshape(len(header["columns"]), -1)
    assert np.array_equal(values[header["columns"].index("x")], rows["x"])


def test_edits_are_kept_over_a_restart_and_reach_training_and_extraction(project):
    with served(project) as page:
        (found,) = [s for s in page.get("sets")["sets"] if s["kind"] == "picks"]
        root = f"sets/{found['id']}/fields/{page.fields[BLOCKED]}"
        before = page.get(root)["columns"]
        gone = [before["x"][0] + 1.0, before["y"][0] - 1.0]
        page.change("POST", f"{root}/edits", {"add": [[321.5, 77.25]], "remove": [gone]})
        page.change("POST", f"{root}/edits", {"add": [[5.0, 5.0]]})
        page.change("POST", f"{root}/undo")
        page.change("POST", f"{root}/undo")
        page.change("POST", f"{root}/redo")
    with served(project) as page:
        after = page.get(root, source="edited")
        saved = page.change("POST", f"sets/{found['id']}/save", {"name": "mine"})
        edits = page.get(f"sets/{found['id']}/edits")["edits"]
        known = {s["id"]: s["n_picks"] for s in page.get("sets")["sets"]}
        assert known["p:mine"] == saved["n_picks"]
        body = {"name": "mine", "threshold": 0.0, "overwrite": True}
        wider = page.change("POST", f"sets/{found['id']}/save", body)["n_picks"]
        known = {s["id"]: s["n_picks"] for s in page.get("sets")["sets"]}
        assert known["p:mine"] == wider > saved["n_picks"]
        page.change("POST", f"sets/{found['id']}/save", {"name": "mine", "overwrite": True})

    assert after["columns"]["x"] == [*before["x"][1:], 321.5]
    assert after["origin"] == [0] * (len(before["x"]) - 1) + [1]
    assert after["columns"]["score"][-1] is None
    assert [e["number"] for e in edits if e["stands"] and e["undoes"] is None] == [1]
    assert all(e["who"] and e["when"] for e in edits)
    rows = read_picks(project / "picks_by_hand" / "mine").rows
    mine = rows[rows["micrograph"] == BLOCKED]
    assert saved["n_picks"] == len(rows) == len(read_picks(project / "picks"))
    assert (321.5, 77.25) in set(zip(mine["x"], mine["y"], strict=True))
    cut = run_cli(
        "extract", project / "micrographs.star", project / "picks_by_hand" / "mine", "--out",
        "cut", "--box-size", 64, "--workers", 1,
    )  # fmt: skip
    assert cut["n_particles"] + cut["n_edge"] == len(rows)
    again = run_cli("project", "picks", project, found["id"], "--out", "by_command")
    assert again["n_picks"] == len(rows)


def test_an_edit_of_what_somebody_else_has_edited_is_refused(page):
    (found,) = [s for s in page.get("sets")["sets"] if s["kind"] == "picks"]
    root = f"sets/{found['id']}/fields/{page.fields[BLOCKED]}"
    first = page.change("POST", f"{root}/edits", {"add": [[1, 2]], "base": 0})["edit"]
    page.change("POST", f"{root}/edits", {"add": [[3, 4]], "base": 0}, status=409)

    page.change("POST", f"{root}/edits", {"add": [[3, 4]], "base": first})


def test_selected_classes_give_exactly_their_particles(page):
    (run,) = page.get("classifications")["classifications"]
    classes = page.get(f"classifications/{run['id']}")["classes"]
    members = read_particles(max((page.folder / "classes").glob("run_it*_data.star"))).rows
    counts = members["class_number"].value_counts()
    assert classes["count"] == [int(counts.get(k, 0)) for k in classes["number"]]
    chosen = sorted(np.argsort(classes["count"])[-2:] + 1)
    body = {"classification": run["id"], "classes": [int(k) for k in chosen]}
    saved = page.change("PUT", "selections/two", body)

    rows = read_particles(page.folder / "selections" / "two" / "particles.star").rows
    expected = members[members["class_number"].isin(chosen)]
    names = ["image_index", "micrograph", "x", "y", "class_number"]
    assert saved["n_particles"] == len(rows)
    assert rows[names].reset_index(drop=True).equals(expected[names].reset_index(drop=True))
    assert page.get("selections")["selections"][-1]["classes"] == [int(k) for k in chosen]
    page.change("PUT", "selections/two", body, status=409)
    given = page.http.get("/api/downloads/selection/two")
    assert given.content == (page.folder / "selections" / "two" / "particles.star").read_bytes()


def brought_together(image, psi, shift_y, shift_x):
    """An image as its angle, degrees, and its shifts, px, bring it onto the others."""
    centre = np.array(image.shape) // 2
    cos, sin = np.cos(np.deg2rad(psi)), np.sin(np.deg2rad(psi))
    turn = np.array([[cos, -sin], [sin, cos]])
    offset = centre - turn @ centre - [shift_y, shift_x]
    return affine_transform(image, turn, offset=offset, mode="nearest")


def test_the_mean_of_a_class_is_its_average(seen):
    (run,) = seen.get("classifications")["classifications"]
    said = seen.get(f"classifications/{run['id']}")
    number = int(np.argmax(said["classes"]["count"])) + 1
    path = f"particles/{run['id']}/average"
    made = seen.change("POST", path, {"class": number})
    plain = seen.change("POST", path, {"class": number, "aligned": False})
    tile = said["atlas"]["tile"]
    y, x = divmod(number - 1, said["atlas"]["columns"])
    sheet = grey(seen.picture(said["atlas"]["url"]))
    average = sheet[y * tile : (y + 1) * tile, x * tile : (x + 1) * tile]
    data = max((seen.folder / "classes").glob("run_it*_data.star"))
    table = read_particles(data)
    rows = table.rows[table.rows["class_number"] == number]
    pixel, box = said["pixel_size"], said["box_size"]
    poses = rows["psi"], rows["shift_y"] / pixel, rows["shift_x"] / pixel
    images = []
    for name in read_star(data)["particles"]["rlnImageName"][rows.index]:
        index, _, stack = str(name).partition("@")
        images.append(read_mrc(seen.folder.parent / stack, dtype=np.float32)[int(index) - 1])
    aligned = [brought_together(*one) for one in zip(images, *poses, strict=True)]

    assert made["n"] == said["classes"]["count"][number - 1] == len(images)
    assert likeness(grey(seen.picture(made["mean"], tile=tile)), average) > 0.6
    assert likeness(grey(seen.picture(made["mean"], tile=box)), np.mean(aligned, axis=0)) > 0.95
    assert likeness(grey(seen.picture(plain["mean"], tile=box)), np.mean(images, axis=0)) > 0.99


def likeness(image, other):
    return np.corrcoef(image.ravel(), other.ravel())[0, 1]


def test_particles_set_aside_stay_out_of_what_is_saved(page):
    (run,) = page.get("classifications")["classifications"]
    table = page.get(f"particles/{run['id']}", sort="max_probability", limit=5)
    worst = [row[0] for row in table["rows"]]
    values = [row[table["columns"].index("max_probability")] for row in table["rows"]]
    assert values == sorted(values)
    text = ",".join(map(str, worst))
    page.change("PUT", f"particles/{run['id']}/disabled", {"rows": text})
    body = {"name": "kept", "rows": "enabled", "xmd": True}
    saved = page.change("POST", f"particles/{run['id']}/save", body)

    before = read_particles(max((page.folder / "classes").glob("run_it*_data.star"))).rows
    kept = read_particles(page.folder / "selections" / "kept" / "particles.star").rows
    assert saved["n"] == len(kept) == len(before) - 5
    assert kept["x"].tolist() == before.drop(index=worst)["x"].tolist()
    assert (page.folder / "selections" / "kept" / "particles.xmd").is_file()


def test_a_field_is_shown_as_it_is_and_darker_where_it_is_dense(seen):
    field = seen.get(f"fields/{seen.fields[BLOCKED]}")
    answer = seen.picture(field["image"]["raw"])
    shown = grey(answer)
    pixels = read_mrc(seen.folder.parent / BLOCKED, dtype=np.float32)

    assert shown.shape == pixels.shape == (field["height"], field["width"])
    low, high = (float(answer.headers[f"X-Grey-{k}"]) for k in ("Low", "High"))
    expected = (255 * (pixels - low) / (high - low)).clip(0, 255)
    assert np.abs(shown - expected).max() < 1.0
    assert "immutable" in answer.headers["Cache-Control"]
    unchanged = seen.http.get(
        "/" + field["image"]["raw"],
        headers={"If-None-Match": answer.headers["ETag"], "Accept": "image/png"},
    )
    assert unchanged.status_code == 304
    tile = grey(seen.picture(field["image"]["tiles"].format(level=0, x=1, y=0)))
    assert np.abs(tile - shown[:512, 512:]).max() <= 1


def test_denoising_brings_out_the_particles(seen):
    """Truth: particles are dark, so the field is darker at them than beside them."""
    field = seen.get(f"fields/{seen.fields[BLOCKED]}")
    truth = json.loads((seen.folder.parent / "data" / "truth.json").read_text())
    places = next(m["particles"] for n, m in truth["micrographs"].items() if "sim_00002" in n)
    is_particle = np.zeros((640, 640), bool)
    rows, columns = np.indices((640, 640))
    for one in places:
        x, y = (one["x"], one["y"]) if isinstance(one, dict) else one[:2]
        is_particle |= np.hypot(columns - x, rows - y) < 18

    def contrast(image):
        inside, outside = image[is_particle], image[~is_particle]
        return (outside.mean() - inside.mean()) / image.std()

    raw = contrast(grey(seen.picture(field["image"]["raw"])))
    denoised = contrast(grey(seen.picture(field["image"]["denoised"])))
    assert raw > 0
    assert denoised > 2.5 * raw


def test_the_spectrum_follows_the_ctf_of_the_simulation(seen):
    field = seen.fields[BLOCKED]
    said = seen.get(f"fields/{field}/spectrum")
    table = read_micrographs(seen.folder / "micrographs.star").rows
    row = table[table["micrograph"] == BLOCKED].iloc[0]
    measured, fitted = (np.array(said[k], float) for k in ("measured", "fitted"))

    assert said["defocus_u"] == pytest.approx(row["defocus_u"], abs=0.01)
    assert np.corrcoef(measured, fitted)[0, 1] > 0.5
    assert grey(seen.picture(said["image"])).std() > 10


def test_a_job_from_a_form_is_the_command_that_it_shows(page):
    schema = page.get("forms/pick-log")["schema"]
    assert schema["properties"]["min_diameter"]["x-flag"] == "--min-diameter"
    body = {
        "command": "pick log",
        "inputs": {"micrographs": "all"},
        "parameters": {"min_diameter": 150, "max_diameter": 200, "workers": 1, "threads": 1},
    }
    wrong = body | {"parameters": {"min_diameter": -1, "max_diameter": 200}}
    assert "min_diameter" in page.change("POST", "jobs", wrong, status=400)["error"]
    started = page.change("POST", "jobs", body)
    deadline = time.monotonic() + PATIENCE
    while (job := page.get(f"jobs/{started['job']}"))["state"] == "running":
        assert time.monotonic() < deadline, page.get(f"jobs/{started['job']}/log")["text"]
        time.sleep(0.3)

    assert job["state"] == "done", page.get(f"jobs/{started['job']}/log")["text"]
    run_cli(*started["command"].split()[1:-6], "--out", "same", "--min-diameter=150",
            "--max-diameter=200", "--workers=1", "--threads=1")  # fmt: skip
    mine = read_picks(page.folder / "tasks" / "0001_pick_log").rows
    assert mine[["x", "y", "fom"]].equals(read_picks(page.folder.parent / "same").rows[
        ["x", "y", "fom"]])  # fmt: skip
    sets = {s["id"]: s["n_picks"] for s in page.get("sets")["sets"]}
    assert sets[started["job"]] == len(mine)


def test_a_plan_says_what_a_run_would_do_again(seen):
    def fates(**changes):
        steps = seen.change("POST", "plan", {"parameters": changes})["steps"]
        return {s["name"]: s["fate"] for s in steps}

    assert set(fates().values()) == {"kept"}
    after = fates(minimum_score=0.2)
    assert after == {
        "picks": "kept", "particles": "kept", "classes": "kept", "selection": "again"
    }  # fmt: skip
    assert fates(rescale=40) == {
        "picks": "kept", "particles": "again", "classes": "again", "selection": "again"
    }  # fmt: skip


def listen(page, *, last=""):
    """Give one event after the other, as long as they come."""
    headers = {"Last-Event-ID": last} if last else {}
    with page.http.stream("GET", "/api/events", headers=headers) as stream:
        event = {}
        deadline = time.monotonic() + PATIENCE
        for line in stream.iter_lines():
            assert time.monotonic() < deadline, "no event came"
            if line.startswith(":"):  # the server lives, and has nothing to say
                continue
            if line:
                name, _, value = line.partition(": ")
                event[name] = value
            elif "event" in event:
                yield event["event"], event["id"], json.loads(event["data"])
                event = {}
                deadline = time.monotonic() + PATIENCE


def test_a_listener_that_comes_back_gets_what_it_missed(project):
    with served(project) as page:
        with contextlib.closing(listen(page)) as events:
            assert next(events)[0] == "hello"
            page.change("PUT", "limits", {"limits": {"picks": [1, None]}})
            name, seen, _ = next(events)
        assert name == "limits"
        page.change("PUT", "limits", {"limits": {"picks": [10000, None]}})
        deadline = time.monotonic() + PATIENCE
        while not page.get("changes", since=seen)["events"]:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        with contextlib.closing(listen(page, last=seen)) as events:
            missed = [next(events) for _ in range(2)]
        assert [name for name, _, _ in missed] == ["hello", "limits"]
        assert missed[-1][2]["n_accepted"] == 0
    with served(project) as page, contextlib.closing(listen(page, last=seen)) as events:
        assert [next(events)[0] for _ in range(2)] == ["hello", "reset"]


def land(project):
    """Add a field to the table of a project, at once, as everything here is written."""
    path = project / "micrographs.star"
    text = path.read_text()
    line = next(row for row in text.splitlines() if "sim_00004" in row)
    longer = path.with_suffix(".new")
    longer.write_text(text.rstrip() + "\n" + line.replace("sim_00004", "sim_00099") + "\n")
    longer.replace(path)
    return path


def test_a_field_that_lands_is_told_to_listeners(own_page):
    own_page.get("fields")
    with contextlib.closing(listen(own_page)) as events:
        assert next(events)[0] == "hello"
        path = land(own_page.folder)
        name, _, data = next(events)

    assert name == "fields"
    assert data["n_all"] == N_FIELDS + 1
    assert len(data["added"]) == 1
    (block,) = [b for b in read_star(path).values() if "rlnMicrographName" in b]
    assert len(block) == N_FIELDS + 1
    assert own_page.get("fields", columns="name", search="00099")["rows"][0][0] == data["added"][0]


def test_a_field_that_lands_between_the_first_answer_and_the_first_look_is_told(project):
    served = Served(ServerSettings(project=project, token=TOKEN))
    looker = Watch(served)
    looker.begin()
    assert len(served.table()) == N_FIELDS
    before = served.hub.revision
    land(project)
    looker.look()

    (event,) = served.hub.since(before)
    assert event.name == "fields"
    assert len(event.data["added"]) == 1


def test_what_a_server_started_ends_with_it_also_when_it_is_killed(project):
    with served(project) as page:
        field = page.get(f"fields/{page.fields[BLOCKED]}")
        assert page.picture(field["image"]["denoised"]).status_code == 200
        pid = page.process.pid
        helpers = [one for one in children_of(pid) if "spawn_main" in command_of(one)]
        assert helpers
        page.process.kill()
        deadline = time.monotonic() + PATIENCE
        while any("spawn_main" in command_of(one) for one in helpers):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def children_of(pid):
    """Processes that a process began."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(path.parent.name)
    return found


def command_of(pid):
    """Command line of a process; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_the_token_is_in_no_answer(seen):
    for path in ("me", "overview", "jobs", "fields"):
        assert TOKEN not in seen.http.get(f"/api/{path}").text


@pytest.mark.parametrize("kind", ["stream", "stable"])
def test_classes_of_every_kind_are_shown_alike(page, kind):
    """The files of one run under the names that each classifier gives."""
    (run,) = page.get("classifications")["classifications"]
    source = (page.folder / "classes").resolve()
    folder = page.folder / "tasks" / f"0001_class2d_{kind}"
    place = folder / "rounds" / "0002" if kind == "stream" else folder
    place.mkdir(parents=True)
    begin = "run_it002_" if kind == "stream" else "run_"
    for path in source.glob("run_it*"):
        (place / (begin + path.name.split("_", 2)[2])).write_bytes(path.read_bytes())
    last = max(source.glob("run_it*_model.star")).name.split("_")[1]
    model = place / f"{begin}model.star"
    model.write_text(model.read_text().replace(f"run_{last}_", begin))
    if kind == "stream":
        (folder / "current").symlink_to("rounds/0002")
    (folder / "job.json").write_text(json.dumps({"name": f"class2d {kind}"}))

    found = {c["id"]: c for c in page.get("classifications")["classifications"]}
    assert found["t1"]["kind"] == kind
    assert found["t1"]["n_particles"] == run["n_particles"]
    mine, theirs = (page.get(f"classifications/{k}") for k in ("t1", run["id"]))
    assert mine["classes"]["count"] == theirs["classes"]["count"]
    assert np.array_equal(
        grey(page.picture(mine["atlas"]["url"])), grey(page.picture(theirs["atlas"]["url"]))
    )
    members = [page.get(f"classifications/{k}/classes/1")["fields"] for k in ("t1", run["id"])]
    assert members[0] == members[1]
    field = members[0][0]
    where = page.get(f"classifications/t1/places/{field['field']}", classes="1")
    assert where["n"] == field["n"] > 0
    saved = page.change("PUT", "selections/one", {"classification": "t1", "classes": [1]})
    assert saved["n_particles"] == mine["classes"]["count"][0]
    assert saved["selection"]["classification"] == "t1"


def test_what_was_chosen_on_the_command_line_is_on_the_page(page):
    """And the other way: a command that the page shows does the same again."""
    run_cli("project", "tick", page.folder, "--reject", BLOCKED, "--reason", "a crack")
    (row,) = page.get("fields", state="rejected", columns="name,reason")["rows"]
    assert row[1:] == [BLOCKED, "a crack"]
    assert run_cli("project", "fields", page.folder)["n"] == N_FIELDS - 1
    run_cli("project", "limits", page.folder, "--limit", "picks=1:", "--limit", "defocus=:30000")
    assert page.get("limits")["limits"] == {"picks": [1, None], "defocus": [None, 30000]}

    (found,) = [s for s in page.get("sets")["sets"] if s["kind"] == "picks"]
    edit = ("project", "edit", page.folder, found["id"], "--micrograph", BLOCKED)
    run_cli(*edit, "--add", "100.5,200")
    path = f"sets/{found['id']}/fields/{page.fields[BLOCKED]}"
    assert page.get(path, source="edited")["origin"][-1] == 1
    run_cli(*edit, "--undo")
    assert sum(page.get(path, source="edited")["origin"]) == 0

    shown = page.change("PUT", "ticks", {"fields": [row[0]], "tick": ""})["command"]
    assert run_cli(*shlex.split(shown)[1:])["n_changed"] == 1
    shown = page.change("PUT", "limits", {"limits": {"picks": [2.5, 9999]}})["command"]
    assert run_cli(*shlex.split(shown)[1:])["limits"] == {"picks": [2.5, 9999.0]}
    shown = page.change("POST", f"{path}/edits", {"add": [[7.25, 8]]})["command"]
    assert run_cli(*shlex.split(shown)[1:])["add"] == [[7.25, 8.0]]
