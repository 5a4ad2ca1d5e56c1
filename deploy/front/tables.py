"""Tables of results where people read first: in the README, and at the top of pages in docs/."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deploy.front.sweeps import Sweep
from training.spelling import budget_words

__all__ = ["bench_table", "between", "evaluations", "front_table", "side_by_side"]

Result = Mapping[str, Any]

ROWS: Mapping[str, str] = {
    "training_seconds": "training, seconds",
    "clean_accuracy": "clean accuracy",
    "pgd_accuracy": "accuracy under PGD, 100 steps, 5 restarts",
    "worst_linf_accuracy": "accuracy, worst of all attacks within the Linf budget",
    "mean_auroc_successful": "AUROC of attacks that fool, mean over the battery",
    "worst_auroc_successful": "AUROC of attacks that fool, worst attack of 20 images or more",
    "mean_auroc": "AUROC of all attacked images, mean over the battery",
    "cw_l2_found_at_0.05": "found of C&W L2 that fools, at 5 % false positives",
    "square_found_at_0.05": "found of Square that fools, at 5 % false positives",
    "adaptive_worst_linf_accuracy": "accuracy, worst of all attacks, detectors known too",
    "adaptive_worst_linf_safe_at_0.05": "right or rejected, detectors known, at 5 % false positives",
    "false_positive_rate_at_0.01": "false positives, promised 0.01",
    "false_positive_rate_at_0.05": "false positives, promised 0.05",
    "worst_mild_shift_false_positive_rate_at_0.01": "false positives under the worst mild shift, promised 0.01",
}
"""Metrics of an evaluation that stand side by side, and their words."""

FRONT = (
    "clean_accuracy",
    "false_positive_rate_at_0.05",
    "mean_auroc_successful",
    "worst_auroc_successful",
    "cw_l2_found_at_0.05",
    "adaptive_worst_linf_accuracy",
    "adaptive_worst_linf_safe_at_0.05",
)
"""Those of them that the README shows."""

NEEDED = frozenset({"pgd_accuracy", "mean_auroc", "adaptive_worst_linf_accuracy"})
"""Metrics by which a whole evaluation is known."""

BENCH_ROWS: Mapping[str, str] = {
    "_bare_cpu_us": "bare graph at its best batch, microseconds an image",
    "_bare_images_per_s": "bare graph at its best batch, images a second",
    "_stream_ratio_to_bare": "StreamDetect, share of that rate",
    "_batch_ratio_to_bare": "BatchDetect of 64, share of that rate",
    "_detect_32_images_per_s": "Detect, 32 calls at once, images a second",
    "_detect_1_p50_ms": "Detect, one call, median, ms",
    "_detect_1_p99_ms": "Detect, one call, 99th percentile, ms",
}
"""Metrics of the benchmark, behind each bundle's name."""


def between(text: str, mark: str, end: str, made: str) -> str:
    """The text with what is made between the mark and the next end.

    Raises:
        ValueError: the mark or its end is missing.
    """
    before, begin, rest = text.partition(mark)
    _, found, after = rest.partition(end)
    if not begin or not found:
        raise ValueError(f"expected {mark} and {end} around the table")
    return f"{before}{mark}\n\n{made}\n\n{end}{after}"


def evaluations(results: Sequence[Result]) -> list[Result]:
    """Whole evaluations of a bundle, by name."""
    return sorted((one for one in results if one["metrics"].keys() >= NEEDED), key=lambda one: str(one["name"]))


def front_table(results: Sequence[Result], sweeps: Sequence[Sweep]) -> str:
    """The README's: evaluations side by side, and the change at which each bundle breaks.

    Raises:
        ValueError: a bundle has a result and no sweep.
    """
    shown, found = evaluations(results), {sweep.bundle: sweep for sweep in sweeps}
    if missing := {one["name"] for one in shown} - found.keys():
        raise ValueError(f"no report with growing changes of {', '.join(sorted(missing))}: evaluate with --publish")
    own = [found[one["name"]] for one in shown]
    left = [_share(sweep.left) for sweep in own]
    broken = ["none does" if one.misread_within is None else _change(one.misread_within) for one in own]
    return "\n".join(
        [
            *_head(one["name"] for one in shown),
            _line("largest change that it was trained and measured for", (sweep.budget for sweep in own)),
            *(_line(ROWS[name], (_figure(one, name) for one in shown)) for name in FRONT),
            _line("the same within twice that change", left),
            _line("more than 90 % are misread within", broken),
            "",
            *map(_rests_on, shown, own),
        ]
    )


def _rests_on(result: Result, sweep: Sweep) -> str:
    """What a column's figures rest on."""
    within_twice = sweep.points[0].accuracy.n
    return f"* {result['name']}: {_images(result)}, {within_twice} of them within twice; commit {result['commit']}"


def side_by_side(results: Sequence[Result]) -> str:
    """Evaluations side by side, each with what made it."""
    shown = evaluations(results)
    lines = _head(f"{one['name']}, {_budget(one)}" for one in shown)
    lines += [_line(words, (_figure(one, name) for one in shown)) for name, words in ROWS.items()]
    made = [
        f"* {one['name']}: {_images(one)}; seed {one['seed']}, commit {one['commit']}; `{one['command']}`"
        for one in shown
    ]
    return "\n".join([*lines, "", *made])


def bench_table(results: Sequence[Result]) -> str:
    """Of the benchmark; empty when there is none."""
    lines = []
    for result in results:
        metrics = result["metrics"]
        if result["name"] != "bench":
            continue
        bundles = [name.removesuffix("_bare_images_per_s") for name in metrics if name.endswith("_bare_images_per_s")]
        lines += _head(bundles)
        for name, words in BENCH_ROWS.items():
            lines.append(_line(words, (_short(metrics[bundle + name]) for bundle in bundles)))
        lines += ["", f"* {result['machine']}; commit {result['commit']}; `{result['command']}`"]
    return "\n".join(lines)


def _head(names: Iterable[str]) -> list[str]:
    columns = list(names)
    return [f"| | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]


def _line(words: str, cells: Iterable[str]) -> str:
    return f"| {words} | {' | '.join(cells)} |"


def _figure(result: Result, name: str) -> str:
    return _share(result["metrics"].get(name))


def _change(eps: float) -> str:
    words = budget_words(eps)
    return words if "/" in words else _short(eps)


def _share(value: float | None) -> str:
    return "none" if value is None else _short(value)  # no image supports it


def _short(value: float) -> str:
    """Three figures, or whole numbers where there are more."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _budget(result: Result) -> str:
    attack = result["recipe"]["attack"]
    return f"{attack['norm']} {attack['eps']:g}"


def _images(result: Result) -> str:
    return f"{result['data']['test_images']} clean test images, {result['data']['attacked_images']} attacked"
