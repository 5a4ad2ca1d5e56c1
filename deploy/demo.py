"""The main job, end to end, on scikit-learn's digits: `make demo`.

Trains, exports, evaluates, serves, attacks the server through gRPC, and shows what it answers and counts.
"""

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from service.client import Client, Options
from service.detection.types import Bytes8, Detection, Verdict
from service.errors import AdvsentryError
from service.report import table
from training.attacks.pgd import Pgd
from training.attacks.rounding import from_8_bit, to_8_bit
from training.checkpoint import Run, load_run

SHOWN = 6
ALPHA = 0.05
"""One clean image in twenty may be called adversarial; the bundle's default is one in a hundred."""

METRICS = re.compile(
    r"^advsentry_(images|verdicts|flagged|image_errors)_total|^advsentry_batch_size_(sum|count)|"
    r"^grpc_server_handled_total.*Detector"
)


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running `advsentry serve`."""

    target: str
    metrics_url: str


def main(arguments: list[str] | None = None) -> int:
    """Runs every step and stops at the first that fails."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/demo"))
    out = parser.parse_args(arguments).out
    began = time.monotonic()
    run, bundle, report = out / "run", out / "digits", out / "report"
    title("1. Train a robust classifier on 8 x 8 digits: adversarial training with TLA's triplet term")
    command("training", "fit", "digits", "--out", str(run))
    title("2. Fit three detectors, calibrate them and write the bundle")
    # The query history's calibration for a small level takes most of a minute.
    command("training", "export", str(run), "--out", str(bundle), "--force", "export.history_level=0.05")
    title("3. Attack it, with and without knowledge of the detectors: a first look, not to be quoted")
    quick = ("--images", "100", "--budget", "quick")
    command("training", "evaluate", str(bundle), "--run", str(run), "--out", str(report), *quick)
    title("4. Look at the bundle, as an operator would")
    command("service", "info", str(bundle))
    title(f"5. Serve it, and send clean and attacked digits through gRPC, at {ALPHA:.0%} false positives")
    trained = load_run(run)
    clean, attacked, labels = pictures(trained)
    with serving(bundle) as server:
        print(answers(server, trained, clean, attacked, labels), flush=True)
        title("6. What Prometheus would scrape")
        print(scrape(server))
    title(f"Done in {time.monotonic() - began:.0f} s")
    print(f"bundle  {bundle}\nreport  {report / 'report.html'}  (open it in a browser)")
    print(f"serve   .venv/bin/advsentry serve --bundle {bundle}")
    return 0


def title(text: str) -> None:
    """A heading between the steps."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def command(package: str, *arguments: str) -> None:
    """Runs one of our command lines, shown as a user would type it.

    Raises:
        SystemExit: it failed; it has said why.
    """
    script = {"training": "advsentry-train", "service": "advsentry"}[package]
    print(f"$ {script} {' '.join(arguments)}", flush=True)
    status = subprocess.run([sys.executable, "-m", package, *arguments], check=False).returncode
    if status:
        sys.exit(status)


def pictures(run: Run) -> tuple[Bytes8, Bytes8, np.ndarray]:
    """The first test digits, the same under PGD at the training budget, and their true classes."""
    test = run.parts(None).test
    clean, labels = test.images[:SHOWN], test.labels[:SHOWN]
    eps, norm = run.recipe.attack.eps, run.recipe.attack.norm
    attack = Pgd(norm=norm, eps=eps, step=eps / 10, steps=40, restarts=3)
    images = from_8_bit(clean)
    attacked = attack(run.model, images, torch.from_numpy(labels), torch.Generator().manual_seed(0))
    return clean, to_8_bit(attacked, images, norm=norm, eps=eps).numpy(), labels


@contextlib.contextmanager
def serving(bundle: Path) -> Iterator[Server]:
    """Runs the real server on free ports of this machine and stops it as an operator would, by SIGTERM."""
    arguments = ["serve", "--bundle", str(bundle), "--port", "0", "--metrics-port", "0", "--log-level", "warning"]
    print(f"$ advsentry {' '.join(arguments)}", flush=True)
    words = [sys.executable, "-m", "service", *arguments]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            found = re.match(r"serving grpc=(\S+) metrics=(\S+)", process.stdout.readline())
            if found is None:
                process.wait(timeout=10)
                sys.exit(process.returncode or 1)
            yield Server(target=found[1], metrics_url=f"http://{found[2]}/metrics")
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(timeout=60)
    print(f"\nserver stopped by SIGTERM, exit status {status}")


def answers(server: Server, run: Run, clean: Bytes8, attacked: Bytes8, labels: np.ndarray) -> str:
    """A table of what the server says of each image."""
    with Client(server.target) as client:
        while not client.is_serving():
            time.sleep(0.1)
        results = client.detect_batch([*clean, *attacked], Options(alpha=ALPHA))
    names = [f"{kind} {number}" for kind in ("clean", "attacked") for number in range(len(clean))]
    rows: list[tuple[str, ...]] = [("image", "true class", "predicted class", "p-value", "verdict", "why")]
    for name, label, result in zip(names, [*labels, *labels], results, strict=True):
        rows.append(row(name, run.class_names[int(label)], result))
    return table(rows)


def row(name: str, true_class: str, result: Detection | AdvsentryError) -> tuple[str, ...]:
    """One image of the table."""
    if isinstance(result, AdvsentryError):
        raise result
    wrong = "" if result.top.label == true_class else "  (wrong)"
    verdict = result.verdict.upper() if result.verdict is Verdict.ADVERSARIAL else result.verdict
    why = ", ".join(flag.detector for flag in result.flags)
    return (name, true_class, result.top.label + wrong, f"<= {result.p_value:g}", verdict, why)


def scrape(server: Server) -> str:
    """The metrics that say how the service is doing, without those at zero."""
    with urllib.request.urlopen(server.metrics_url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return "\n".join(line for line in lines if METRICS.match(line) and not line.endswith(" 0.0"))


if __name__ == "__main__":
    # Tensors of 8 x 8 images are too small to share: on a busy machine threads would only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
