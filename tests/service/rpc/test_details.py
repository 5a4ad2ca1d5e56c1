"""What programs read of an error: googleapis' own messages decode ours."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from service.errors import AdvsentryError, DeadlinePassed, InvalidRequest, Overloaded
from service.rpc.details import KEY
from service.rpc.status import code_of, text_of, trailers_of


def decoded(error: AdvsentryError) -> status_pb2.Status:
    data = dict(trailers_of(error))[KEY]
    assert isinstance(data, bytes)
    return status_pb2.Status.FromString(data)


@pytest.mark.parametrize("error", [DeadlinePassed("late"), InvalidRequest("bad"), AdvsentryError("ours " * 1000)])
def test_code_and_text_are_those_of_the_call(error: AdvsentryError) -> None:
    status = decoded(error)
    assert (status.code, status.message) == (code_of(error).value[0], text_of(error))
    assert len(status.message) <= 1000
    assert not status.details


@pytest.mark.parametrize(("milliseconds", "seconds", "nanos"), [(20, 0, 20_000_000), (4321, 4, 321_000_000)])
def test_one_who_may_come_back_is_told_when(milliseconds: int, seconds: int, nanos: int) -> None:
    error = Overloaded("full", retry_after_ms=milliseconds)
    (detail,) = decoded(error).details
    info = error_details_pb2.RetryInfo()
    assert detail.Unpack(info)
    assert (info.retry_delay.seconds, info.retry_delay.nanos) == (seconds, nanos)
    assert dict(trailers_of(error))["grpc-retry-pushback-ms"] == str(milliseconds)
    assert code_of(error) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_field_at_fault_is_named() -> None:
    (detail,) = decoded(InvalidRequest("too high", field="options.target_fpr")).details
    request = error_details_pb2.BadRequest()
    assert detail.Unpack(request)
    assert [(found.field, found.description) for found in request.field_violations] == [
        ("options.target_fpr", "too high")
    ]
