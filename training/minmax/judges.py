"""What bundles say of the images that an experiment made: they are not attacked, having no gradient."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from service.detection.bundle import find_bundle
from service.detection.engine import Engine
from service.detection.types import Bytes8
from service.errors import SetupError
from training.evaluation.decisions import decide

__all__ = ["Judge", "judged", "load_judges"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Judge:
    """A bundle under a name of its own."""

    name: str
    engine: Engine


def load_judges(bundles: Sequence[str], shape: tuple[int, int, int], networks: Iterable[str]) -> list[Judge]:
    """Bundles by directory or shipped name.

    Args:
        bundles: any number.
        shape: H, W, C of the images.
        networks: names that are taken.

    Raises:
        SetupError: a bundle takes images of another size, or a name is taken.
        BundleError: there is no such bundle.
    """
    judges, taken = [], set(networks)
    for bundle in bundles:
        engine = Engine.load(find_bundle(bundle), threads=1)
        manifest = engine.bundle.manifest
        own = (manifest.input.height, manifest.input.width, manifest.input.channels)
        if own != shape:
            raise SetupError(f"--bundle {bundle}: expected one for images of {shape}, got one for {own}")
        if manifest.name in taken:
            raise SetupError(f"--bundle {bundle}: expected a name of its own, got {manifest.name} again; rename it")
        taken.add(manifest.name)
        judges.append(Judge(name=manifest.name, engine=engine))
    return judges


def judged(judges: Sequence[Judge], clean: Bytes8, attacked: Mapping[str, Bytes8]) -> dict[str, float]:
    """Of each bundle and way of attacking the share of images that it reads differently, and that it finds.

    `found` counts the images called adversarial at the bundle's default alpha, whether they fool it or not.

    Args:
        judges: any number.
        clean: (N, H, W, C).
        attacked: the same images by way of attacking.
    """
    metrics = {}
    for judge in judges:
        engine = judge.engine
        labels, alpha = decide(engine, clean).labels, engine.resolve_alpha(None)
        for name, images in attacked.items():
            answers = decide(engine, images)
            metrics[f"{name}_asr_{judge.name}"] = float((answers.labels != labels).mean())
            metrics[f"{name}_found_{judge.name}"] = float(answers.rejected(alpha).mean())
    return metrics
