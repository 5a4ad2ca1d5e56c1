"""The outermost layer of every call: errors become statuses, and each call is counted once, whatever its end."""

import asyncio
import inspect
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from service.errors import AdvsentryError, InvalidRequest
from service.metrics import Metrics, RpcMetrics
from service.rpc.access import Access, takes_images
from service.rpc.call import Call, EndedCall, current_call
from service.rpc.closing import Closing
from service.rpc.intake import Intake
from service.rpc.reading import read_message
from service.rpc.status import code_of, text_of, times_trailers, trailers_of

__all__ = ["Door", "Edge", "OnEnd"]

log = logging.getLogger(__name__)

# grpc types a handler by messages that only its servicer knows.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
OnEnd: TypeAlias = Callable[[EndedCall], None]
Begin: TypeAlias = "Callable[[Context], Call]"
Door: TypeAlias = "Callable[[Context], None]"
Read: TypeAlias = "Callable[[Context], Awaitable[Any]]"
Trailers: TypeAlias = tuple[tuple[str, str | bytes], ...]

_KINDS = {
    (False, False): "unary",
    (True, False): "client_stream",
    (False, True): "server_stream",
    (True, True): "bidi_stream",
}
_AHEAD_S = 0.1
"""Seconds by which a client's deadline may come before ours: ours begins when its message has come. A client that
leaves so shortly before his deadline counts as one whose time was up, since both send us the same."""
_MAX_NAME = 200  # characters of a method's name, which may be anything


