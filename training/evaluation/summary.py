"""The headline of a report: for the manifest, for docs/results and for the terminal."""

from training.checkpoint import Run
from training.evaluation.bootstrap import Estimate
from training.evaluation.entries import BUDGETED
from training.evaluation.result_file import result_text
from training.evaluation.results import AttackResult, Report
from training.evaluation.tables import rate

__all__ = ["breaking_sentence", "headline", "metrics", "result_json", "shift_sentence", "words"]


def metrics(report: Report) -> dict[str, float]:
    """Flat names to figures, for the manifest and for docs/results; figures without images are left out."""
    values: dict[str, float | None] = {
        "clean_accuracy": report.clean.accuracy.value,
        "test_images": report.data.test_images,
        "attacked_images": report.data.attacked_images,
    }
    for row in report.false_positives:
        values[f"false_positive_rate_at_{row.alpha:g}"] = row.rate
        if row.inside_binomial is not None:
            values[f"false_positive_rate_at_{row.alpha:g}_in_95_binomial"] = float(row.inside_binomial)
    for shift in report.shifts:
        for at in shift.alarms:
            if at.alpha == report.bundle.default_alpha:
                values[f"{shift.name}_shift_false_positive_rate_at_{at.alpha:g}"] = at.rate.value
    if mild := _mild_alarms(report):
        values[f"worst_mild_shift_false_positive_rate_at_{report.bundle.default_alpha:g}"] = max(mild)
    for what, over in (("_successful", report.overall.successful), ("", report.overall.all)):
        values |= {f"mean_auroc{what}": over.mean, f"worst_auroc{what}": over.worst}
    values |= {
        f"{attack.name}_{what}": value for attack in report.attacks for what, value in _of_attack(attack).items()
    }
    values |= {
        f"{attack.name}_images": attack.images
        for attack in report.attacks
        if attack.images < report.data.attacked_images
    }
    for union in report.unions:
        name = f"{'adaptive_' if union.is_adaptive else ''}worst_{union.norm}"
        values[f"{name}_accuracy"] = union.accuracy.value
        for rejection in union.rejection:
            values[f"{name}_safe_at_{rejection.alpha:g}"] = rejection.robust_accuracy.value
            values[f"{name}_gain_at_{rejection.alpha:g}"] = _minus(rejection.robust_accuracy, union.accuracy)
    return {name: float(value) for name, value in values.items() if value is not None}


def _mild_alarms(report: Report) -> list[float]:
    """Of clean images under each mild shift, at the bundle's own alpha."""
    alpha = report.bundle.default_alpha
    rates = [at.rate.value for shift in report.shifts if shift.is_mild for at in shift.alarms if at.alpha == alpha]
    return [rate for rate in rates if rate is not None]


def _minus(more: Estimate, less: Estimate) -> float | None:
    return None if more.value is None or less.value is None else more.value - less.value


def _of_attack(attack: AttackResult) -> dict[str, float | None]:
    values = {
        "success": attack.success_rate.value,
        "accuracy": attack.accuracy.value,
        "auroc": attack.aurocs[-1].all.value,
        "auroc_successful": attack.aurocs[-1].successful.value,
        "breaks_at": attack.breaks_at,
    }
    return values | {f"found_at_{rate.alpha:g}": rate.successful.value for rate in attack.detected}


def headline(report: Report) -> dict[str, float]:
    """The few of the metrics that a manifest carries and `advsentry info` prints."""
    wanted = {"clean_accuracy", "attacked_images"}
    wanted |= {f"{which}_auroc{among}" for which in ("mean", "worst") for among in ("", "_successful")}
    wanted |= {f"false_positive_rate_at_{row.alpha:g}" for row in report.false_positives}
    wanted |= {f"{attack.name}_auroc" for attack in report.attacks if not attack.is_adaptive}
    wanted |= {f"worst_{union.norm}_accuracy" for union in report.unions}
    norm, alpha = report.threat_model.norm, report.bundle.default_alpha
    wanted |= {f"adaptive_worst_{norm}_accuracy", f"adaptive_worst_{norm}_safe_at_{alpha:g}"}
    return {name: value for name, value in metrics(report).items() if name in wanted}


