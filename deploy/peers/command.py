"""`python -m deploy.peers`: our detectors and those of peers on one bundle, in one table."""

import argparse
import dataclasses
import functools
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deploy.peers.contestants import Absent, Contestant, material_of, of_bundle, of_peers
from deploy.peers.measure import Labelled, figures, success_figures
from deploy.peers.peer import Peer
from deploy.peers.registry import PEERS
from deploy.peers.suite import aimed_at, blind_suite, fitting_attack
from deploy.peers.tables import DETECTORS, remarks, tables
from deploy.peers.toolbox import LEFT_OUT
from deploy.result_file import write_result
from service.detection.bundle import find_bundle
from service.detection.engine import Engine
from service.errors import AdvsentryError, SetupError
from service.report import table
from training.checkpoint import CHECKPOINT, load_run
from training.config import recipe_to_dict
from training.evaluation.attack_cache import ATTACKED, AttackCache
from training.evaluation.attacking import Progress, attack_images
from training.evaluation.decisions import decide
from training.evaluation.pairing import check_pair
from training.evaluation.preparing import held_out
from training.evaluation.progress import reporting
from training.evaluation.suite import NormName, SuiteEntry, budgets_for
from training.evaluation.twin import torch_twin
from training.folders import make_folder
from training.precision import deterministic

__all__ = ["Options", "compare", "main"]

