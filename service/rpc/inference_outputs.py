"""The tensors that the Open Inference Protocol's one model gives: a fact of a `Shown` each."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from service.detection.manifest import Manifest
from service.detection.types import FlagReason
from service.detection.verdict import RevealMode, Shown
from service.errors import InvalidRequest, PermissionRefused

__all__ = ["OUTPUTS", "Output", "outputs_in", "outputs_of", "visible_outputs"]


@dataclass(frozen=True, kw_only=True)
class Output:
    """A tensor that is given."""

    datatype: str
    width: Callable[[Manifest], tuple[int, ...]]
    """Its shape for one image."""
    in_decision: bool
    """Whether every reveal mode shows it."""
    write: Callable[[Shown], bytes]
    """Its elements, image after image."""


def _alone(_: Manifest) -> tuple[int, ...]:
    return ()


def _strings(values: Iterable[str]) -> bytes:
    parts = []
    for value in values:
        encoded = value.encode()
        parts += [len(encoded).to_bytes(4, "little"), encoded]
    return b"".join(parts)


def _probabilities(shown: Shown) -> bytes:
    """(N, L), in the order of the classes."""
    assert shown.probabilities is not None
    made = np.zeros((len(shown), len(shown.class_names)), "<f4")
    made[np.arange(len(shown))[:, None], shown.classes] = shown.probabilities
    return made.tobytes()


def _reasons(shown: Shown) -> bytes:
    reasons = [entry.reason for entry in shown.detectors]
    found = [
        dict.fromkeys(reason for reason, fired in zip(reasons, row, strict=True) if fired) for row in shown.is_flagged
    ]
    for fired, history in zip(found, shown.history or (), strict=False):
        if history is not None:
            fired[FlagReason.NEAR_DUPLICATE_QUERIES] = None
    return _strings(map(",".join, found))


OUTPUTS = {
    "label": Output(
        datatype="BYTES",
        width=_alone,
        in_decision=True,
        write=lambda shown: _strings(shown.class_names[classes[0]] for classes in shown.classes),
    ),
    "probabilities": Output(
        datatype="FP32",
        width=lambda manifest: (len(manifest.class_names),),
        in_decision=False,
        write=_probabilities,
    ),
    "adversarial": Output(
        datatype="BOOL", width=_alone, in_decision=True, write=lambda shown: bytes(shown.is_adversarial)
    ),
    "combined_p_value": Output(
        datatype="FP64", width=_alone, in_decision=False, write=lambda shown: np.array(shown.p_values, "<f8").tobytes()
    ),
    "p_values": Output(
        datatype="FP64",
        width=lambda manifest: (len(manifest.detectors),),
        in_decision=False,
        write=lambda shown: np.array(shown.detector_p_values, "<f8").tobytes(),
    ),
    "reasons": Output(datatype="BYTES", width=_alone, in_decision=False, write=_reasons),
}
"""By name, in the order in which they are given."""


def visible_outputs(mode: RevealMode) -> tuple[str, ...]:
    """Names of what a caller may see."""
    return tuple(name for name, output in OUTPUTS.items() if output.in_decision or mode is not RevealMode.DECISION)


def outputs_in(shown: Shown, outputs: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the outputs that an answer has: it may be plainer than was promised."""
    return outputs if shown.probabilities is not None else tuple(name for name in outputs if OUTPUTS[name].in_decision)


def outputs_of(asked: tuple[str, ...], mode: RevealMode) -> tuple[str, ...]:
    """Names of the outputs that a caller gets; nothing that he asks for is dropped in silence.

    Raises:
        InvalidRequest: there is no output of that name.
        PermissionRefused: the mode hides it.
    """
    visible = visible_outputs(mode)
    for i, name in enumerate(asked):
        if name not in OUTPUTS:
            raise InvalidRequest(
                f"outputs: expected some of {', '.join(visible)}, got {name[:64]!r}", field=f"outputs[{i}].name"
            )
        if name not in visible:
            raise PermissionRefused(f"this server does not return {name} (reveal mode {mode}); leave the output out")
    return asked or visible
