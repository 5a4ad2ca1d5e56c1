"""Slow, obvious versions of the mathematics, written from the formulas."""

import numpy as np


def auroc(attacked: np.ndarray, clean: np.ndarray) -> float:
    wins = sum(1.0 if a > c else 0.5 if a == c else 0.0 for a in attacked for c in clean)
    return wins / (len(attacked) * len(clean))


def tpr_at_fpr(attacked: np.ndarray, clean: np.ndarray, fpr: float) -> float:
    best = 0.0
    for threshold in [-np.inf, *clean, *attacked]:
        if np.mean(clean > threshold) <= fpr + 1e-12:
            best = max(best, float(np.mean(attacked > threshold)))
    return best


def bootstrap_aurocs(attacked: np.ndarray, clean: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Repeats each image as often as it was drawn."""
    return np.array([auroc(np.repeat(attacked, w.astype(int)), np.repeat(clean, w.astype(int))) for w in weights])
