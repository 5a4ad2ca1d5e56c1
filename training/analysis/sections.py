"""The sections of the page, each the HTML of its figures and of the table of their numbers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape

import numpy as np

from service.detection.types import Float64s
from training.analysis import charts
from training.analysis.analyse import RunAnalysis
from training.analysis.charts import Curve, legend, line_chart
from training.analysis.curves import Course
from training.analysis.maps import KEY, coloured
from training.analysis.results import Analysis
from training.evaluation.pictures import png_address
from training.evaluation.tables import percent, table

__all__ = ["curves", "distances", "embeddings", "heat_maps", "kernels", "low_pass", "neighbours", "spectra"]

_LEAST_SCALE = 0.1
"""Where the colours of a heat map end at least, or one wrong image would be the brightest there is."""

_TITLES: Mapping[str, str] = {
    "clean_accuracy": "clean",
    "attacked_accuracy": "attacked",
    "training_attacked_accuracy": "training batches, as trained on",
    "averaged_clean_accuracy": "clean, averaged weights",
    "averaged_attacked_accuracy": "attacked, averaged weights",
}


def low_pass(analysis: Analysis) -> str:
    """Accuracy over what a low-pass filter leaves."""
    lines, rows = [], []
    for number, run in enumerate(analysis.runs):
        curve = run.low_pass
        for title, shares in (("clean", curve.clean), ("attacked", curve.attacked)):
            name = f"{run.name}, {title}"
            lines.append(Curve(title=name, number=number, xs=curve.bands, ys=shares, dashed=title == "attacked"))
            lost = _signed(f"{100 * (shares[-1] - shares[0]):+.1f}")
            rows.append([escape(name), *(percent(share) for share in shares), lost])
    bands = analysis.runs[0].low_pass.bands
    label = "accuracy of clean and attacked images after low-pass filters of falling width"
    chart = line_chart(
        lines, label=label, x_title="frequencies kept, b × b", y_title="read rightly", x_ticks=bands, falling=True
    )
    if analysis.settings.low_pass == "published":
        words = (
            "The mask is the published one, −b/2 to b/2 − 1: where b is even its edge has no conjugate partner, so the "
            "real part is taken, and filtering twice is not the same as once."
        )
    else:
        words = (
            "The mask is the symmetric one, |k| &lt; b/2, which of an even b keeps b − 1 frequencies a side: real, and "
            "filtering twice is the same as once."
        )
    head = ["Kept", *(f"b = {band}" for band in bands), "Points lost or won"]
    return f"<p>{words}</p>" + _chart(chart, lines) + table(head, rows)


def spectra(analysis: Analysis) -> str:
    """Spectra of images before and after the attack, and of its change."""
    logs = [values for run in analysis.runs for values in (run.spectrum.clean, run.spectrum.attacked)]
    low, high = min(float(log.min()) for log in logs), max(float(log.max()) for log in logs)
    figures = []
    for run in analysis.runs:
        spectrum, name = run.spectrum, escape(run.name)
        maps = [
            (spectrum.clean, low, high, "clean images"),
            (spectrum.attacked, low, high, "attacked images"),
            (spectrum.change, 0.0, 1.0, "the change"),
        ]
        figures.append(f"<h3>{name}</h3>")
        figures.append(
            _row(_map(values, least, most, f"{run.name}: {what}", what) for values, least, most, what in maps)
        )
    lines = [
        Curve(title=run.name, number=number, xs=run.spectrum.radii[1:].tolist(), ys=run.spectrum.profile[1:].tolist())
        for number, run in enumerate(analysis.runs)
    ]
    chart = line_chart(
        lines,
        label="magnitude of the change over the radius of the frequency",
        x_title="radius, 1 = Nyquist",
        y_title="change, largest wave = 1",
        x_ticks=(0.0, 0.25, 0.5, 0.75, 1.0),
        shares=False,
    )
    scale = _key(_signed(f"{low:.2f}"), _signed(f"{high:.2f}"))
    key = f"{scale} for images, log10 of the magnitude; the change has a scale of 0 to 1, its largest wave."
    bands = analysis.runs[0].spectrum.bands
    rows = (
        [escape(run.name), *(_or_none(share, percent) for share in run.spectrum.energy_shares)] for run in analysis.runs
    )
    side = min(analysis.input_shape[:2])
    noise = ["random signs", *(percent((band / side) ** 2) for band in bands)]
    shares = table(["Share of energy", *(f"E<sub>{band}</sub>" for band in bands)], [*rows, noise])
    return f'{"".join(figures)}<p class="key-line">{key}</p>' + _chart(chart, lines) + shares


def kernels(analysis: Analysis) -> str:
    """The first layer's kernels and how rough they are."""
    figures, rows = [], []
    for run in analysis.runs:
        first = run.kernels
        if first is None:
            rows.append([escape(run.name), "no convolution", ""])
            continue
        label = f"{run.name}: {len(first.shown)} of the {first.count} kernels of the first layer"
        picture = charts.kernel_picture(first.shown, label)
        figures.append(f"<figure>{picture}<figcaption>{escape(run.name)}</figcaption></figure>")
        rows.append([escape(run.name), str(first.count), _or_none(first.roughness, "{:.3f}".format)])
    return f'<div class="row kernels">{"".join(figures)}</div>' + table(
        ["Run", "Kernels", "Difference of neighbours / weight"], rows
    )


