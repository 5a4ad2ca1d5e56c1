"""What each caller learns of the query history, in each mode and by every API."""

import json
import time
from functools import partial

import grpc
import pytest

from service.client import Client
from service.detection.engine import Engine
from service.detection.verdict import RevealMode
from service.errors import AdvsentryError, PermissionRefused
from service.rpc.read_answers import Options
from service.watching.ledger import CLIENT
from service.watching.report import told
from tests.service import oip
from tests.service.rpc.test_door import until
from tests.service.running import Running, running
from tests.service.watching.world import (
    FRIEND,
    GUEST,
    P_VALUE,
    STEP,
    WAYS,
    Scripted,
    Way,
    images,
    metadata,
    seen,
)

CODE = grpc.StatusCode
FLAGGED = [False, True, False, True, True, False]
NONE = [False] * 6


def serving(engine: Engine, history: Scripted, mode: str, identities: str, **settings: object) -> Running:
    merged = {"history_wait_s": 10.0, "canary_s": 100.0, **settings}
    return running(engine, open_watch=history.watch(), history=mode, identities=identities, **merged)  # type: ignore[return-value]


def counted(server: Running, name: str, **labels: str) -> float:
    return server.value(f"advsentry_history_{name}", **labels)


def test_each_image_is_observed_once_with_whom_it_came_from(engine: Engine, history: Scripted, identities: str) -> None:
    asked = images(FLAGGED)
    known = {image.tobytes(): one for image, one in zip(asked, engine.detect(asked), strict=True)}
    with serving(engine, history, "annotate", identities) as server:
        for times, way in enumerate(WAYS.values(), start=1):
            way(server, asked, GUEST.token)
            assert counted(server, "queries_total", outcome="observed") == 6 * times
            assert counted(server, "flags_total", scope="own") == 3 * times
            assert sorted(query.image.tobytes() for query in history.queries[-6:]) == sorted(known)
        assert counted(server, "flags_total", scope="everyone") == 0
        assert counted(server, "clients", state="watched") == 1
        until(lambda: counted(server, "queue_items") == 0)
    assert {query.client for query in history.queries} == {"guest"}
    for query in history.queries:
        expected = known[query.image.tobytes()]
        shares = [one.probability or 0.0 for one in expected.classes]
        assert query.label == expected.top.index
        assert query.p_value == pytest.approx(expected.p_value)
        assert query.margin == pytest.approx(shares[0] - shares[1])
        assert query.embedding.shape == (4,)


def test_annotate_tells_those_who_may_see_scores(engine: Engine, history: Scripted, identities: str) -> None:
    with serving(engine, history, "annotate", identities) as server:
        for way in WAYS.values():
            assert way(server, images(FLAGGED), FRIEND.token) == FLAGGED
            assert way(server, images(FLAGGED), GUEST.token) == NONE


@pytest.mark.parametrize("mode", ["observe", "silent"])
def test_nobody_is_told_in_modes_that_do_not_wait(
    engine: Engine, history: Scripted, identities: str, mode: str
) -> None:
    with serving(engine, history, mode, identities, history_flags=1) as server:
        for way in WAYS.values():
            assert way(server, images(FLAGGED), FRIEND.token) == NONE
            assert way(server, images(FLAGGED), GUEST.token) == NONE
        until(lambda: len(server.app.models.current.watch.watched()) == 2)  # type: ignore[union-attr]


def test_without_identities_nobody_is_told(engine: Engine, history: Scripted) -> None:
    with serving(engine, history, "annotate", "", reveal=RevealMode.SCORES) as server:
        for way in WAYS.values():
            assert way(server, images(FLAGGED), "") == NONE
        assert counted(server, "flags_total", scope="everyone") == 3 * len(WAYS)
    assert {query.client for query in history.queries} == {""}


@pytest.mark.parametrize(("reveal", "shown"), [("scores", P_VALUE), ("p_values", 0.002), ("decision", 0.002)])
def test_a_flag_has_its_p_value_as_exact_as_others(
    engine: Engine, history: Scripted, identities: str, reveal: str, shown: float
) -> None:
    with (
        serving(engine, history, "annotate", identities, reveal=RevealMode(reveal)) as server,
        Client(server.ports.grpc, token=FRIEND.token) as client,
    ):
        flag = client.detect(images([True])[0]).flags[-1]
        assert (flag.reason, flag.detector, flag.p_value) == ("NEAR_DUPLICATE_QUERIES", "history", shown)
        assert client.detect(images([True])[0]).p_value == client.detect(images([True])[0]).p_value


def test_reject_refuses_who_has_too_many_flags_and_nobody_else(
    engine: Engine, history: Scripted, identities: str
) -> None:
    with serving(engine, history, "reject", identities, history_flags=4) as server:
        for times, way in enumerate(WAYS.values(), start=1):
            _refused(server, way, times)
    assert history.forgiven == ["guest", "friend"] * len(WAYS)


