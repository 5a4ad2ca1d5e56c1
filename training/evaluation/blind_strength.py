"""How much the attacks of `evaluate` that see the classifier alone may compute."""

from dataclasses import dataclass

__all__ = ["FULL", "QUICK", "STANDARD", "BlindStrength"]


@dataclass(frozen=True, kw_only=True)
class BlindStrength:
    """Steps, starts and queries; `..._images` limits how many images a dear attack takes, None does not."""

    steps: int
    """Of PGD and the momentum method, each of 2.5 budgets / steps."""
    restarts: int
    """Of PGD with the cross-entropy in Linf."""
    further_restarts: int
    """Of the other kinds of PGD."""
    apgd_steps: int
    """Of each of APGD's starts and targets."""
    apgd_restarts: int
    queries: int
    """Of the square attack."""
    search_steps: int
    """Of DDN and FMN."""
    carlini_steps: int
    """Of each bisection."""
    bisections: int
    carlini_constant: float
    """The first constant: the fewer bisections, the nearer it must be."""
    carlini_images: int | None
    turns: int
    """Of HopSkipJump."""
    probes: int
    hop_skip_jump_images: int | None
    jsma_images: int | None
    patch_steps: int
    places: int
    """That the patch is tried at."""
    patch_images: int | None
    shifts: int
    """Of each axis."""
    angles: int
    spatial_images: int | None


QUICK = BlindStrength(
    steps=10,
    restarts=1,
    further_restarts=1,
    apgd_steps=10,
    apgd_restarts=1,
    queries=50,
    search_steps=30,
    carlini_steps=30,
    bisections=3,
    carlini_constant=0.1,
    carlini_images=50,
    turns=3,
    probes=20,
    hop_skip_jump_images=50,
    jsma_images=50,
    patch_steps=10,
    places=2,
    patch_images=50,
    shifts=3,
    angles=5,
    spatial_images=None,
)
"""Far too weak to be published: for tests and for a first look."""
STANDARD = BlindStrength(
    steps=100,
    restarts=5,
    further_restarts=2,
    apgd_steps=100,
    apgd_restarts=1,
    queries=1_000,
    search_steps=200,
    carlini_steps=200,
    bisections=6,
    carlini_constant=0.1,
    carlini_images=200,
    turns=28,
    probes=100,
    hop_skip_jump_images=50,
    jsma_images=200,
    patch_steps=100,
    places=10,
    patch_images=200,
    shifts=5,
    angles=31,
    spatial_images=200,
)
FULL = BlindStrength(
    steps=100,
    restarts=10,
    further_restarts=10,
    apgd_steps=100,
    apgd_restarts=5,
    queries=5_000,
    search_steps=200,
    carlini_steps=1_000,
    bisections=9,
    carlini_constant=1e-3,
    carlini_images=None,
    turns=28,
    probes=100,
    hop_skip_jump_images=200,
    jsma_images=None,
    patch_steps=100,
    places=10,
    patch_images=None,
    shifts=5,
    angles=31,
    spatial_images=None,
)
