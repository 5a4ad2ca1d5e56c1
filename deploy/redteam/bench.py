"""What is attacked, with what, and how the server answers: from a command line."""

import argparse
import contextlib
from collections.abc import Sequence

from deploy.redteam.backend import Backend
from deploy.redteam.cases import OFF, Case, Server, cases
from deploy.redteam.in_process import InProcess
from deploy.redteam.material import parts_of, victims_of
from deploy.redteam.remote import Remote
from deploy.redteam.running import Budget
from service.client import Client
from service.detection.bundle import find_bundle
from service.detection.engine import Engine
from service.errors import SetupError
from service.history.calibration import Calibration
from training.attacks.rounding import levels
from training.history.making import made_history
from training.history.pools import pools_of

__all__ = ["BUDGET", "IMAGES", "Bench"]

BUDGET, IMAGES = 10_000, 20
"""Below which figures are those of a quick run, which docs/results takes none of."""


class Bench:
    """What is attacked, with what, and how the server answers."""

    def __init__(self, options: argparse.Namespace, stack: contextlib.ExitStack) -> None:
        """Loads bundle and data.

        Args:
            options: of the command line.
            stack: closes what is opened.

        Raises:
            AdvsentryError: something is missing, or does not go together.
        """
        self.engine = Engine.load(find_bundle(options.bundle), threads=1)
        threat = self.engine.bundle.manifest.threat_model
        if threat.norm != "linf":
            raise SetupError(f"{options.bundle}: expected a bundle with an Linf threat model, got {threat.norm}")
        self.victims = victims_of(self.engine, parts_of(self.engine, options.data), options.images, options.seed)
        self.server = Server(
            level=options.level, window_s=options.window_s, flags=options.flags, late_flags=options.late_flags
        )
        own = levels(threat.eps)
        every = cases(options.budget, (own, options.eps or 2 * own), self.server)
        self.cases = [case for case in every if _is_wanted(case, options.only)]
        if not self.cases:
            raise SetupError(f"--only: expected the beginning of a case's name, such as {every[0].name}")
        if options.target and not _are_for_one_server(self.cases):
            raise SetupError(
                "--target: expected cases of the one mode that the server is in, and none that take hours; name them "
                "with --only"
            )
        self.clients = _clients(options, stack)
        is_watched = not options.target and any(case.mode != OFF for case in self.cases)
        self.calibration = _calibration(self.engine, options) if is_watched else None
        """Of the history; None where none is asked in this process."""
        self.settings: dict[str, object] = {
            "budget": options.budget,
            "images": options.images,
            "eps": f"{own}/255, {options.eps or 2 * own}/255",
            "level": options.level,
            "window_s": options.window_s,
            "flags": options.flags,
            "late_flags": options.late_flags,
        }

    def backend(self, case: Case, seed: int) -> Backend:
        """A server that nobody has asked yet, or the one that runs."""
        if self.clients:
            return Remote(self.clients, classes=len(self.engine.bundle.manifest.class_names))
        return InProcess(self.engine, self.calibration, self.server.rules(case.mode), seed=seed)

    def data(self, options: argparse.Namespace) -> dict[str, object]:
        """For the result file."""
        manifest = self.engine.bundle.manifest
        found: dict[str, object] = {
            "set": str(manifest.training["data"]["set"]),
            "split": "test",
            manifest.name: manifest.files["model.onnx"].sha256[:12],
            **({} if self.calibration is None else {"benign_streams": self.calibration.streams}),
        }
        is_quick = options.budget < BUDGET or options.images < IMAGES or options.target
        return found | ({"quick": True} if is_quick else {})


def _is_wanted(case: Case, only: str) -> bool:
    return not only or case.name.startswith(tuple(only.split(",")))


def _are_for_one_server(chosen: Sequence[Case]) -> bool:
    """Whether a server that runs can be asked: its clock is its own."""
    is_quick = all(not case.budget.waits_s and case.budget.every_s == Budget.every_s for case in chosen)
    return is_quick and len({case.mode for case in chosen}) == 1


def _calibration(engine: Engine, options: argparse.Namespace) -> Calibration:
    """The bundle's, or one that is made of its data set, as `advsentry-train history` does."""
    return engine.bundle.history or made_history(
        engine, pools_of(engine, options.data), level=options.level, seed=options.seed
    )


def _clients(options: argparse.Namespace, stack: contextlib.ExitStack) -> list[Client]:
    """One for each token; one without where there is none.

    Raises:
        SetupError: the file cannot be read.
    """
    if not options.target:
        return []
    try:
        tokens = options.tokens.read_text(encoding="ascii").split() if options.tokens else [""]
    except (OSError, ValueError) as error:
        raise SetupError(f"--tokens: expected a file with a token a line: {error}") from error
    return [stack.enter_context(Client(options.target, ca=options.ca, token=token)) for token in tokens]