def _refused(server: Running, way: Way, times: int) -> None:
    assert way(server, images(FLAGGED), FRIEND.token) == FLAGGED
    assert way(server, images(FLAGGED), GUEST.token) == NONE  # three flags of each: none has too many
    with pytest.raises((AdvsentryError, grpc.RpcError), match="look like steps of a search") as raised:
        way(server, images([True]), GUEST.token)
    if isinstance(raised.value, grpc.RpcError):
        assert raised.value.code() is CODE.PERMISSION_DENIED  # type: ignore[attr-defined]
    with pytest.raises((AdvsentryError, grpc.RpcError), match="look like steps of a search"):
        way(server, images([False]), GUEST.token)
    assert way(server, images([False, False]), FRIEND.token) == [False, False]
    assert counted(server, "clients", state="cut_off") == 1
    assert server.value("advsentry_images_total", outcome="error") == 2 * times
    assert server.value("advsentry_image_errors_total", reason="REFUSED") == 2 * times
    watch = server.app.models.current.watch
    assert watch is not None
    assert watch.forgive("guest") == 4
    assert way(server, images([True, False]), GUEST.token) == [False, False]
    assert (watch.forgive("friend"), watch.ledger.forgive(watch._key("guest"))) == (3, 1)


def test_steps_of_a_search_are_refused_to_all_accounts_and_what_is_beside_it_to_none(
    engine: Engine, history: Scripted, identities: str
) -> None:
    step, beside, elsewhere = (partial(images, third=STEP), images, partial(images, third=STEP, component=9))
    with serving(engine, history, "reject", identities, history_flags=5) as server:
        for way in WAYS.values():
            assert way(server, step([True] * 3), FRIEND.token) == [True] * 3
            assert way(server, step([True]), GUEST.token) == [False]
            with pytest.raises((AdvsentryError, grpc.RpcError), match="look like steps of a search"):
                way(server, step([True]), GUEST.token)  # his second flag, the fifth of the search
            assert way(server, beside([True]), FRIEND.token) == [True]
            assert way(server, elsewhere([True]), GUEST.token) == [False]
            watch = server.app.models.current.watch
            assert watch is not None
            assert {(one.name, one.who[1]): one.flags for one in watch.watched()} == {
                ("friend", CLIENT): 4,
                ("guest", CLIENT): 3,
                ("", 3): 6,
            }, "the component of one flag is of interest to nobody"
            assert counted(server, "clients", state="watched") == 2
            for client in ("guest", "friend", ""):
                watch.forgive(client)


def test_a_stream_ends_when_its_caller_has_too_many_flags(engine: Engine, history: Scripted, identities: str) -> None:
    with (
        serving(engine, history, "reject", identities, history_flags=3) as server,
        Client(server.ports.grpc, token=GUEST.token) as client,
    ):
        answers = client.detect_stream(list(images([True] * 300)))
        with pytest.raises(PermissionRefused, match="look like steps"):
            list(answers)
        assert server.value("advsentry_image_errors_total", reason="REFUSED") > 0


def test_plain_answers_are_label_and_verdict(engine: Engine, history: Scripted, identities: str) -> None:
    image = images([True])[0]
    with (
        serving(engine, history, "reject", identities, history_flags=2, history_action="plain") as server,
        Client(server.ports.grpc, token=FRIEND.token) as client,
    ):
        before, after = client.detect(image), client.detect(image)
        assert before.p_value is not None
        assert (after.top.label, after.verdict) == (before.top.label, before.verdict)
        assert (after.p_value, after.detectors, after.flags, after.top.probability) == (None, (), (), None)
        wish = Options(detectors=("contrast",), top_k=2)
        assert len(client.detect(image, wish).classes) == 1
        plain = oip.infer(server.channel, oip.pixels(image[None]), metadata=metadata(FRIEND.token))
        assert [output.name for output in plain.outputs] == ["label", "adversarial"]
        assert counted(server, "clients", state="cut_off") == 1


def test_of_nobody_the_component_is_refused(engine: Engine, history: Scripted) -> None:
    with serving(engine, history, "reject", "", history_flags=4) as server:
        for component, way in enumerate(WAYS.values()):
            assert way(server, images(FLAGGED, component=2 * component), "") == NONE
            assert way(server, images(FLAGGED, component=2 * component + 1), "") == NONE
            with pytest.raises((AdvsentryError, grpc.RpcError), match="look like steps of a search"):
                way(server, images([True], component=2 * component), "")
            assert way(server, images([False], component=2 * component), "") == [False]  # others go on
        assert counted(server, "clients", state="cut_off") == len(WAYS)