def breaking_sentence(report: Report) -> str:
    """The epsilon at which the bundle breaks, in words: by the strongest attack of each norm that took every image."""
    strongest: dict[str, AttackResult] = {}
    blind = [
        attack
        for attack in report.attacks
        if not attack.is_adaptive and attack.norm in BUDGETED and attack.images == report.data.attacked_images
    ]
    for attack in sorted(blind, key=lambda attack: attack.breaks_at or 0.0, reverse=True):
        if attack.breaks_at is not None:
            strongest[attack.norm] = attack  # the smallest change comes last
    found = [
        f"{attack.title} misreads more than 90 % of the test images within {norm} {attack.breaks_at:.3g}"
        for norm, attack in sorted(strongest.items())
    ]
    if not found:
        return "No attack broke it: attack harder before you believe it."
    return f"**It breaks:** {'; '.join(found)}."


def shift_sentence(report: Report) -> str:
    """What benign shifts do to the promised false-positive rate, in words; empty where it was not measured."""
    alpha = report.bundle.default_alpha
    rates = {
        is_mild: [
            (at.rate.value or 0.0, shift.title)
            for shift in report.shifts
            if shift.is_mild is is_mild
            for at in shift.alarms
            if at.alpha == alpha
        ]
        for is_mild in (True, False)
    }
    if not rates[True] or not rates[False]:
        return ""
    (mild, mild_title), (strong, strong_title) = max(rates[True]), max(rates[False])
    kept = "at most twice what is promised" if mild <= 2 * alpha else "**more than twice what is promised**"
    return (
        f"Of clean images that arrive changed it calls adversarial, at {100 * alpha:g} % promised: {100 * mild:.1f} % "
        f"under the worst mild shift ({mild_title}), {kept}; {100 * strong:.1f} % under the worst strong one "
        f"({strong_title})."
    )


def result_json(name: str, run: Run, report: Report) -> str:
    """One file of docs/results, as docs/architecture.md has it."""
    made, data = report.provenance, report.data
    return result_text(
        name,
        run,
        command=made.command,
        seed=made.seed,
        commit=made.commit,
        machine=made.machine,
        seconds=made.seconds,
        data={
            "set": data.name,
            "split": data.split,
            "test_images": data.test_images,
            "attacked_images": data.attacked_images,
        },
        metrics=metrics(report),
    )


def words(report: Report) -> str:
    """A few lines for the terminal; the page says the rest."""
    lines = [] if report.publishable else ["quick run: do not quote these figures"]
    lines.append(f"clean accuracy {_share(report.clean.accuracy)}, {report.data.test_images} test images")
    for attack in report.attacks:
        if attack.is_adaptive:
            passed = ", ".join(f"{_share(row.all)} at {row.alpha:g}" for row in attack.accepted_and_wrong)
            lines.append(f"{attack.name}: wrong and accepted {passed}")
            continue
        found = ", ".join(f"{_share(row.successful)} at {row.alpha:g}" for row in attack.detected)
        lines.append(f"{attack.name}: succeeds on {_share(attack.success_rate)}; of these found {found}")
    for what, over in (("successful attacks", report.overall.successful), ("all attacked images", report.overall.all)):
        if over.mean is not None and over.worst is not None:
            lines.append(
                f"AUROC over {over.attacks} attacks, {what}: mean {over.mean:.3f}, worst {over.worst:.3f} "
                f"({over.worst_attack}, {over.worst_images} images)"
            )
    for union in report.unions:
        knowing = ", detectors known" if union.is_adaptive else ""
        safe = ", ".join(f"{_share(row.robust_accuracy)} at {row.alpha:g}" for row in union.rejection)
        lines.append(
            f"worst case {union.norm} {union.eps:.3g}{knowing}: {_share(union.accuracy)} stay right; right or "
            f"rejected {safe}"
        )
    if not report.threat_model.adaptive:
        lines.append("none of these attacks knew of the detectors")
    return "".join(f"{line}\n" for line in lines)


def _share(estimate: Estimate) -> str:
    return "none" if estimate.value is None else rate(estimate, interval=False)
