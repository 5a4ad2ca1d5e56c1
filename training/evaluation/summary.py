"""The headline of a report: for the manifest, for docs/results and for the terminal."""

from training.checkpoint import Run
from training.evaluation.result_file import result_text
from training.evaluation.results import AttackResult, Report

__all__ = ["breaking_sentence", "headline", "metrics", "result_json", "words"]


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
    for attack in report.attacks:
        values[f"{attack.name}_success"] = attack.success_rate.value
        values[f"{attack.name}_accuracy"] = attack.accuracy.value
        values[f"{attack.name}_auroc"] = attack.aurocs[-1].all.value
        values[f"{attack.name}_auroc_successful"] = attack.aurocs[-1].successful.value
        if attack.breaks_at is not None:
            values[f"{attack.name}_breaks_at"] = attack.breaks_at
        for rate in attack.detected:
            values[f"{attack.name}_found_at_{rate.alpha:g}"] = rate.successful.value
    for union in report.unions:
        values[f"worst_{union.norm}_accuracy"] = union.accuracy.value
        for rejection in union.rejection:
            values[f"worst_{union.norm}_safe_at_{rejection.alpha:g}"] = rejection.robust_accuracy.value
    return {name: float(value) for name, value in values.items() if value is not None}


def headline(report: Report) -> dict[str, float]:
    """The few of the metrics that a manifest carries and `advsentry info` prints."""
    wanted = {"clean_accuracy", "attacked_images"}
    wanted |= {f"false_positive_rate_at_{row.alpha:g}" for row in report.false_positives}
    wanted |= {f"{attack.name}_auroc" for attack in report.attacks}
    wanted |= {f"worst_{union.norm}_accuracy" for union in report.unions}
    return {name: value for name, value in metrics(report).items() if name in wanted}


def breaking_sentence(report: Report) -> str:
    """The epsilon at which the bundle breaks, in words: by the strongest attack of each norm."""
    strongest: dict[str, AttackResult] = {}
    for attack in sorted(report.attacks, key=lambda attack: attack.breaks_at or 0.0, reverse=True):
        if attack.breaks_at is not None:
            strongest[attack.norm] = attack  # the smallest change comes last
    found = [
        f"{attack.title} misreads more than 90 % of the test images within {norm} {attack.breaks_at:.3g}"
        for norm, attack in sorted(strongest.items())
    ]
    if not found:
        return "No attack broke it: attack harder before you believe it."
    return f"**It breaks:** {'; '.join(found)}."


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
    lines.append(f"clean accuracy {_percent(report.clean.accuracy.value)} of {report.data.test_images} images")
    for attack in report.attacks:
        found = ", ".join(f"{_percent(row.successful.value)} at {row.alpha:g}" for row in attack.detected)
        lines.append(f"{attack.name}: succeeds on {_percent(attack.success_rate.value)}; of these found {found}")
    lines += [
        f"worst case {union.norm} {union.eps:.3g}: {_percent(union.accuracy.value)} stay right"
        for union in report.unions
    ]
    lines.append("none of these attacks knew of the detectors")
    return "".join(f"{line}\n" for line in lines)


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.1f} %"
