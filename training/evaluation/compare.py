"""The `compare` command: the reports of two bundles side by side."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from service.detection.bundle import find_bundle
from service.errors import BundleError, SetupError
from training.checkpoint import write_atomically
from training.evaluation.compare_page import page
from training.evaluation.results import FORMAT
from training.folders import make_folder
from training.spelling import budget_words

__all__ = ["Pair", "Side", "compare", "read_report", "run_command", "unlike"]

Wanted = Literal["more", "less"]


@dataclass(frozen=True, kw_only=True)
class Side:
    """A figure of one report."""

    value: float | None
    """None where the report does not have it, or no image supports it."""
    low: float | None = None
    """95 % interval over images; None where there is none."""
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The same figure of both reports."""

    section: str
    name: str
    wanted: Wanted
    first: Side
    second: Side

    @property
    def better(self) -> Literal["first", "second"] | None:
        """Which one is better by more than their intervals explain; None where neither is, or cannot be told."""
        first, second = self.first, self.second
        if None in (first.low, first.high, second.low, second.high):
            return None
        assert first.low is not None
        assert first.high is not None
        assert second.low is not None
        assert second.high is not None
        if first.low <= second.high and second.low <= first.high:
            return None
        return "first" if (first.low > second.high) == (self.wanted == "more") else "second"


def run_command(arguments: argparse.Namespace) -> int:
    """Runs `compare`; gives its exit status."""
    reports = [read_report(name) for name in (arguments.first, arguments.second)]
    pairs, remarks = compare(*reports), unlike(*reports)
    titles = (_title(reports[0]), _title(reports[1]))
    if arguments.out:
        make_folder(arguments.out, "--out")
        write_atomically(arguments.out / "compare.html", page(titles, pairs, remarks))
    if arguments.json:
        rows = [{**asdict(pair), "better": pair.better} for pair in pairs]
        sys.stdout.write(json.dumps({"bundles": titles, "remarks": remarks, "figures": rows}) + "\n")
    else:
        sys.stdout.write(_text(titles, pairs, remarks))
        if arguments.out:
            sys.stdout.write(f"page: {arguments.out / 'compare.html'}\n")
    return 0


def read_report(name: str) -> Mapping[str, Any]:
    """The report of a bundle (a directory, or the name of a shipped one), of a folder that `evaluate` wrote, or a file.

    Raises:
        SetupError: there is none, or the bundle has not been evaluated.
    """
    path = Path(name)
    if path.is_dir():
        path /= "report.json"
    elif not path.is_file():
        try:
            path = find_bundle(name) / "report.json"
        except BundleError as error:
            raise SetupError(f"{name}: expected a bundle, a folder with report.json or such a file; {error}") from error
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise SetupError(f"{path}: expected the report of `advsentry-train evaluate`, got {error}") from error
    if isinstance(report, dict) and report.get("evaluated") is False:
        raise SetupError(f"{path}: the bundle has not been evaluated; `advsentry-train evaluate --publish` does it")
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise SetupError(f"{path}: expected a report of format {FORMAT}, got another file")
    return report


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[Pair, ...]:
    """Every figure that both reports have, or one of them and the other could have."""
    sides = [dict(_figures(report)) for report in (first, second)]
    keys = [*sides[0], *(key for key in sides[1] if key not in sides[0])]
    places = {section: place for place, section in reversed([*enumerate(section for section, _, _ in keys)])}
    keys.sort(key=lambda key: places[key[0]])  # those of a section together, in the order of their first
    nothing = Side(value=None)
    return tuple(
        Pair(
            section=section,
            name=name,
            wanted=wanted,
            first=sides[0].get((section, name, wanted), nothing),
            second=sides[1].get((section, name, wanted), nothing),
        )
        for section, name, wanted in keys
    )


def _figures(report: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str, Wanted], Side]]:
    clean = report["clean"]
    yield ("Clean images", "accuracy", "more"), _side(clean["accuracy"])
    for row in report["false_positives"]:
        yield ("False alarms on clean images", f"{_percent(row['alpha'])} promised", "less"), Side(value=row["rate"])
    for union in report["unions"]:
        knows = "detectors known" if union.get("is_adaptive") else "detectors unknown"
        where = f"{union['norm']} {budget_words(union['eps'])}, {knows}"
        yield ("Worst case of all attacks", f"right, {where}", "more"), _side(union["accuracy"])
        for row in union["rejection"]:
            name = f"right or rejected at {_percent(row['alpha'])}, {where}"
            yield ("Worst case of all attacks", name, "more"), _side(row["robust_accuracy"])
    yield from _overall(report)
    for attack in report["attacks"]:
        yield from _of_attack(attack)
    for row in report.get("availability", ()):
        for at in row["rejected"]:
            name = f"{row['norm']} {budget_words(row['eps'])}, at {_percent(at['alpha'])}"
            yield ("Good images that an attacker gets rejected", name, "less"), _side(at["rate"])
    for shift in report.get("shifts", ()):
        for at in shift["alarms"]:
            name = f"{shift['title']}, at {_percent(at['alpha'])}"
            yield ("False alarms under benign shifts", name, "less"), _side(at["rate"])


