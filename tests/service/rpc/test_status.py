"""Each error class has a code, and a client gets the class back."""

import grpc
import pytest

from service.errors import (
    AdvsentryError,
    BundleError,
    ErrorReason,
    InvalidRequest,
    Overloaded,
    SetupError,
    Unavailable,
)
from service.rpc.status import CODES, code_of, error_of, item_reason, trailers_of


def classes(kind: type[AdvsentryError] = AdvsentryError) -> list[type[AdvsentryError]]:
    """The service's own: what other packages derive from them goes by their codes."""
    children = [child for child in kind.__subclasses__() if child.__module__.startswith("service.")]
    return [kind, *(found for child in children for found in classes(child))]


def make(kind: type[AdvsentryError]) -> AdvsentryError:
    return Overloaded("x", retry_after_ms=7) if kind is Overloaded else kind("x")


def test_every_error_has_a_code() -> None:
    assert set(classes()) == set(CODES)
    assert "UNKNOWN" not in {code.name for code in CODES.values()}


@pytest.mark.parametrize("kind", [kind for kind in classes() if kind not in (AdvsentryError, BundleError, SetupError)])
def test_a_client_gets_the_error_back(kind: type[AdvsentryError]) -> None:
    error = make(kind)
    found = error_of(code_of(error), str(error), dict(trailers_of(error)))
    assert type(found) is kind
    assert str(found) == "x"


def test_reason_and_pushback_travel_in_the_trailers() -> None:
    found = error_of(*_wire(InvalidRequest("x", reason=ErrorReason.WRONG_SIZE)))
    assert isinstance(found, InvalidRequest)
    assert found.reason is ErrorReason.WRONG_SIZE
    late = error_of(*_wire(Overloaded("x", retry_after_ms=70)))
    assert isinstance(late, Overloaded)
    assert late.retry_after_ms == 70


def _wire(error: AdvsentryError) -> tuple[object, str, dict[str, str]]:
    return code_of(error), str(error), dict(trailers_of(error))


@pytest.mark.parametrize("kind", classes())
def test_an_item_may_be_tried_again_only_when_time_may_mend_it(kind: type[AdvsentryError]) -> None:
    _, retryable = item_reason(make(kind))
    assert retryable == (kind.__name__ in {"Overloaded", "Unavailable", "DeadlinePassed"})


def test_a_call_that_meets_a_stopping_server_may_be_tried_at_another() -> None:
    assert isinstance(error_of(grpc.StatusCode.CANCELLED, "CANCELLED", {}), Unavailable)