def test_silent_shows_strangers_label_and_verdict_from_the_first_image(
    engine: Engine, history: Scripted, identities: str
) -> None:
    image = images([False])[0]
    with serving(engine, history, "silent", identities, reveal=RevealMode.SCORES) as server:
        with Client(server.ports.grpc, token=GUEST.token) as guest:
            found = guest.detect(image)
            assert (found.p_value, found.detectors, found.flags, found.top.probability) == (None, (), (), None)
            assert guest.info().detectors == ()
            for name in ("contrast", "no such"):
                with pytest.raises(PermissionRefused, match="returns no rows of detectors"):
                    guest.detect(image, Options(detectors=(name,)))
        with Client(server.ports.grpc, token=FRIEND.token) as friend:
            assert friend.detect(image, Options(raw_scores=True)).detectors[0].score is not None
            assert friend.info().detectors == ("brightness", "contrast")
        asked = oip.pb.ModelMetadataRequest(name="advsentry")
        answer = oip.ask(server.channel, "ModelMetadata", asked, metadata=metadata(GUEST.token))
        told = oip.METHODS["ModelMetadata"].FromString(answer)
        assert [output.name for output in told.outputs] == ["label", "adversarial"]
        assert "detectors" not in told.properties


def test_silent_ends_late(engine: Engine, history: Scripted, identities: str) -> None:
    image = images([True])[0]
    with (
        serving(engine, history, "silent", identities, history_flags=2, history_late_flags=5) as server,
        Client(server.ports.grpc, token=GUEST.token) as client,
        Client(server.ports.grpc, token=FRIEND.token) as friend,
    ):
        client.detect(image)
        client.detect(image)
        with pytest.raises(PermissionRefused, match="gets no more answers"):
            list(map(client.detect, [image] * 1000))
        friend.detect(image)


def test_an_answer_waits_for_its_history_for_so_long_and_no_longer(
    engine: Engine, history: Scripted, identities: str
) -> None:
    history.goes_on.clear()
    try:
        with serving(engine, history, "annotate", identities, history_wait_s=0.01) as server:
            for way in WAYS.values():
                assert way(server, images([True, True]), FRIEND.token) == [False, False]
            assert counted(server, "late_total") == 2 * len(WAYS)
            history.goes_on.set()
    finally:
        history.goes_on.set()


@pytest.mark.parametrize("mode", ["observe", "silent"])
def test_an_answer_does_not_wait_where_nobody_would_see_it(
    engine: Engine, history: Scripted, identities: str, mode: str
) -> None:
    history.goes_on.clear()
    try:
        with serving(engine, history, mode, identities, history_wait_s=10.0) as server:
            for way in WAYS.values():
                assert way(server, images([True, True]), FRIEND.token) == [False, False]
            assert counted(server, "queue_items") == 2 * len(WAYS)
            assert counted(server, "late_total") == 0
            history.goes_on.set()
    finally:
        history.goes_on.set()
    assert len(history.queries) == 2 * len(WAYS)  # observed before the end


def test_what_another_process_saw_before_it_heard_of_the_forgiving_is_forgiven(
    engine: Engine, history: Scripted, identities: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgive(number: int) -> set[int]:
        history.listener.saw(number, seen(P_VALUE), time.time())
        return set()

    monkeypatch.setattr(history, "forgive_number", forgive)
    with serving(engine, history, "reject", identities, history_flags=1) as server:
        watch = server.app.models.current.watch
        assert watch is not None
        forgive(history.number("guest"))
        assert [one.name or one.who for one in watch.watched()] != []
        assert watch.forgive("guest") == 1
        assert watch.watched() == []


def test_a_client_of_other_processes_is_forgiven_by_what_is_shown_of_him(
    engine: Engine, history: Scripted, identities: str
) -> None:
    with serving(engine, history, "reject", identities, history_flags=1) as server:
        watch = server.app.models.current.watch
        assert watch is not None
        history.listener.saw(history.number("far"), seen(P_VALUE), time.time())
        shown = [entry["client"] for entry in json.loads(told(watch))["watched"]]
        assert shown == [None, f"#{history.number('far'):016x}"]
        assert watch.forgive(shown[1]) == 1
        assert watch.watched() == []
        assert history.forgiven == [f"{history.number('far'):x}"]
        assert watch.forgive(shown[1]) == 0, "nobody is shown so any more: it is a name"
        assert history.forgiven[1:] == [f"{history.number(shown[1]):x}"]


def test_forgiving_a_client_opens_the_searches_that_his_queries_are_beside(
    engine: Engine, history: Scripted, identities: str
) -> None:
    with serving(engine, history, "reject", identities, history_flags=2) as server:
        WAYS["Detect"](server, images([False]), FRIEND.token)
        watch = server.app.models.current.watch
        assert watch is not None
        for client in ("other", "guest"):
            history.listener.saw(history.number(client), seen(P_VALUE, added=1.0), time.time())
        assert [one.who[1] for one in watch.watched() if watch.is_cut_off(one)] == [3]
        assert watch.forgive("friend") == 0
        assert not any(watch.is_cut_off(one) for one in watch.watched())