def _overall(report: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str, Wanted], Side]]:
    for among, over in report.get("overall", {}).items():
        for which in ("mean", "worst"):
            name = f"{which}, {'successful' if among == 'successful' else 'all attacked images'}"
            yield ("AUROC over all attacks, detectors unknown", name, "more"), Side(value=over[which])


def _of_attack(attack: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str, Wanted], Side]]:
    if attack.get("is_adaptive"):
        for row in attack["accepted_and_wrong"]:
            name = f"{attack['title']}, at {_percent(row['alpha'])}"
            yield ("Wrong and accepted, detectors known", name, "less"), _side(row["all"])
        return
    fused = attack["aurocs"][-1]
    yield ("AUROC, successful attacks", attack["title"], "more"), _side(fused["successful"])
    yield ("AUROC, all attacked images", attack["title"], "more"), _side(fused["all"])


def _side(estimate: Mapping[str, Any]) -> Side:
    interval = estimate["interval"] or {}
    return Side(value=estimate["value"], low=interval.get("low"), high=interval.get("high"))


def unlike(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[str, ...]:
    """Why the figures may not be held against each other; empty where nothing speaks against it."""
    found = []
    for what, keys in (
        ("data", ("data", "name")),
        ("number of attacked images", ("data", "attacked_images")),
        ("number of test images", ("data", "test_images")),
        ("seed, which chooses the images", ("provenance", "seed")),
        ("norm", ("threat_model", "norm")),
        ("budget", ("threat_model", "eps")),
        ("L2 budget", ("threat_model", "l2_eps")),
    ):
        values = [report[keys[0]][keys[1]] for report in (first, second)]
        if values[0] != values[1]:
            found.append(f"{what}: {values[0]} and {values[1]}")
    settings = [{attack["name"]: attack["settings"] for attack in report["attacks"]} for report in (first, second)]
    different = [
        name
        for name in settings[0].keys() & settings[1].keys()
        if _without_bundle(settings[0][name]) != _without_bundle(settings[1][name])
    ]
    if different:
        found.append(f"attacks of other strength: {', '.join(sorted(different))}")
    sets = [
        {attack["name"] for attack in report["attacks"] if not attack.get("is_adaptive")} for report in (first, second)
    ]
    if "overall" in first and "overall" in second and sets[0] != sets[1]:
        found.append(f"attacks behind the mean and the worst: only one has {', '.join(sorted(sets[0] ^ sets[1]))}")
    quick = [name for name, report in (("A", first), ("B", second)) if not report["publishable"]]
    found += [f"{name} is a quick run, too weak to be quoted" for name in quick]
    return tuple(found)


def _without_bundle(settings: str) -> str:
    return settings.partition(" at bundle ")[0]


def _title(report: Mapping[str, Any]) -> str:
    return f"{report['bundle']['name']} {report['bundle']['version']} ({report['bundle']['calibration_id'][:8]})"


def _percent(alpha: float) -> str:
    return f"{100 * alpha:g} %"


def _text(titles: tuple[str, str], pairs: Sequence[Pair], remarks: Sequence[str]) -> str:
    lines = [f"A  {titles[0]}", f"B  {titles[1]}", *(f"not alike: {remark}" for remark in remarks)]
    width = max(len(pair.name) for pair in pairs)
    section = ""
    for pair in pairs:
        if pair.section != section:
            section = pair.section
            lines += ["", f"{section} ({pair.wanted} is better)"]
        better = {"first": "  A", "second": "  B", None: ""}[pair.better]
        lines.append(f"  {pair.name:<{width}}  {_word(pair.first):>6}  {_word(pair.second):>6}{better}")
    lines += ["", "A or B stands where their 95 % intervals over the images lie apart."]
    return "".join(f"{line}\n" for line in lines)


def _word(side: Side) -> str:
    return "-" if side.value is None else f"{side.value:.3f}"
