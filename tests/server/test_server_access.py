"""Nobody comes in without a token, nobody writes who may only read, no path leads out."""

from __future__ import annotations

import contextlib
import socket
import time

import httpx
import pytest
from served_project import port_of_ours
from server_world import PATIENCE, TOKEN, WRITES, served

from cryopick.pipeline.project import Project
from cryopick.server.settings import project_token

pytest_plugins = ("server_world",)


@pytest.fixture(scope="module")
def open_page(made_project):
    """A server for all tests of this module, none of which changes the project."""
    with served(made_project / "project") as page:
        yield page


def ask(page, path, *, method="GET", headers=None, **more):
    with httpx.Client(base_url=page.root, timeout=PATIENCE, trust_env=False) as client:
        return client.request(method, path, headers=headers or {}, **more)


def owner(**headers):
    return {"Authorization": f"Bearer {TOKEN}", **headers}


@pytest.mark.parametrize("path", ["/", "/api/overview", "/api/fields", "/api/events", "/nothing"])
def test_without_a_token_there_is_no_answer_on_loopback_either(open_page, path):
    assert ask(open_page, path).status_code == 401


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x", "ä" * 20])
def test_a_wrong_token_opens_nothing(open_page, token):
    answer = ask(open_page, "/", params={"token": token})

    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_the_token_becomes_a_cookie_that_scripts_cannot_read(open_page):
    answer = ask(open_page, "/", params={"token": TOKEN})
    cookie = answer.headers["set-cookie"]

    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie + answer.text
    name, _, value = cookie.partition(";")[0].partition("=")
    assert ask(open_page, "/api/me", headers={"Cookie": f"{name}={value}"}).json()["role"] == (
        "owner"
    )
    forged = value[:-1] + ("A" if value[-1] != "A" else "B")
    assert ask(open_page, "/api/me", headers={"Cookie": f"{name}={forged}"}).status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example", ""])
def test_a_name_that_is_not_the_servers_is_refused(open_page, host):
    assert ask(open_page, "/api/me", headers=owner(Host=host)).status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_a_page_of_another_origin_is_refused(open_page, origin):
    for path in ("/api/me", "/api/events"):
        assert ask(open_page, path, headers=owner(Origin=origin)).status_code == 403


def test_a_change_needs_the_header_that_no_form_can_send(open_page):
    answer = ask(open_page, "/api/share", method="POST", json={}, headers=owner())

    assert answer.status_code == 403


def test_a_change_must_be_json(open_page):
    headers = owner(**WRITES, **{"Content-Type": "text/plain"})

    assert ask(
        open_page, "/api/share", method="POST", content=b"{}", headers=headers
    ).status_code == (415)


def test_a_body_that_is_too_large_is_refused(open_page):
    body = b'{"fields": "' + b"a" * (5 << 20) + b'"}'
    headers = owner(**WRITES, **{"Content-Type": "application/json"})

    said = ask(open_page, "/api/ticks", method="PUT", content=body, headers=headers)
    unsaid = ask(
        open_page, "/api/ticks", method="PUT", content=iter([body[:3 << 20], body[3 << 20:]]),
        headers=headers,
    )  # fmt: skip

    assert said.status_code == 413
    assert unsaid.status_code == 413


def test_headers_that_are_too_large_are_refused(open_page):
    head = f"GET /api/me HTTP/1.1\r\nX-Long: {'a' * 40000}\r\n".encode()

    assert b" 200 " not in talk(open_page, head)[:20]


def share(page, *, seconds):
    body = {"hours": seconds / 3600}
    answer = ask(page, "/api/share", method="POST", json=body, headers=owner(**WRITES))
    return "/" + answer.json()["url"]


def test_a_link_for_others_reads_and_writes_nothing(open_page):
    answer = ask(open_page, share(open_page, seconds=3600))
    cookie = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}

    assert ask(open_page, "/api/me", headers=cookie).json()["role"] == "viewer"
    assert ask(open_page, "/api/fields", headers=cookie).status_code == 200
    changes = {"limits": "PUT", "ticks": "PUT", "jobs": "POST", "share": "POST", "export": "POST"}
    for path, method in changes.items():
        change = ask(open_page, f"/api/{path}", method=method, json={}, headers=cookie | WRITES)
        assert change.status_code == 403


