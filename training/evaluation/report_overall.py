"""What the page says of all attacks together that see the classifier alone."""

from html import escape

from training.evaluation.overall import LEAST_SUCCESSES
from training.evaluation.results import AurocOverAttacks, Overall
from training.evaluation.tables import table

__all__ = ["overall_table"]


def overall_table(overall: Overall) -> str:
    """Mean and worst AUROC of the fused score over the attacks that see the classifier alone."""
    few = f"<p>An attack with fewer than {LEAST_SUCCESSES} successful images is left out of the first row.</p>"
    rows = (("Successful attacks", overall.successful), ("All attacked images", overall.all))
    return table(["AUROC over all these attacks", "Mean", "Worst"], ([what, *_over(one)] for what, one in rows)) + few


def _over(one: AurocOverAttacks) -> list[str]:
    if one.mean is None or one.worst is None:
        return ['<span class="none">none</span>'] * 2
    few = f'<small class="what">too few images: {escape(", ".join(one.left_out))}</small>' if one.left_out else ""
    worst = f"{one.worst:.3f}<small>{escape(one.worst_attack or '')}, {one.worst_images} images</small>"
    return [f"{one.mean:.3f}<small>{one.attacks} attacks</small>{few}", worst]
