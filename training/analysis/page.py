"""`index.html`: the analyses of several runs side by side, for a reader who has the papers at hand or not."""

import string
from html import escape
from importlib.resources import files

from training.analysis import sections
from training.analysis.results import Analysis
from training.evaluation.tables import budget, percent, table

__all__ = ["page"]


def page(analysis: Analysis) -> str:
    """The whole page; it loads nothing from anywhere."""
    folder, evaluation = files("training.analysis"), files("training.evaluation")
    css = (evaluation / "report.css").read_text(encoding="utf-8") + (folder / "page.css").read_text(encoding="utf-8")
    template = string.Template((folder / "page.html").read_text(encoding="utf-8"))
    text = template.substitute(
        css=css,
        title=escape(_title(analysis)),
        subtitle=escape(_subtitle(analysis)),
        summary=_summary(analysis),
        low_pass=sections.low_pass(analysis),
        spectra=sections.spectra(analysis),
        kernels=sections.kernels(analysis),
        curves=sections.curves(analysis),
        heat_maps=sections.heat_maps(analysis),
        embeddings=sections.embeddings(analysis),
        neighbours=sections.neighbours(analysis),
        distances=sections.distances(analysis),
        provenance=_provenance(analysis),
        command=escape(analysis.provenance.command),
    )
    return text.replace(" %", "\N{NO-BREAK SPACE}%")  # or lines break between number and sign


def _title(analysis: Analysis) -> str:
    names = [run.name for run in analysis.runs]
    return f"What “{names[0]}” looks at" if len(names) == 1 else f"{', '.join(names)}: side by side"


def _subtitle(analysis: Analysis) -> str:
    height, width, channels = analysis.input_shape
    return (
        f"{analysis.data_name}, {len(analysis.class_names)} classes, images of {height} × {width}"
        f"{' in colour' if channels == 3 else ' in grey'} · {analysis.provenance.started[:10]}"
    )


def _summary(analysis: Analysis) -> str:
    settings = analysis.settings
    norm = "L∞" if settings.norm == "linf" else "L2"
    words = (
        f"{len(analysis.labels)} test images, clean and attacked by PGD with 20 steps, {norm} budget "
        f"{budget(settings.eps)}, each attacked on the very network that is shown and rounded to 8 bits. “Attacked” "
        "below always means these images. The attack is weaker than those of an evaluation: read the differences "
        "between runs, and quote the figures of <code>advsentry-train evaluate</code>."
    )
    rows = (
        [
            escape(run.name),
            escape(run.recipe),
            str(run.epoch),
            percent(run.clean_accuracy),
            percent(run.attacked_accuracy),
        ]
        for run in analysis.runs
    )
    return f"<p>{words}</p>" + table(["Run", "Recipe", "Epoch", "Right, clean", "Right, attacked"], rows, kind="runs")


def _provenance(analysis: Analysis) -> str:
    made = analysis.provenance
    rows = [
        ("Code", f"advsentry {made.code_version}, commit {made.commit}"),
        ("Libraries", ", ".join(f"{name} {version}" for name, version in made.libraries.items())),
        ("Machine", made.machine),
        ("Seed and time", f"{made.seed}; {made.seconds:.0f} s"),
    ]
    return table(["", ""], ([escape(name), escape(value)] for name, value in rows), kind="card-table")
