"""The command attacks a bundle in this process and one that is served, and goes on where it was stopped."""

import json
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from deploy.redteam import __main__ as command
from deploy.redteam import bench
from deploy.redteam.backend import Call
from deploy.redteam.cases import Server
from deploy.redteam.in_process import InProcess, secret_of
from deploy.redteam.material import Victims, parts_of, victims_of
from deploy.redteam.remote import Remote
from deploy.redteam.running import Budget, Outcome, run
from deploy.redteam.search import Answer, Attack, driven
from deploy.redteam.square import SquareSearch
from deploy.results import FIELDS, page
from service.client import Client
from service.detection.bundle import SHIPPED
from service.detection.engine import Engine
from service.detection.types import Bytes8
from service.errors import SetupError
from service.history.bounds import Bounds
from service.history.history import History
from service.rpc.call import Scope
from service.tokens import new_token
from service.watching.opening import open_watch
from service.watching.types import Mode, Rules
from tests.service.running import running
from tests.service.watching.world import CALIBRATION, STEP, Scripted

BOUNDS = Bounds(entries=4096)
EPS, LEVEL = 38, 0.1


@pytest.fixture(scope="module")
def digits() -> Engine:
    return Engine.load(SHIPPED / "digits", threads=1)


@pytest.fixture(scope="module")
def victims(digits: Engine) -> Victims:
    return victims_of(digits, parts_of(digits, None), 3, seed=0)


def rules(mode: Mode, *, flags: int = 5, late_flags: int = 0) -> Rules:
    return Rules(mode=mode, level=LEVEL, window_s=3600.0, flags=flags, late_flags=late_flags)


def attacked(
    engine: Engine,
    victims: Victims,
    rules: Rules | None,
    queries: int = 100,
    *,
    has_raw_scores: bool = True,
) -> list[Outcome]:
    backend = InProcess(engine, CALIBRATION, rules, bounds=BOUNDS, has_raw_scores=has_raw_scores)
    attack: Attack = SquareSearch(queries=queries)
    found = run(attack, victims.goals(EPS), backend, Budget(queries=queries), eps=[EPS], seed=0)
    assert found is not None
    return found


def test_victims_are_read_rightly_and_accepted(digits: Engine, victims: Victims) -> None:
    found = digits.detect(victims.images)
    assert [one.top.index for one in found] == victims.labels.tolist()
    assert {one.verdict for one in found} == {"clean"}
    for label, others in zip(victims.labels, victims.others, strict=True):
        assert label not in digits.measure(others).labels


def test_a_history_notices_and_only_some_modes_end_the_attack(digits: Engine, victims: Victims) -> None:
    free = attacked(digits, victims, None)
    told = attacked(digits, victims, rules(Mode.ANNOTATE))
    ended = attacked(digits, victims, rules(Mode.REJECT))
    assert [one.flags for one in free] == [0, 0, 0]
    assert [one.queries for one in told] == [one.queries for one in free], "the same answers"
    assert min(one.flags for one in told) > 5
    assert [one.first_flag for one in ended] == [one.first_flag for one in told]
    assert {one.end for one in ended} == {"accounts"}
    assert [one.flags for one in ended] == [5, 5, 5]


def test_a_silent_server_shows_no_scores_and_ends_late(digits: Engine, victims: Victims) -> None:
    outcomes = attacked(digits, victims, rules(Mode.SILENT, late_flags=20), 300)
    assert {one.end for one in outcomes} == {"accounts"}
    assert len({one.flags for one in outcomes}) > 1, "drawn for each account"
    assert all(5 <= one.flags <= 25 for one in outcomes)


def test_a_server_that_runs_gives_the_same_outcomes_as_its_parts_in_this_process(
    digits: Engine, victims: Victims
) -> None:
    with running(digits, reveal="scores") as server, Client(server.ports.grpc) as client:
        backend = Remote([client] * 3, classes=10)
        there = run(SquareSearch(queries=40), victims.goals(EPS), backend, Budget(queries=40), eps=[EPS], seed=0)
    assert there == attacked(digits, victims, None, 40, has_raw_scores=False)


@pytest.mark.parametrize("mode", ["annotate", "reject"])
def test_a_server_with_a_history_flags_and_ends_what_it_does_in_this_process(
    digits: Engine, victims: Victims, tmp_path: Path, mode: str
) -> None:
    # With one account, since the wire does not tell a closed one from a step of a search that others have flags for.
    accounts = 2 if mode == Mode.ANNOTATE else 1
    goals, attack, budget = victims.goals(EPS)[:1], SquareSearch(queries=60), Budget(queries=60, accounts=accounts)
    here = InProcess(digits, CALIBRATION, rules(Mode(mode)), bounds=BOUNDS, has_raw_scores=False)
    known = run(attack, goals, here, budget, eps=[EPS], seed=0)
    assert known is not None
    assert known[0].flags >= 5 * accounts, "or there is nothing to compare"
    tokens = [new_token(f"account {number}", list(Scope)) for number in range(2)]
    identities = tmp_path / "identities.toml"
    identities.write_text("".join(token.entry for token in tokens))
    history = History(CALIBRATION, dimensions=128, bounds=BOUNDS, secret=secret_of(0, 0))
    watch = partial(open_watch, calibration_of=lambda _: CALIBRATION, open_history=lambda *_, **__: history)
    settings = {"history": mode, "history_level": LEVEL, "history_wait_s": 10.0, "reveal": "scores", "canary_s": 1e6}
    with running(digits, open_watch=watch, identities=str(identities), **settings) as server, ExitStack() as stack:
        clients = [stack.enter_context(Client(server.ports.grpc, token=one.token)) for one in tokens]
        there = run(attack, goals, Remote(clients, classes=10), budget, eps=[EPS], seed=0)
        flags = sum(server.value("advsentry_history_flags_total", scope=scope) for scope in ("own", "everyone"))
    assert there is not None
    shown = replace(known[0], flags=there[0].flags, first_flag=there[0].first_flag)
    assert there == [shown], "but for flags of refused calls, which nobody is told of"
    assert flags == known[0].flags