class Edge(grpc.aio.ServerInterceptor):
    """Lets callers in, gives every error its status, and counts calls and messages.

    Our errors get their code from `status.py`. What nobody foresaw becomes INTERNAL with an opaque id; its text goes to
    the log only. UNKNOWN is never sent.
    """

    def __init__(
        self,
        metrics: Metrics,
        access: Access,
        intake: Intake,
        on_end: Sequence[OnEnd] = (),
        doors: Mapping[str, Door] | None = None,
        closing: Closing | None = None,
    ) -> None:
        """Puts the parts together.

        Args:
            on_end: told of each call when it has ended; what they raise is logged.
            doors: by path, what looks at a call before its message is read, and raises what turns it away.
            closing: what becomes of images that come when the server is about to stop; None for nothing special.
        """
        self._metrics = metrics
        self._access = access
        self._intake = intake
        self._on_end = on_end
        self._doors = dict(doors or {})
        self._closing = closing
        self._wrapped: dict[str, tuple[Handler, Handler]] = {}  # by path, beside what it was made of

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], "Awaitable[Handler | None]"],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Wraps the handler of a call."""
        handler = await continuation(handler_call_details)
        path = str(handler_call_details.method)
        known = self._wrapped.get(path)
        if known is not None and known[0] is handler:
            return known[1]
        service, _, method = path.lstrip("/").partition("/")
        end = _End(service, method, self._on_end)
        if handler is None:
            self._count_unknown()
            end.tell(grpc.StatusCode.UNIMPLEMENTED.name, "", "", 0.0, tuple)
            return None  # grpc answers UNIMPLEMENTED
        kind = _KINDS[bool(handler.request_streaming), bool(handler.response_streaming)]
        counts = self._metrics.rpc(kind, service, method, takes_images(path))

        def begin(context: Context) -> Call:
            return self._access.begin(path, context)

        # what takes images reads its streams by a `StreamReader`, which cuts off no read
        read, closing = (_read, self._closing) if takes_images(path) else (read_message, None)
        wrapped = _wrapped(handler, counts, begin, self._intake, end, self._doors.get(path), read, closing)
        self._wrapped[path] = (handler, wrapped)  # of a method that exists, so there are few
        return wrapped

    def _count_unknown(self) -> None:
        counts = self._metrics.rpc("unary", "unknown", "unknown", False)  # one row, whatever a caller invents
        counts.started.inc()
        counts.handled(grpc.StatusCode.UNIMPLEMENTED.name)


class _End:
    """Tells that a call of one method has ended."""

    def __init__(self, service: str, method: str, on_end: Sequence[OnEnd]) -> None:
        self._service = service[:_MAX_NAME]
        self._method = method[:_MAX_NAME]
        self._on_end = on_end

    def tell(self, code: str, reason: str, error_id: str, seconds: float, metadata: Callable[[], Any]) -> None:
        if not self._on_end:
            return
        ended = EndedCall(
            service=self._service,
            method=self._method,
            code=code,
            reason=reason,
            error_id=error_id,
            seconds=seconds,
            call=current_call(),
            metadata=metadata() or (),
        )
        for on_end in self._on_end:
            try:
                on_end(ended)
            except Exception:
                log.exception("the end of a call could not be told")


class _Call:
    """One call: lets it begin, counts it, and turns what it raises into a status.

    When the loop is behind, gRPC hands over calls whose callers have left already, and says so one turn later. Nothing
    is begun for them, nor is a status sent: one that the end of the call cuts off keeps its memory for good
    (https://github.com/grpc/grpc/issues/43360).
    """

    def __init__(self, context: Context, counts: RpcMetrics, begin: Begin, end: _End) -> None:
        self._context = context
        self._counts = counts
        self._begin = begin
        self._end = end
        self._since = time.monotonic()
        counts.begun()

    async def run(self, serve: Callable[[Call], Awaitable[Any]]) -> Any:
        code, reason, error_id = "OK", "", ""
        trailers: Trailers = ()
        call: Call | None = None
        try:
            try:
                await asyncio.sleep(0)  # the turn in which gRPC cancels a call whose caller left before it began
                call = self._begin(self._context)
                return await serve(call)
            except asyncio.CancelledError:
                code = _why_cancelled(self._context).name
                raise
            except grpc.aio.AbortError:
                code = _code(self._context).name
                raise
            except AdvsentryError as error:
                reason, status = _reason(error), code_of(error)
                notes = current_call()
                times = times_trailers(notes.queue_s, notes.inference_s, notes.batch_size)
                text, trailers = text_of(error), (*times, *trailers_of(error))
            except DecodeError:  # of the services that are not ours, such as reflection
                status = grpc.StatusCode.INVALID_ARGUMENT
                text = "expected a message of this method, got others"
            except Exception:
                status, error_id = grpc.StatusCode.INTERNAL, secrets.token_hex(6)
                text = f"internal error {error_id}; the server's log explains"
                log.exception("error %s: a call failed unexpectedly", error_id)
            # The error is gone here: what `abort` raises stays in a cycle of gRPC's until it is collected, and with it
            # would the error's stack, in which the message is.
            code = status.name
            await _abort(self._context, status, text, trailers)
        finally:
            seconds = time.monotonic() - self._since
            if call is not None:
                call.close()
            self._counts.handled(code)
            self._counts.took(seconds)
            self._end.tell(code, reason, error_id, seconds, self._context.invocation_metadata)


def _reason(error: AdvsentryError) -> str:
    if isinstance(error, InvalidRequest) and error.reason is not None:
        return error.reason.value
    return type(error).__name__


async def _abort(context: Context, code: grpc.StatusCode, text: str, trailers: Trailers) -> None:
    """Ends a call with a status; one whose caller has gone meanwhile as cancelled, since gRPC would log a stack."""
    await asyncio.sleep(0)  # as in `_Call.run`
    try:
        await context.abort(code, text, trailers)
    except grpc.aio.InternalError as error:
        raise asyncio.CancelledError from error


def _why_cancelled(context: Context) -> grpc.StatusCode:
    """A call is cancelled by its client, or by its deadline, which the client may tell before our clock has it."""
    left: float | None = context.time_remaining()  # None without a deadline, whatever its stub says
    return grpc.StatusCode.DEADLINE_EXCEEDED if left is not None and left <= _AHEAD_S else grpc.StatusCode.CANCELLED


def _code(context: Context) -> grpc.StatusCode:
    found = context.code()
    return next((code for code in grpc.StatusCode if found in (code, code.value[0])), grpc.StatusCode.UNKNOWN)


class _Counting:
    """A context that counts what is written."""

    def __init__(self, context: Context, counts: RpcMetrics) -> None:
        self._context = context
        self._sent = counts.sent
        self.time_remaining = context.time_remaining
        self.set_trailing_metadata = context.set_trailing_metadata

    async def write(self, message: Any) -> None:
        try:
            await self._context.write(message)
        except grpc.aio.InternalError as error:  # the call is over; gRPC cancels it a few turns later
            raise asyncio.CancelledError from error
        self._sent.inc()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


async def _read(context: Context) -> Any:
    return await context.read()


async def _counted(context: Context, read: Read, counts: RpcMetrics, call: Call) -> AsyncIterator[Any]:
    """The messages of a stream; read from the context, since grpc's own iterator would be one more around it."""
    while (request := await read(context)) is not grpc.aio.EOF:
        counts.received.inc()
        call.goes_on()
        yield request


def _wrapped(
    handler: Handler,
    counts: RpcMetrics,
    begin: Begin,
    intake: Intake,
    end: _End,
    door: "Door | None",
    read: Read,
    closing: Closing | None,
) -> Handler:
    """The handler with all around it.

    It takes a stream, whatever the handler takes: so a message is read when its caller is known, not before.

    Args:
        read: gives the next message of those that it takes as a stream.
    """
    streams_in, streams_out = bool(handler.request_streaming), bool(handler.response_streaming)
    inner: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    answer = _write_all if inspect.isasyncgenfunction(inner) else _same

    def served(context: Context, given: Any) -> Callable[[Call], Awaitable[Any]]:
        """Args: given is what the handler gets, the context or one that counts."""

        async def serve(call: Call) -> Any:
            if closing is not None:
                await closing.pass_by()
            if streams_in:
                return await answer(inner(_counted(context, read, counts, call), given), given)
            if door is not None:
                door(context)
            await call.turn()
            message = await intake.read(context)
            try:
                counts.came()
                return await answer(inner(message, given), given)
            finally:
                intake.release(message)

        return serve

    async def one_answer(_: Any, context: Context) -> Any:
        result = await _Call(context, counts, begin, end).run(served(context, context))
        counts.sent.inc()
        return result

    async def many_answers(_: Any, context: Context) -> None:
        counting: Any = _Counting(context, counts)
        await _Call(context, counts, begin, end).run(served(context, counting))

    made: Any = grpc.stream_stream_rpc_method_handler if streams_out else grpc.stream_unary_rpc_method_handler
    behaviour = many_answers if streams_out else one_answer
    result: Handler = made(behaviour, handler.request_deserializer, handler.response_serializer)
    return result


async def _same(answer: Awaitable[Any], _: Any) -> Any:
    return await answer


async def _write_all(answers: AsyncIterator[Any], context: Any) -> None:
    async for answer in answers:
        await context.write(answer)
