"""The torch twin of the tiny bundle, a test set of its images, and a whole evaluation of both."""

import torch
from torch import Tensor, nn

from service.detection.engine import Engine
from tests import tiny
from training.evaluation.assemble import assemble
from training.evaluation.bootstrap import draw_weights
from training.evaluation.decisions import decide
from training.evaluation.evaluate import Evaluation, judge_run
from training.evaluation.held_out import HeldOut, choose_images
from training.evaluation.judging import Subject
from training.evaluation.results import Provenance, Report
from training.evaluation.suite import SuiteEntry, budgets_for, chosen, quick_suite
from training.evaluation.suite_run import run_suite

BUDGETS = budgets_for("linf", 0.1, 64)
NAMES = ("fgsm", "pgd", "margin_pgd", "pgd_150", "pgd_l2", "deepfool", "ddn", "fmn_linf", "cw_l2", "patch")
SUITE = chosen(quick_suite(BUDGETS), NAMES)


class Twin(nn.Module):
    """Class c is the mean of quadrant c, times 20; what `tiny.graph` computes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images.mean(dim=1, keepdim=True), 2).flatten(1) * self.scale


def identity(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    return images


NOTHING = SuiteEntry(
    name="nothing", title="Nothing", description="Leaves the image alone.", norm="linf", eps=0.0, attack=identity
)


def held_out(count: int = 60, seed: int = 5) -> HeldOut:
    images = tiny.images(count, seed=seed)
    labels = images.reshape(count, 2, 4, 2, 4).mean(axis=(2, 4)).reshape(count, 4).argmax(axis=1)
    return HeldOut(images=images, labels=labels, chosen=choose_images(labels, count, 0))


def run(
    engine: Engine,
    suite: tuple[SuiteEntry, ...] = SUITE,
    *,
    test: HeldOut | None = None,
    model: nn.Module | None = None,
) -> Evaluation:
    test, model = test or held_out(), model or Twin().eval()
    ran = run_suite(engine, model, test, suite, seed=0, progress=lambda line: None)
    return judge_run(engine, model, test, ran, budgets=BUDGETS, seed=0, progress=lambda line: None)


def report(engine: Engine, evaluation: Evaluation, *, publishable: bool = True) -> Report:
    provenance = Provenance(
        command="advsentry-train evaluate tiny --run tiny --out <out>",
        seed=0,
        code_version="test",
        commit="unknown",
        machine="a test",
        started="2026-01-01T00:00:00+00:00",
        seconds=1.0,
        libraries={},
    )
    return assemble(
        evaluation,
        engine.bundle,
        held_out(),
        budgets=BUDGETS,
        data_name="quadrants",
        provenance=provenance,
        publishable=publishable,
    )


def subject(engine: Engine, count: int) -> Subject:
    test = held_out(count)
    return Subject(
        images=test.images, truth=test.labels, clean=decide(engine, test.images), weights=draw_weights(count, 0)
    )
