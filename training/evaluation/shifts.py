"""Benign changes of clean images: what cameras, encoders and resizers do, and noise that nobody aimed."""

from dataclasses import dataclass

from training.changes import Change, blurred, by_image, gaussian, jpeg, noisy, of_length, scaled, shrunk, turned
from training.evaluation.suite import Budgets

__all__ = ["Shift", "shifts"]


@dataclass(frozen=True, kw_only=True)
class Shift:
    """One way in which images arrive that nobody attacked."""

    name: str
    title: str
    is_mild: bool
    """Whether a pipeline does it without anybody noticing; a promise on false alarms should nearly survive it."""
    change: Change


def shifts(budgets: Budgets) -> tuple[Shift, ...]:
    """Every shift, mild ones first; the noise of attack size takes its size from the budgets.

    Noise as large as an attack, but without aim, tells whether a detector sees attacks or merely noise.
    """
    linf, l2 = budgets.linf, budgets.l2
    return (
        Shift(name="none", title="Untouched", is_mild=True, change=lambda images, _: images),
        Shift(name="jpeg_95", title="JPEG, quality 95", is_mild=True, change=by_image(jpeg(95))),
        Shift(name="brightness_105", title="5 % brighter", is_mild=True, change=scaled(1.05, around=0.0)),
        Shift(name="brightness_95", title="5 % darker", is_mild=True, change=scaled(0.95, around=0.0)),
        Shift(name="contrast_105", title="5 % more contrast", is_mild=True, change=scaled(1.05, around=0.5)),
        Shift(name="noise_1", title="Gaussian noise, σ = 1/255", is_mild=True, change=gaussian(1 / 255)),
        Shift(name="blur_40", title="Gaussian blur, σ = 0.4 pixels", is_mild=True, change=by_image(blurred(0.4))),
        Shift(name="rotation_2", title="Turned by 2°", is_mild=True, change=by_image(turned(2))),
        Shift(name="jpeg_75", title="JPEG, quality 75", is_mild=False, change=by_image(jpeg(75))),
        Shift(name="jpeg_50", title="JPEG, quality 50", is_mild=False, change=by_image(jpeg(50))),
        Shift(name="brightness_130", title="30 % brighter", is_mild=False, change=scaled(1.3, around=0.0)),
        Shift(name="brightness_70", title="30 % darker", is_mild=False, change=scaled(0.7, around=0.0)),
        Shift(name="contrast_70", title="30 % less contrast", is_mild=False, change=scaled(0.7, around=0.5)),
        Shift(name="blur_100", title="Gaussian blur, σ = 1 pixel", is_mild=False, change=by_image(blurred(1.0))),
        Shift(name="resize_75", title="Shrunk to 3/4 and back", is_mild=False, change=by_image(shrunk(0.75))),
        Shift(name="rotation_10", title="Turned by 10°", is_mild=False, change=by_image(turned(10))),
        Shift(
            name="noise_signs",
            title=f"Random signs of the L∞ budget, {255 * linf:.3g}/255",
            is_mild=False,
            change=noisy(lambda shape, generator: linf * (2.0 * generator.integers(0, 2, shape) - 1)),
        ),
        Shift(
            name="noise_uniform",
            title=f"Uniform noise within the L∞ budget, {255 * linf:.3g}/255",
            is_mild=False,
            change=noisy(lambda shape, generator: generator.uniform(-linf, linf, shape)),
        ),
        Shift(
            name="noise_l2",
            title=f"Gaussian noise of the L2 budget, {l2:.3g}",
            is_mild=False,
            change=noisy(lambda shape, generator: of_length(generator.normal(size=shape), l2)),
        ),
    )