def test_the_command_writes_a_result_and_goes_on_where_it_was_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "_calibration", lambda *_: CALIBRATION)
    result = tmp_path / "redteam-digits.json"
    words = ["--bundle", "digits", "--budget", "30", "--images", "2", "--level", "0.25", "--folder", str(tmp_path)]
    words += ["--only", "plain_square_off,plain_square_annotate", "--result", str(result)]
    assert command.main([*words, "--minutes", "0"]) == command.UNFINISHED
    assert not result.exists()
    assert command.main(words) == 0
    capsys.readouterr()
    assert command.main([*words, "--minutes", "0"]) == 0, "nothing was left to do"
    assert "| square | plain | annotate | 1 | 76/255 |" in capsys.readouterr().out
    written = json.loads(result.read_text(encoding="utf-8"))
    assert set(written) == {*FIELDS, "cells"}
    assert len(written["cells"]) == 3
    assert written["data"]["quick"], "too few queries and images to be kept"
    assert "| yes |" in page([written], {"redteam-digits": {"undefended_square_success": "<= 1"}})


def test_the_command_attacks_a_server_that_runs(digits: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--bundle", "digits", "--budget", "9", "--images", "1", "--only", "plain_square_off_eps_38"]
    with running(digits) as server:
        assert command.main([*words, "--target", server.ports.grpc]) == 0
        called = server.value(
            "grpc_server_started_total",
            grpc_type="unary",
            grpc_service="advsentry.v1.DetectorService",
            grpc_method="BatchDetect",
        )
    assert called == 9, "one call for each query of the search"
    assert "| square | plain | off | 1 | 38/255 | 0/1 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--only", "nothing"], "the beginning of a case's name"),
        (["--target", "127.0.0.1:1"], "cases of the one mode"),
        (["--target", "127.0.0.1:1", "--only", "slow"], "none that take hours"),
        (["--images", "5000"], "5000 test images"),
    ],
)
def test_what_cannot_be_measured_is_said(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--bundle", "digits", "--level", "0.25", *words]) == 1
    assert says in capsys.readouterr().err


def test_an_account_without_a_token_is_said(victims: Victims) -> None:
    with pytest.raises(SetupError, match="a token for each account of each attacked image, got 0 tokens"):
        run(SquareSearch(queries=9), victims.goals(EPS), Remote([], classes=10), Budget(queries=9), eps=[EPS], seed=0)


def test_a_level_that_the_calibration_does_not_support_is_refused(digits: Engine) -> None:
    with pytest.raises(SetupError, match="needs a calibration with 9999 streams"):
        InProcess(digits, CALIBRATION, Server(level=1e-4).rules("reject"))


def test_the_attackers_of_one_backend_do_not_share_a_history(digits: Engine, victims: Victims) -> None:
    first, *_ = attacked(digits, victims, rules(Mode.ANNOTATE))
    alone = Victims(images=victims.images[:1], labels=victims.labels[:1], others=victims.others[:1])
    (same,) = attacked(digits, alone, rules(Mode.ANNOTATE))
    assert np.isclose(first.flags, same.flags, atol=1), "but for what the graph's batches round"


def test_steps_of_a_search_by_other_accounts_are_refused_and_these_stay_open(
    digits: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.redteam.in_process.History", lambda *_, **__: Scripted())
    here = InProcess(digits, CALIBRATION, rules(Mode.REJECT, flags=3))
    step, beside = (np.full((1, 8, 8, 1), 255, np.uint8) for _ in range(2))
    beside[0, 0, 2] = STEP - 1

    def asked(account: str, images: Bytes8) -> Answer:
        ((told,),) = here.ask([Call(attacker=0, account=account, images=images, now=0.0, every_s=1.0)])
        assert told.is_flagged
        return told.answer

    assert not asked("a", step).is_refused
    assert not asked("b", step).is_refused
    refused = asked("c", step)
    assert (refused.is_refused, refused.is_cut_off, refused.is_flagged) == (True, False, True)
    assert not asked("b", beside).is_refused
    assert asked("b", step).is_cut_off


def test_a_step_that_is_refused_is_refused_again_when_another_account_sends_its_pixels(
    digits: Engine, victims: Victims
) -> None:
    here, asked, refused = InProcess(digits, CALIBRATION, rules(Mode.REJECT), bounds=BOUNDS), [0], []

    def answer(image: Bytes8) -> Answer:
        asked[0] += 1
        call = Call(attacker=0, account=f"account {asked[0]}", images=image[None], now=float(asked[0]), every_s=1.0)
        return here.ask([call])[0][0].answer

    def oracle(images: Bytes8) -> list[Answer]:
        answers = [answer(image) for image in images]
        refused.extend(image for image, one in zip(images, answers, strict=True) if one.is_refused)
        return answers

    driven(SquareSearch(queries=40).search(victims.goals(EPS)[0], np.random.default_rng(0)), oracle, 40)
    assert len(refused) > 10
    assert all(answer(image).is_refused for image in refused)
