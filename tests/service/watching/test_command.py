"""`advsentry history`: an operator sees who is watched and why, and forgives."""

import http.client
import json
from collections.abc import Iterator

import pytest

from service.__main__ import main
from service.client import Client
from service.detection.engine import Engine
from service.errors import PermissionRefused
from service.watching.report import as_text, merged
from tests.service.running import Running, running
from tests.service.watching.world import GUEST, P_VALUE, Scripted, images

PART = {"mode": "reject", "trouble": "", "is_shared": False, "watched": []}
ENTRY = {
    "client": None,
    "component": None,
    "flags": 1,
    "key": "",
    "since": 0.0,
    "last": 1.0,
    "is_cut_off": False,
    "p_value": 0.001,
    "facts": None,
}


@pytest.fixture
def server(engine: Engine, history: Scripted, identities: str) -> Iterator[Running]:
    with running(
        engine,
        open_watch=history.watch(),
        history="reject",
        history_flags=2,
        history_wait_s=10.0,
        identities=identities,
        admin=True,
    ) as made:
        yield made


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["history", *words]) == 0
    return capsys.readouterr().out


def test_who_is_watched_is_listed_and_forgiven(
    server: Running, history: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    admin = ("--admin", f"http://{server.ports.metrics}")
    assert said(capsys, *admin) == "mode reject\nnobody is watched\n"
    with Client(server.ports.grpc, token=GUEST.token) as client:
        image = images([True])[0]
        client.detect(image)
        with pytest.raises(PermissionRefused):
            client.detect(image)
        found = json.loads(said(capsys, *admin, "--json"))
        search, entry = found["watched"]
        assert (search["client"], search["component"], search["flags"], search["is_cut_off"]) == (None, 3, 2, True)
        assert (entry["client"], entry["flags"], entry["is_cut_off"]) == ("guest", 2, True)
        assert (entry["p_value"], entry["facts"]["label_flips"]) == (P_VALUE, 4)
        _, header, closed, row = said(capsys, *admin).splitlines()
        assert closed.split()[:5] == ["(component", "3)", "2", "cut", "off"]
        assert header.split()[:3] == ["client", "flags", "state"]
        assert row.split()[:4] == ["guest", "2", "cut", "off"]
        assert said(capsys, *admin, "forgive", "guest") == "2 flags are forgiven\n"
        client.detect(images([False])[0])
    assert said(capsys, "forgive", "--nobody", *admin) == "0 flags are forgiven\n"
    assert history.forgiven == ["guest", ""]
    assert said(capsys, *admin) == "mode reject\nnobody is watched\n"


def test_nonsense_is_refused(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    admin = ("--admin", f"http://{server.ports.metrics}")
    assert main(["history", *admin, "forgive", ""]) == 1
    assert "expected a client's name" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["history", *admin, "forgive"])
    assert main(["history", "--admin", "http://127.0.0.1:1"]) == 1


@pytest.mark.parametrize("path", ["/-/history", "/-/history/forgive"])
def test_only_an_operator_on_the_machine_may_ask(server: Running, engine: Engine, path: str) -> None:
    assert post(server, path, {"Origin": "http://127.0.0.1"}) == http.client.FORBIDDEN
    assert post(server, path, {"Content-Length": "5000"}) == http.client.BAD_REQUEST
    assert post(server, path, {"Content-Length": "-1"}) == http.client.BAD_REQUEST
    with running(engine) as other:
        assert post(other, path, {}) == http.client.NOT_FOUND


def post(server: Running, path: str, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection(server.ports.metrics, timeout=20)
    connection.request("POST", path, headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status


def test_several_processes_tell_together() -> None:
    shop = {**ENTRY, "client": "shop", "last": 5.0}
    nobody = {**ENTRY, "client": None, "component": 4, "last": 9.0}
    parts = [
        {**PART, "watched": [shop]},
        {**PART, "trouble": "it hangs", "watched": [nobody]},
        {**PART, "trouble": "it hangs", "watched": []},
    ]
    lines = as_text(json.loads(merged(parts)), 10.0).splitlines()
    assert lines[0] == "mode reject; it hangs"
    assert [line.split()[0] for line in lines[2:]] == ["(component", "shop"]
    assert "1 s ago" in lines[2]
    assert "1970-01-01T00:00:00Z" in lines[2]


def test_processes_that_share_a_history_watch_the_same_clients() -> None:
    shop, other = {**ENTRY, "client": "shop", "key": "51"}, {**ENTRY, "client": "#52", "key": "52"}
    parts = [
        {**PART, "is_shared": True, "watched": [shop, other, {**ENTRY, "component": 4}]},
        {**PART, "is_shared": True, "watched": [{**shop, "client": "#51"}, other, {**ENTRY, "component": 5}]},
    ]
    found = json.loads(merged(parts))["watched"]
    assert sorted((str(one["client"]), one["component"]) for one in found) == [
        ("#52", None),
        ("None", 4),
        ("None", 5),
        ("shop", None),
    ]
    behind = merged([parts[0], {**PART, "is_shared": True, "watched": [{**shop, "client": "#51", "flags": 9}]}])
    assert {one["client"]: one["flags"] for one in json.loads(behind)["watched"]}["shop"] == 9
    apart = json.loads(merged([{**part, "is_shared": False} for part in parts]))["watched"]
    assert len(apart) == 6


def test_a_name_does_nothing_to_a_terminal() -> None:
    parts = [{**PART, "watched": [{**ENTRY, "client": "\x1b[2J\n"}]}]
    assert "\\x1b[2J\\n" in as_text(json.loads(merged(parts)), 10.0)
