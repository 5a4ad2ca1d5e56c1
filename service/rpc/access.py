"""Who is let in to which method, and with how many images."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import grpc

from service.errors import PermissionRefused, Unauthenticated
from service.rpc.call import ANONYMOUS, Call, Caller, Scope, begin_call
from service.rpc.convert import SERVICE
from service.rpc.identity import Identities, IdentityFile
from service.rpc.rates import Rates, Slots, peer_key
from service.rpc.shares import FairShare, Share

__all__ = ["SCOPE_OF", "Access", "is_probe", "takes_images"]

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]

_OIP = "inference.GRPCInferenceService"
SCOPE_OF: dict[str, Scope | None] = {
    **dict.fromkeys([f"/{SERVICE}/{name}" for name in ("Detect", "BatchDetect", "StreamDetect")], Scope.DETECT),
    f"/{SERVICE}/GetModelInfo": Scope.INFO,
    **dict.fromkeys([f"/{_OIP}/{name}" for name in ("ModelInfer", "ModelStreamInfer")], Scope.DETECT),
    **dict.fromkeys(
        [f"/{_OIP}/{name}" for name in ("ServerMetadata", "ModelMetadata", "ModelConfig", "ModelStatistics")],
        Scope.INFO,
    ),
    **dict.fromkeys([f"/{_OIP}/{name}" for name in ("ServerLive", "ServerReady", "ModelReady")]),
    **dict.fromkeys([f"/grpc.health.v1.Health/{name}" for name in ("Check", "Watch")]),
    **dict.fromkeys(
        [f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha")],
        Scope.INFO,
    ),
}
"""What each method takes; None for nothing, not even an identity. A method that is not here is refused wherever there
are identities."""


def takes_images(method: str) -> bool:
    """Whether a method, by its path, takes images; one that is not known counts as if it did."""
    return SCOPE_OF.get(method, Scope.DETECT) is Scope.DETECT


def is_probe(method: str) -> bool:
    """Whether a method, by its path, tells anybody how the server is, and nothing else."""
    return SCOPE_OF.get(method, Scope.DETECT) is None


_HEADER = "authorization"
_SCHEME = "bearer "
_MAX_NAME = 64


class Access:
    """Decides about each call before its message is read."""

    def __init__(
        self,
        *,
        identities: IdentityFile | None = None,
        asks_for_certificates: bool = False,
        rates: Rates | None = None,
        shares: FairShare | None = None,
        slots: Slots | None = None,
    ) -> None:
        """Lets everybody do everything unless told otherwise.

        Args:
            identities: who is known; without it every certificate that the server's roots signed is, with every scope.
            asks_for_certificates: whether every client has shown one.
            rates: images a second.
            shares: images under way.
            slots: calls that are open.
        """
        self._identities = identities
        self._asks_for_certificates = asks_for_certificates
        self._rates = rates
        self._shares = shares
        self._slots = slots

    def begin(self, method: str, context: Context) -> Call:
        """The call of one who may make it.

        Raises:
            Unauthenticated: nobody knows who it is.
            PermissionRefused: the scope is missing.
            Overloaded: the caller has too many calls open.
        """
        call = begin_call(ANONYMOUS)
        if self._identities is not None or self._asks_for_certificates:
            scope = SCOPE_OF.get(method, Scope.DETECT)
            if scope is not None:
                call.caller = caller = self._caller(context)
                if scope not in caller.scopes or method not in SCOPE_OF:
                    raise PermissionRefused(
                        f"{method[:200]} takes the scope {scope.value!r}, which {caller.name} does not have"
                    )
                call.check = partial(self._check, caller, context)
        call.key = peer_key(context.peer()) if call.caller is ANONYMOUS else call.caller.name
        if self._slots is not None:
            self._slots.take(call.key)
            call.slots = self._slots
        if self._rates is not None:
            call.bucket = self._rates.bucket(call.key, call.caller.images_per_s, call.caller.burst)
        if self._shares is not None and takes_images(method):
            call.share = Share(self._shares, call.key)
        return call

    def _check(self, caller: Caller, context: Context) -> None:
        """Whether somebody is still who he was when his call began."""
        now = self._caller(context)
        if (now.name, now.scopes) != (caller.name, caller.scopes):
            raise PermissionRefused(f"what {caller.name} may do has changed since this call began; make another")

    def _caller(self, context: Context) -> Caller:
        """By a token where one is sent, else by the certificate."""
        metadata: Metadata = context.invocation_metadata() or ()
        sent = [value for key, value in metadata if key == _HEADER]
        if sent:
            return self._known().of_token(_token(sent))
        if not self._asks_for_certificates:
            raise Unauthenticated("expected metadata `authorization: Bearer TOKEN`, got none")
        names = _names(context.auth_context())
        if self._identities is not None:
            return self._known().of_certificate(names)
        return Caller(name=names[0][:_MAX_NAME] if names else "certificate", scopes=frozenset(Scope))

    def _known(self) -> Identities:
        return Identities() if self._identities is None else self._identities.now()


def _token(sent: Sequence[str | bytes]) -> str:
    value = sent[0]
    if len(sent) > 1 or not isinstance(value, str) or value[: len(_SCHEME)].lower() != _SCHEME:
        raise Unauthenticated("expected metadata `authorization: Bearer TOKEN` once, got another form")
    return value[len(_SCHEME) :].strip()


def _names(shown: Mapping[str, Iterable[bytes]]) -> list[str]:
    """Of a certificate that was verified: its alternative names, its common name only where it has none of them.

    A root that looks after alternative names may let anybody choose a common name (RFC 9525, section 2).
    """
    found = shown.get("x509_subject_alternative_name") or shown.get("x509_common_name") or ()
    return [name.decode("utf-8", "replace") for name in found]