def curves(analysis: Analysis) -> str:
    """Accuracies of each run over its epochs, and all losses."""
    figures, rows = [], []
    for run in analysis.runs:
        log = run.curves
        lines = [
            _over_epochs(_TITLES.get(name, name.replace("_", " ")), number, course)
            for number, (name, course) in enumerate(log.accuracies.items())
        ]
        part = "held-out selection" if log.measured_on == "selection" else "training"
        caption = f"{run.name}, on {part} images"
        figures.append(_panel(_epoch_chart(lines, caption, "read rightly", shares=True), lines, caption))
        rows += [_course_row(run, line, course) for line, course in zip(lines, log.accuracies.values(), strict=True)]
    losses = [_over_epochs(run.name, number, run.curves.loss) for number, run in enumerate(analysis.runs)]
    chart = _epoch_chart(losses, "training loss of all runs", "loss", shares=False)
    figures.append(_panel(chart, losses, "training loss"))
    head = ["Accuracy", "Best", "In epoch", "Last", "Lost since the best"]
    return f'<div class="charts">{"".join(figures)}</div>' + table(head, rows)


def _over_epochs(title: str, number: int, course: Course) -> Curve:
    return Curve(title=title, number=number, xs=course.epochs, ys=course.values)


def _epoch_chart(lines: Sequence[Curve], label: str, y_title: str, *, shares: bool) -> str:
    epochs = [epoch for line in lines for epoch in line.xs]
    ticks = np.unique(np.linspace(min(epochs), max(epochs), 5).round()).tolist() if epochs else []
    return line_chart(lines, label=label, x_title="epoch", y_title=y_title, x_ticks=ticks, shares=shares)


def _course_row(run: RunAnalysis, line: Curve, course: Course) -> list[str]:
    best = int(np.argmax(course.values))
    lost = f"{100 * (course.values[best] - course.values[-1]):.1f} points"
    name = escape(f"{run.name}, {line.title}")
    return [name, percent(course.values[best]), str(course.epochs[best]), percent(course.values[-1]), lost]


def heat_maps(analysis: Analysis) -> str:
    """The error under each Fourier basis image."""
    first = analysis.runs[0].heat_map
    top = max(_LEAST_SCALE, *(float(run.heat_map.errors.max()) for run in analysis.runs))
    figures = [
        _map(run.heat_map.errors, 0.0, top, f"{run.name}: error under each Fourier basis image", run.name)
        for run in analysis.runs
    ]
    rows = (
        [
            escape(run.name),
            percent(run.heat_map.clean_error),
            percent(float(run.heat_map.errors.mean())),
            percent(float(run.heat_map.errors.max())),
            _or_none(run.heat_map.correlation, _correlation),
        ]
        for run in analysis.runs
    )
    words = (
        f"{first.images} images, {first.frequencies} distinct frequencies, v = {first.strength:.3g} in each channel: a "
        "change of 1/8 of the range, root mean square, as v = 4 is at 32 × 32. One image is "
        f"{percent(1 / first.images)}: a map of less than a few of them, and its correlation, say nothing."
    )
    head = ["Run", "Error, clean", "Mean error", "Largest error", "Rank correlation with the attack’s change"]
    key = f'<p class="key-line">{_key("0 %", percent(top))} of the answers are wrong; one scale for all runs.</p>'
    return f"<p>{words}</p>{_row(figures)}{key}" + table(head, rows)


