"""The section of the page on where the classifier looks."""

from html import escape

import numpy as np

from service.detection.types import Bytes8, Float64s
from training.analysis.maps import coloured
from training.evaluation.looking import Looked, Looking
from training.evaluation.pictures import png_address

__all__ = ["looking_section", "overlay"]

_MAP = 0.6
"""Weight of a map over its image."""
_BACKGROUND = np.array([59.0, 82.0, 139.0])


def looking_section(looking: Looking | None) -> str:
    """As HTML; empty for a classifier that has no such maps."""
    if looking is None:
        return ""
    shares = looking.shares
    how = (
        "told from the foreground by colour, in the manner of GrabCut from a box in the middle"
        if looking.is_by_colour
        else "all pixels below a tenth of the range"
    )
    rows = "".join(_row(one) for one in looking.examples)
    return (
        "<section><h2>Where the classifier looks</h2><p>Grad-CAM marks the places, of a grid of "
        f"{looking.grid[0]} × {looking.grid[1]}, whose features speak for the class that the classifier names; "
        "saliency marks the pixels whose smallest changes move its answer most. The background "
        f"({how}) is {_percent(shares.background)} of the pixels: a classifier that looked everywhere alike would have "
        f"that share there. <strong>{_percent(shares.cam)}</strong> of Grad-CAM lies on it and "
        f"{_percent(shares.saliency)} of saliency; after {escape(looking.attack)} {_percent(looking.attacked_cam)} of "
        "Grad-CAM. Who looks at the background can be fooled there: <code>advsentry-train robustness --mask</code> "
        "measures how often. The maps themselves prove nothing: they show what moves an answer in the small.</p>"
        f'<div class="examples">{rows}</div></section>'
    )


def overlay(image: Bytes8, values: Float64s) -> Bytes8:
    """A map (H, W) in colours over the image (H, W, C) in grey, (H, W, 3)."""
    grey = image.astype(np.float64).mean(axis=2, keepdims=True)
    colours = coloured(values, 0.0, float(values.max())).astype(np.float64)
    return np.asarray(np.rint((1 - _MAP) * grey + _MAP * colours).astype(np.uint8))


def _shaded(one: Looked) -> Bytes8:
    """The image with its background in blue, (H, W, 3)."""
    image = np.broadcast_to(one.image.astype(np.float64), (*one.image.shape[:2], 3))
    shaded = np.where(one.background[..., None], (image + _BACKGROUND) / 2, image)
    return np.asarray(np.rint(shaded).astype(np.uint8))


def _row(one: Looked) -> str:
    pictures = [
        (one.image, "image", f"read as <b>{escape(one.label)}</b>"),
        (_shaded(one), "background", "its background, in blue"),
        (overlay(one.image, one.cam), "Grad-CAM", "Grad-CAM<br>yellow: most"),
        (overlay(one.image, one.saliency), "saliency", "saliency"),
        (
            overlay(one.attacked, one.attacked_cam),
            "Grad-CAM, attacked",
            f"Grad-CAM, attacked<br>read as <b>{escape(one.attacked_label)}</b>",
        ),
    ]
    figures = "".join(
        f'<figure><img src="{png_address(picture)}" alt="{name}"><figcaption>{caption}</figcaption></figure>'
        for picture, name, caption in pictures
    )
    return f'<div class="row">{figures}</div>'


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.0f} %"
