"""The private HTTP port: by which names it may be asked."""

import http.client
from collections.abc import Iterator

import pytest

from service.admin import ask_reload
from service.errors import AdvsentryError, Unavailable
from service.private_http import RELOAD, PrivateHttp, metrics_names
from service.settings import Settings


def made(**settings: object) -> PrivateHttp:
    names = metrics_names(Settings(**settings))  # type: ignore[arg-type]
    return PrivateHttp(
        ("127.0.0.1", 0),
        scrape=lambda _: (b"page", "text/plain"),
        commands={"/-/reload": lambda _: "done"},
        names=names,
    )


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateHttp]:
    serving = made(metrics_names="metrics.example, advsentry")
    yield serving
    serving.close()


def status(server: PrivateHttp, host: str | None, method: str = "GET", path: str = "/metrics") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.putrequest(method, path, skip_host=True)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


@pytest.mark.parametrize(
    "host", ["127.0.0.1:9464", "[::1]:9464", "10.1.2.3", "localhost:9464", "METRICS.example:9464", "advsentry", None]
)
def test_who_asks_by_an_address_or_a_known_name_is_answered(server: PrivateHttp, host: str | None) -> None:
    assert status(server, host) == 200
    assert status(server, host, "POST", "/-/reload") == 200


@pytest.mark.parametrize("host", ["attacker.example:9464", "127.0.0.1.attacker.example", "metrics.example.org"])
def test_a_page_that_has_its_own_name_lead_here_reads_nothing(server: PrivateHttp, host: str) -> None:
    assert status(server, host) == 421
    assert status(server, host, "POST", "/-/reload") == 421


@pytest.mark.parametrize(("kind", "status_code"), [(Unavailable, 503), (AdvsentryError, 409)])
def test_who_asks_learns_whether_it_may_go_later(kind: type[AdvsentryError], status_code: int) -> None:
    def refuse(_: str) -> str:
        raise kind("not now")

    server = PrivateHttp(("127.0.0.1", 0), scrape=lambda _: (b"", ""), commands={RELOAD: refuse})
    try:
        assert status(server, None, "POST", RELOAD) == status_code
        with pytest.raises(AdvsentryError, match=r"^not now$") as caught:
            ask_reload(f"http://127.0.0.1:{server.port}")
        assert type(caught.value) is kind
    finally:
        server.close()


def test_any_name_where_the_operator_says_so() -> None:
    server = made(metrics_names="*")
    try:
        assert status(server, "attacker.example") == 200
    finally:
        server.close()


def test_the_name_that_it_listens_on_is_known() -> None:
    assert "metrics.internal" in metrics_names(Settings(metrics_host="metrics.internal"))