def test_a_link_for_others_ends_and_what_it_opened_with_it(open_page):
    for seconds in (3, 12, 48):  # a busy machine may not open it before it ends
        link = share(open_page, seconds=seconds)
        answer = ask(open_page, link)
        if answer.status_code == 200:
            break
    cookie = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
    time.sleep(seconds + 0.5)

    assert ask(open_page, "/api/me", headers=cookie).status_code == 401
    assert ask(open_page, link).status_code == 401


def test_a_read_only_server_changes_nothing_for_its_owner_either(made_project):
    with served(made_project / "project", "--read-only") as page:
        assert page.get("me")["can_write"] is False
        page.change("PUT", "limits", {"limits": {}}, status=403)


_OUT = [
    "../../../etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "%252e%252e%252fetc%252fpasswd",
    "..%5c..%5c..%5cetc%5cpasswd",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "....//....//etc/passwd",
    "1%00/../../etc/passwd",
    "file:///etc/passwd",
    "p:../../../etc",
    "s:..",
]
_PLACES = [
    "/static/{}",
    "/api/jobs/{}",
    "/api/jobs/1/pictures/{}",
    "/api/sets/{}/count?threshold=1",
    "/api/classifications/{}",
    "/api/particles/{}",
    "/api/downloads/particles/{}",
    "/api/downloads/fields/{}",
    "/api/fields/{}/image",
    "/api/tomograms/{}",
    "/api/forms/{}",
]


@pytest.mark.parametrize("out", _OUT, ids=range(len(_OUT)))
def test_no_path_leads_out_of_the_project(open_page, out):
    for place in _PLACES:
        answer = raw_get(open_page, place.format(out))
        assert b"root:" not in answer
        assert answer.split()[1] in (b"400", b"404", b"307"), (place, answer[:200])


def raw_get(page, target):
    """Ask for a path as it is written: clients tidy up dots."""
    host = page.root.removeprefix("http://")
    head = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n"
    return talk(page, head.encode() + b"Connection: close\r\n\r\n")


def talk(page, head):
    """Send some bytes, and take all that comes back."""
    host, port = page.root.removeprefix("http://").split(":")
    parts = []
    with (
        socket.create_connection((host, int(port)), timeout=PATIENCE) as connection,
        contextlib.suppress(ConnectionError),  # it hangs up on what it does not read to the end
    ):
        connection.sendall(head)
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("name", ["../out", "a/b", ".hidden", "-rf", "a b", "", "x" * 65, "ä"])
def test_a_name_that_is_none_makes_no_folder(made_project, open_page, name):
    before = sorted((made_project / "project").rglob("*"))
    body = {"name": name, "rows": "0-3"}
    answer = ask(
        open_page, "/api/particles/2/save", method="POST", json=body, headers=owner(**WRITES)
    )

    assert answer.status_code == 400
    assert sorted((made_project / "project").rglob("*")) == before


def test_the_token_is_kept_for_the_project_and_for_nobody_else(made_project, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    uuid = Project.open(made_project / "project", writes=False).description.uuid
    token = project_token(uuid)
    (path,) = (tmp_path / "cryopick" / "serve").iterdir()

    assert len(token) >= 43  # 256 bits
    assert project_token(uuid) == token
    assert project_token("another") != token
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert project_token(uuid, is_new=True) != token


def test_the_cookie_outlives_the_server(made_project):
    with port_of_ours() as port:
        with served(made_project / "project", "--port", str(port)) as page:
            cookie = ask(page, "/", params={"token": TOKEN}).headers["set-cookie"].partition(";")[0]
            assert ask(page, "/api/me", headers={"Cookie": cookie}).status_code == 200
        with served(made_project / "project", "--port", str(port)) as page:
            assert ask(page, "/api/me", headers={"Cookie": cookie}).status_code == 200


def test_every_answer_forbids_scripts_and_frames_of_others(open_page):
    for path in ("/api/me", "/api/overview", "/static/app.js"):
        headers = ask(open_page, path, headers=owner()).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"


def test_the_report_runs_nothing(open_page):
    policy = ask(open_page, "/api/report", headers=owner()).headers["content-security-policy"]

    assert policy.startswith("sandbox")
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "allow-scripts" not in policy