_DEMO = Path("build/demo")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asks for."""

    bundle: str
    """A directory, or the name of a shipped bundle."""
    run: Path
    """That the bundle was exported from."""
    data: Path | None = None
    images: int | None = None
    """How many test images are attacked; None chooses by the size of the test set."""
    detectors: tuple[str, ...] = ()
    """Of peers; all when empty."""
    seed: int = 0
    quick: bool = False
    """Attacks too weak for figures that are kept."""
    cache: Path | None = None
    """Where attacked images are kept; None for the run's own folder."""
    out: Path | None = None
    """The result file."""

    def __post_init__(self) -> None:
        known = [peer.name for peer in PEERS]
        if unknown := [name for name in self.detectors if name not in known]:
            raise SetupError(f"--detectors: expected some of {', '.join(known)}, got {', '.join(unknown)}")
        if self.images is not None and self.images < 1:
            raise SetupError(f"--images: expected at least 1, got {self.images}")
        if self.seed < 0:
            raise SetupError(f"--seed: expected 0 or more, got {self.seed}")

    def peers(self) -> tuple[Peer, ...]:
        """Those that are asked for."""
        return tuple(peer for peer in PEERS if not self.detectors or peer.name in self.detectors)

    def arguments(self) -> list[str]:
        """That give the same figures; where the data lie is this machine's affair."""
        words = [self.bundle, "--run", str(self.run)]
        words += [] if self.data is None else ["--data", "DATA"]
        words += [] if self.images is None else ["--images", str(self.images)]
        words += ["--detectors", ",".join(self.detectors)] if self.detectors else []
        words += ["--seed", str(self.seed), *(["--quick"] if self.quick else [])]
        return words + ([] if self.out is None else ["--out", str(self.out)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison; gives the exit status."""
    try:
        options = _options(arguments)
        result = compare(options)
        if options.out:
            make_folder(options.out.parent, "--out")
            _write(options, result)
    except AdvsentryError as error:
        print(f"bench-detectors: error: {error}", file=sys.stderr)
        return 1
    for title, rows in tables(result):
        print(f"{title}\n{table(rows)}\n")
    print("\n".join(remarks(result)))
    return 0


def _options(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m deploy.peers", description=__doc__)
    parser.add_argument(
        "bundle", nargs="?", help="a directory or a shipped name; what `make demo` leaves when left out"
    )
    parser.add_argument("--run", type=Path, help="the run that the bundle was exported from")
    parser.add_argument("--data", type=Path, help="folder of the data sets (or ADVSENTRY_DATA)")
    parser.add_argument("--images", type=int, help="test images that are attacked (all up to 2000, else 500)")
    parser.add_argument("--detectors", default="", help="peers to measure, with commas between (all)")
    parser.add_argument("--seed", type=int, default=0, help="of every random number (0)")
    parser.add_argument("--quick", action="store_true", help="weak attacks, for a first look; not to be kept")
    parser.add_argument("--cache", type=Path, help="folder of attacked images (RUN/attacked)")
    parser.add_argument("--out", type=Path, help="a file for docs/results")
    found = parser.parse_args(arguments)
    if (found.bundle is None) != (found.run is None):
        raise SetupError("expected a bundle and --run, or neither for what `make demo` leaves, got one of them")
    if found.bundle is None:
        found.bundle, found.run = str(_DEMO / "digits"), _DEMO / "run"
        if not (found.run / CHECKPOINT).is_file():
            raise SetupError(
                f"{found.run}: expected the run of `make demo`, found none; run it, or name bundle and run"
            )
    if found.data is None and "ADVSENTRY_DATA" in os.environ:
        found.data = Path(os.environ["ADVSENTRY_DATA"])
    found.detectors = tuple(name for name in found.detectors.split(",") if name)
    return Options(**{field.name: getattr(found, field.name) for field in dataclasses.fields(Options)})


def compare(options: Options) -> dict[str, Any]:
    """Measures everything.

    Returns:
        `metrics` (DETECTOR/FIGURE to number), `seconds`, `detectors`, `attacks`, `data` and `recipe`, as a result file
        has them.

    Raises:
        BundleError: the bundle is damaged.
        SetupError: run or data are missing, do not belong to the bundle, or are too few.
    """
    began = time.monotonic()
    engine = Engine.load(find_bundle(options.bundle))
    run = load_run(options.run)
    check_pair(run, engine.bundle)
    parts = run.parts(options.data)
    test = held_out(run, parts, images=options.images, seed=options.seed)
    shape, threat = engine.bundle.manifest.input, engine.bundle.manifest.threat_model
    norm: NormName = "l2" if threat.norm == "l2" else "linf"
    budgets = budgets_for(norm, threat.eps, shape.height * shape.width * shape.channels)
    suite = blind_suite(budgets, quick=options.quick)
    with reporting() as progress, deterministic(0):
        attack = _Attacker(engine, run.model, options, progress, run.path)
        graph = torch_twin(run, parts, engine)
        calibration = parts.calibration
        learned = attack(fitting_attack(suite, norm), calibration.images, calibration.labels)
        material = material_of(run.model, parts.fit, calibration, learned.images, learned.labels, seed=options.seed)
        progress("fitting: peers")
        everyone = [*of_bundle(engine, graph), *of_peers(options.peers(), material)]
        chosen, truth = test.images[test.chosen], test.labels[test.chosen]
        blind = [attack(entry, chosen, truth) for entry in suite]
        labels = decide(engine, test.images).labels
        metrics = {f"attacks/{key}": value for key, value in success_figures(blind, test, labels).items()}
        for one in everyone:
            if isinstance(one, Absent):
                continue
            progress(f"{one.name}: figures")
            own = None if one.target is None else aimed_at(one, budgets, norm, quick=options.quick)
            found = figures(
                one,
                test,
                labels,
                parts.fusion.images,
                blind,
                attack=None if own is None else functools.partial(attack, own, chosen, truth),
                budgets=budgets,
                seed=options.seed,
            )
            metrics |= {f"{one.name}/{key}": value for key, value in found.items()}
    return {
        "metrics": metrics,
        "seconds": round(time.monotonic() - began + attack.spared, 1),
        DETECTORS: [_described(one) for one in everyone] + [{"title": k, "why": v} for k, v in LEFT_OUT.items()],
        "attacks": {entry.name: entry.title for entry in suite},
        "recipe": recipe_to_dict(run.recipe),
        "data": {
            "set": run.recipe.data.set,
            "test_images": len(test.images),
            "attacked_images": len(test.chosen),
            "clean_images_fitted_on": len(material.fit.images),
            "calibration_images_attacked": len(material.calm),
            "of_these_misread": int(material.fooled.sum()),
            "threshold_images": len(parts.fusion),
            **({"quick": True} if options.quick else {}),
        },
    }


class _Attacker:
    """Makes attacked images and asks the bundle what it reads in them."""

    def __init__(self, engine: Engine, model: torch.nn.Module, options: Options, progress: Progress, run: Path) -> None:
        self._engine = engine
        self._model = model
        self._seed = options.seed
        self._progress = progress
        self._cache = AttackCache(options.cache or run / ATTACKED, warn=progress)
        self.spared = 0.0
        """Seconds that earlier calls had spent."""

    def __call__(self, entry: SuiteEntry, images: np.ndarray, labels: np.ndarray) -> Labelled:
        run = attack_images(
            self._model, images, labels, entry, seed=self._seed, progress=self._progress, cache=self._cache
        )
        self.spared += run.spared
        return Labelled(entry=entry, images=run.images, labels=decide(self._engine, run.images).labels)


def _described(one: Contestant | Absent) -> dict[str, Any]:
    if isinstance(one, Absent):
        return {"name": one.name, "title": one.title, "why": one.why}
    return {
        "name": one.name,
        "title": one.title,
        "source": one.source,
        "fit": one.fit_data,
        "has_gradient": one.target is not None,
    }


def _write(options: Options, result: dict[str, Any]) -> None:
    assert options.out is not None
    write_result(
        options.out,
        name=options.out.stem,
        module="deploy.peers",
        recipe=result["recipe"],
        seed=options.seed,
        seconds=result["seconds"],
        data=result["data"],
        metrics=result["metrics"],
        arguments=options.arguments(),
        further={DETECTORS: result[DETECTORS], "attacks": result["attacks"]},
    )
