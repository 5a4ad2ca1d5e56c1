"""What a reader must know before he quotes a figure, and signs that one is not to be trusted."""

from training.evaluation.evaluate import Evaluation
from training.evaluation.results import AttackResult
from training.evaluation.sweep import last_gain, suspects

__all__ = ["remarks"]

_MANY_DISAGREEMENTS = 0.01
_NOISE = 0.01
"""A difference of shares that says nothing."""
_ONE_DETECTOR = 2
"""Rows of uniformity with a single detector: its own and the fused one."""
_BLIND_SEARCH, _WALK = "adaptive_square", "adaptive_walk"
"""The adaptive attacks without gradients; the walk takes too few images to be held against the others."""


def remarks(
    evaluation: Evaluation, *, alpha: float, publishable: bool, in_tracks: bool = False, quantised: bool = False
) -> tuple[str, ...]:
    """What must be known before a figure is quoted, and signs that something is wrong.

    Args:
        alpha: the bundle's default, at which benign shifts are judged.
        publishable: False for a quick run.
        in_tracks: whether several test images show one object.
        quantised: whether the bundle's graph is a rounded copy of the network that was attacked.
    """
    found = [
        "Figures of attacks that saw no detector tell nothing of an attacker who knows of it; those stand apart."
        if any(attack.is_adaptive for attack in evaluation.attacks)
        else "Every attack here is non-adaptive: it aimed at the classifier and saw no detector.",
        "The intervals come from 2,000 resamples of the images; they cover neither another training run nor another "
        "draw of the calibration images.",
        "An attack that looks for the smallest change leaves an image that is wrong already as it is; such images "
        "count under “all”, never under “successful”.",
    ]
    if in_tracks:
        found.append(
            "Several test images show one object, yet each was resampled alone: these intervals are too narrow."
        )
    if not publishable:
        found.append("Quick run: its attacks are too weak for a figure to be quoted.")
    refused = [row for row in evaluation.false_positives if row.images_needed is not None]
    found += [
        f"At {100 * row.alpha:g} % nothing was computed: that promise needs {row.images_needed} calibration images."
        for row in refused
    ]
    clean = evaluation.clean
    if quantised:
        found.append(
            "Transfer: every attack was made on the float network, of which this bundle's graph is a rounded copy; "
            f"the two label {clean.disagreements} of {clean.compared} images, clean and attacked, differently. An "
            "attacker who follows the rounded graph itself is not among these."
        )
    elif clean.disagreements > _MANY_DISAGREEMENTS * clean.compared:
        found.append(
            f"Warning: torch and the bundle label {clean.disagreements} of {clean.compared} images differently; is "
            "this the run that the bundle was exported from?"
        )
    return (*found, *_warnings(evaluation, alpha))


def _warnings(evaluation: Evaluation, alpha: float) -> list[str]:
    return [
        *_of_the_attacks(evaluation, alpha),
        *_of_the_promise(evaluation, alpha),
        *_of_the_records(evaluation, alpha),
    ]


def _of_the_records(evaluation: Evaluation, alpha: float) -> list[str]:
    """What the p-values, the attacks at growing changes, the longer ones and the checks warn of."""
    found = [
        f"Warning: robustness is not established: {check.name.lower()}: {check.words}."
        for check in evaluation.sanity
        if not check.passed
    ]
    found += [
        f"Warning: the p-values of clean test images by {row.detector} are not uniform (distance {row.distance:.3f}, "
        f"bound {row.bound:.3f}): test and calibration images are not alike, or several show one object."
        for row in evaluation.uniformity
        if row.is_beyond
    ]
    found += [
        f"Warning: suspect, attack harder: within {point.share:g} budgets more images are right or rejected (strict) "
        "than the classifier alone keeps right at half of that, beyond its interval."
        for point in suspects(evaluation.sweep, alpha)
    ]
    convergence = evaluation.convergence
    if convergence and (gain := last_gain(convergence)) > _NOISE:
        found.append(
            f"Warning: {convergence.attack} still gained {100 * gain:.1f} points with the last increase of its steps; "
            "more of them would break more images."
        )
    if not evaluation.left_out and len(evaluation.uniformity) > _ONE_DETECTOR:
        found.append(
            "What each detector adds was not measured: it takes attacks that saw none, and the images of the second "
            "calibration split that the bundle was calibrated on."
        )
    return found


def _of_the_attacks(evaluation: Evaluation, alpha: float) -> list[str]:
    """Signs that an attack did not do what it can, so that the bundle looks safer than it is.

    Source: the warning signs of Athalye et al. 2018 (arXiv 1802.00420) and of Tramèr et al. 2020 (arXiv 2002.08347).
    """
    found = []
    rates = {attack.name: attack.success_rate.value or 0.0 for attack in evaluation.attacks}
    for stronger, weaker in (("pgd", "fgsm"), ("pgd_150", "pgd")):
        if {stronger, weaker} <= rates.keys() and rates[stronger] < rates[weaker] - _NOISE:
            found.append(f"Warning: {stronger} breaks fewer images than {weaker}; the gradients mislead the attack.")
    knowing = [attack for attack in evaluation.attacks if attack.is_adaptive]
    alike = {(attack.norm, attack.eps) for attack in knowing[:1]}  # the threat model's norm comes first
    passed = {attack.name: _passed(attack, alpha) for attack in knowing if (attack.norm, attack.eps) in alike}
    guided = [rate for name, rate in passed.items() if name not in (_BLIND_SEARCH, _WALK)]
    if guided and passed.get(_BLIND_SEARCH, 0.0) > max(guided) + _NOISE:
        found.append(
            "Warning: random search gets more images accepted and wrong than every attack with gradients; the "
            "gradients mislead them, and what is said of attackers who know the detectors is not established."
        )
    if guided:
        unaware = [
            _passed(attack, alpha)
            for attack in evaluation.attacks
            if not attack.is_adaptive and (attack.norm, attack.eps) in alike
        ]
        if max(unaware, default=0.0) > max(passed.values()) + _NOISE:
            found.append(
                "Warning: an attack that saw no detector gets more images accepted and wrong than every one that did; "
                "the latter were too weak."
            )
    return found


def _passed(attack: AttackResult, alpha: float) -> float:
    """Share of all images that it got accepted and wrong at alpha; 0 where the calibration refuses alpha."""
    return next((row.all.value or 0.0 for row in attack.accepted_and_wrong if row.alpha == alpha), 0.0)


def _of_the_promise(evaluation: Evaluation, alpha: float) -> list[str]:
    """Where more clean images are called adversarial than was promised."""
    found = [
        f"Warning: {shift.title}, a mild change, makes the bundle raise {100 * (at.rate.value or 0.0):.1f} % false "
        f"alarms where at most {100 * at.alpha:g} % are promised."
        for shift in evaluation.shifts
        if shift.is_mild
        for at in shift.alarms
        if at.alpha == alpha and (at.rate.value or 0.0) > 2 * at.alpha
    ]
    found += [
        f"Warning: at {100 * row.alpha:g} % the bundle raises more false alarms than it promises."
        for row in evaluation.false_positives
        if row.promised_95 is not None and row.count is not None and row.count > row.promised_95.high
    ]
    return found