def embeddings(analysis: Analysis) -> str:
    """t-SNE of each run's embedding."""
    figures = []
    for run in analysis.runs:
        points = run.embedding
        label = f"{run.name}: t-SNE of the embedding of {len(points.labels)} images, clean and attacked"
        picture = charts.scatter(points, analysis.class_names, label)
        figures.append(f"<figure>{picture}<figcaption>{escape(run.name)}</figcaption></figure>")
    shown = analysis.runs[0].embedding
    names = "".join(
        f'<li><svg viewBox="0 0 12 12" aria-hidden="true"><circle class="dot s{number}" cx="6" cy="6" r="4"/></svg>'
        f"{escape(analysis.class_names[label])}</li>"
        for number, label in enumerate(shown.classes)
    )
    marks = (
        '<li><svg viewBox="0 0 12 12" aria-hidden="true"><circle class="dot" cx="6" cy="6" r="4"/></svg>clean</li>'
        '<li><svg viewBox="0 0 12 12" aria-hidden="true"><path class="cross" d="M2 2l8 8m0 -8l-8 8"/></svg>'
        "attacked</li>"
    )
    words = f"{len(shown.labels)} images twice, cosine distance, perplexity {shown.perplexity:g}."
    if len(shown.classes) < len(analysis.class_names):
        words += f" The {len(shown.classes)} most frequent of {len(analysis.class_names)} classes."
    panels = f'<div class="charts clouds">{"".join(figures)}</div>'
    return f'<p>{words}</p><ul class="legend dots">{marks}{names}</ul>{panels}'


def neighbours(analysis: Analysis) -> str:
    """R@1, and examples of attacked images with what lies next to them."""
    rows = (
        [
            escape(run.name),
            _or_none(run.neighbours.recall_at_1.clean, percent),
            _or_none(run.neighbours.recall_at_1.attacked, percent),
        ]
        for run in analysis.runs
    )
    recall = table(["R@1", "Query clean", "Query attacked"], rows)
    return recall + "".join(_neighbour_grid(analysis, run) for run in analysis.runs)


def _neighbour_grid(analysis: Analysis, run: RunAnalysis) -> str:
    found, names = run.neighbours, analysis.class_names
    note = "attacked images that fool" if found.fooling else "no image fools; some attacked images"
    cells = []
    for query, near in zip(found.queries, found.nearest, strict=True):
        truth = names[analysis.labels[query]]
        read = names[run.attacked.predicted[query]]
        caption = f"truly <b>{escape(truth)}</b>, read as <b>{escape(read)}</b>"
        cells.append(
            _picture(run.attacked.images[query], f"{run.name}: attacked image, truly {truth}", caption, "query")
        )
        for rank, place in enumerate(near, start=1):
            label = names[run.gallery_labels[place]]
            kind = "good" if label == truth else "bad"
            alt = f"{run.name}: neighbour {rank}, {label}"
            cells.append(_picture(run.gallery.images[place], alt, f'<span class="{kind}">{escape(label)}</span>'))
    heading = f"<h3>{escape(run.name)} <small>{note}, then their nearest clean images</small></h3>"
    return f'{heading}<div class="row">{"".join(cells)}</div>'


def _picture(image: np.ndarray, alt: str, caption: str, kind: str = "") -> str:
    return (
        f'<figure class="{kind}"><img src="{png_address(image)}" alt="{escape(alt)}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def distances(analysis: Analysis) -> str:
    """Mean distances within and between classes, and the share of triplets that keep the margin."""
    rows = []
    for run in analysis.runs:
        for title, found in (("clean", run.distances.clean), ("attacked", run.distances.attacked)):
            rows.append(
                [
                    escape(f"{run.name}, {title}"),
                    _or_none(found.within, "{:.3f}".format),
                    _or_none(found.between, "{:.3f}".format),
                    _or_none(found.margin_satisfied, percent),
                ]
            )
    margin = analysis.runs[0].distances.margin
    return table(["Anchors", "Within a class", "Between classes", f"Triplets that keep {margin:g}"], rows)


def _correlation(value: float) -> str:
    return _signed(f"{value:+.2f}")


def _signed(text: str) -> str:
    """With a true minus sign."""
    return text.replace("-", "−")


def _or_none(value: float | None, words: Callable[[float], str]) -> str:
    return '<span class="none">none</span>' if value is None else words(value)


def _chart(chart: str, lines: Sequence[Curve]) -> str:
    return f'<div class="charts one"><figure>{chart}{legend(lines)}</figure></div>'


def _panel(chart: str, lines: Sequence[Curve], caption: str) -> str:
    return f"<figure>{chart}{legend(lines)}<figcaption>{escape(caption)}</figcaption></figure>"


def _row(figures: Iterable[str]) -> str:
    return f'<div class="row maps">{"".join(figures)}</div>'


def _map(values: Float64s, low: float, high: float, alt: str, caption: str) -> str:
    address = png_address(coloured(values, low, high))
    return f'<figure><img src="{address}" alt="{escape(alt)}"><figcaption>{escape(caption)}</figcaption></figure>'


def _key(low: str, high: str) -> str:
    """The scale between the values at its ends."""
    return f'{low} <img class="key-bar" src="{png_address(KEY)}" alt="colours from dark violet to yellow"> {high}'
