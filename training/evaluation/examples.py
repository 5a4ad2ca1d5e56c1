"""Which attacked images the page shows."""

from collections.abc import Sequence

import numpy as np

from training.evaluation.decisions import FUSED
from training.evaluation.judging import Attacked, Subject
from training.evaluation.pictures import Example

__all__ = ["typical", "worst_misses"]

_MISSES = 6


def typical(subject: Subject, attacked: Attacked, names: Sequence[str]) -> Example:
    """The successful attack in the middle by suspicion, so that no picture is picked for its looks; else of all."""
    successful = np.flatnonzero(_succeeded(subject, attacked))
    among = successful if successful.size else np.arange(len(subject.truth))
    order = np.argsort(attacked.decisions.scores[FUSED][among], kind="stable")
    return _example(subject, attacked, int(among[order[len(order) // 2]]), names)


def worst_misses(
    subject: Subject, attacked: Sequence[Attacked], names: Sequence[str], alpha: float
) -> tuple[Example, ...]:
    """The least suspicious images that attacks which knew the detectors got wrong and accepted, one an image.

    Args:
        subject: before the attacks.
        attacked: by every attack; those that saw no detector, or not all images, are passed over.
        names: of the classes.
        alpha: at which they were accepted.

    Returns:
        At most six, the largest p-value first.
    """
    knowing = [one for one in attacked if one.entry.is_adaptive and one.rows is None]
    if not knowing:
        return ()
    p = np.stack(
        [
            np.where(_succeeded(subject, one) & ~one.decisions.rejected(alpha), one.decisions.p_values[FUSED], -np.inf)
            for one in knowing
        ]
    )  # (A, N)
    order = np.argsort(-p.max(axis=0), kind="stable")[:_MISSES]
    return tuple(
        _example(subject, knowing[int(p[:, row].argmax())], int(row), names)
        for row in order
        if np.isfinite(p[:, row].max())
    )


def _succeeded(subject: Subject, attacked: Attacked) -> np.ndarray:
    return np.asarray(subject.right & (attacked.decisions.labels != subject.truth))


def _example(subject: Subject, attacked: Attacked, row: int, names: Sequence[str]) -> Example:
    clean, after = subject.clean, attacked.decisions
    return Example(
        attack=attacked.entry.title,
        clean=subject.images[row],
        attacked=attacked.images[row],
        truth=names[subject.truth[row]],
        clean_label=names[clean.labels[row]],
        attacked_label=names[after.labels[row]],
        clean_p=float(clean.p_values[FUSED][row]),
        attacked_p=float(after.p_values[FUSED][row]),
        succeeded=bool(_succeeded(subject, attacked)[row]),
    )
