"""Builds the image of target cpu, runs it, asks it, ends it and looks into it: `make test-image`.

    python -m deploy.image [--result FILE]

Prints one JSON object of flat names and writes the image's bill of materials into build/image; exit status 1 when
docs/results/asked.toml asks for something else. It takes root, buildah and debootstrap, and some minutes; BASE_IMAGE
names a base, which is Debian's python3 otherwise.
"""

import argparse
import json
import os
import re
import shutil
import sys
import time
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from deploy.asked import Asked
from deploy.image.bill import bill, installed_in
from deploy.image.building import ROOT, Buildah, build_base, build_image
from deploy.image.layers import Content, Image, content_of
from deploy.image.running import Container, ask, confined, contained
from deploy.result_file import write_result
from deploy.results import ASKED
from service.detection.bundle import SHIPPED
from service.errors import AdvsentryError

NAME = "image"
TAG, BASE = "advsentry", "advsentry-base"
TARGET = "cpu"
DEFAULT, MOUNTED = SHIPPED / "digits", SHIPPED / "mnist"
"""The bundle that the image serves when nothing is said, and one that is mounted as an operator's own."""


def main(arguments: list[str] | None = None) -> int:
    """Prints one JSON object; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.image", description=__doc__.splitlines()[0])
    parser.add_argument("--result", type=Path, help="a file for docs/results")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    folder = ROOT / "build" / "image"
    folder.mkdir(parents=True, exist_ok=True)
    base = os.environ.get("BASE_IMAGE", BASE)
    buildah = Buildah(folder=folder)
    try:
        metrics = measured(buildah, base)
    except AdvsentryError as error:
        print(f"test-image: error: {error}", file=sys.stderr)
        return 1
    finally:
        buildah.release()
    print(json.dumps(metrics, indent=2))
    if options.result:
        write_result(
            options.result,
            name=NAME,
            module="deploy.image",
            recipe={"target": TARGET},
            seed=0,
            seconds=time.monotonic() - began,
            data={"base": "Debian's python3 from debootstrap" if base == BASE else base},
            metrics=metrics,
        )
    missed = missed_of(metrics)
    for line in missed:
        print(f"test-image: missed: {line}", file=sys.stderr)
    return 1 if missed else 0


def missed_of(metrics: Mapping[str, float]) -> list[str]:
    """What docs/results/asked.toml asks of an image and these figures do not reach."""
    asked = tomllib.loads(ASKED.read_text(encoding="utf-8"))[NAME]
    return [
        f"{name} is {metrics[name]:g}, asked {bound}"
        for name, bound in asked.items()
        if Asked.parsed(bound).reached(metrics[name]) != "yes"
    ]


def measured(buildah: Buildah, base: str) -> dict[str, float]:
    """Builds, looks and runs.

    Raises:
        SetupError: something does not build or start.
    """
    if base == BASE:
        build_base(buildah, base)
    build_image(buildah, TAG, target=TARGET, base=base)
    image = exported(buildah, TAG)
    content = content_of(image.layers[len(exported(buildah, base).layers) :])
    found = installed_in(image.layers)
    path = buildah.folder / f"{TAG}-{TARGET}.cdx.json"
    path.write_text(bill(f"{TAG}-{TARGET}", found, datetime.now(UTC)), encoding="utf-8")
    print(path, file=sys.stderr)
    for name in (*content.secrets, *content.tests, *content.writable):
        print(f"test-image: not expected in the image: {name}", file=sys.stderr)
    metrics = {**_of_content(content), **_of_settings(image), "base_packages": float(len(found.debian))}
    with contained(buildah, TAG, image) as (server, health):
        metrics |= {"is_healthy": float(health() == "SERVING")}
        metrics |= _of_server("", server, DEFAULT)
    with confined(buildah, TAG, image, MOUNTED) as server:
        metrics |= {"may_gain_privileges": float(server.status("NoNewPrivs") != "1")}
        metrics |= {"may_write_root": float(server.may_write_root)}
        metrics |= _of_server("read_only_", server, MOUNTED)
    return metrics


def exported(buildah: Buildah, name: str) -> Image:
    """An image as files."""
    folder = buildah.folder / "exported" / name.replace("/", "_").replace(":", "_")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    buildah.run("push", "--quiet", "--disable-compression", "--format=v2s2", name, f"dir:{folder}")
    return Image.read(folder)


def _of_content(content: Content) -> dict[str, float]:
    pins = dict(
        re.findall(r"^([^=#\s]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    )
    known = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    known["onnxruntime"] = known.pop("onnxruntime-gpu")
    strangers = {name for name, version in content.packages.items() if known.get(name) != version} - {"advsentry"}
    for name in sorted(strangers):
        print(f"test-image: {name} {content.packages[name]} is not as constraints.txt has it", file=sys.stderr)
    return {
        "own_layers_mb": content.size_mb,
        "own_layers_compressed_mb": content.compressed_mb,
        "own_files": content.files,
        "packages": len(content.packages),
        "packages_not_pinned": len(strangers),
        "has_torch": float("torch" in content.packages),
        "secrets": len(content.secrets),
        "test_files": len(content.tests),
        "writable_files": len(content.writable),
    }


def _of_settings(image: Image) -> dict[str, float]:
    config = image.config
    said = (*config["Env"], *image.history)
    told = [text for text in said if re.search(r"PIP_(INDEX|EXTRA|CERT|CONFIG)|index-url|/run/secrets", text)]
    return {
        "user_id": float(config["User"].partition(":")[0]),
        "is_exec_form": float(config["Entrypoint"] == ["advsentry"] and config["Cmd"] == ["serve"]),
        "index_settings": len(told),
    }


def _of_server(prefix: str, server: Container, bundle: Path) -> dict[str, float]:
    answer = ask(server, bundle)
    figures = {
        "known_images": answer.asked,
        "wrong_answers": answer.wrong,
        "series": answer.series,
        "is_ready": float(answer.is_ready),
        "runs_as": float(server.status("Uid")),
        "capabilities": float(int(server.status("CapEff"), 16).bit_count()),
        "exit_status": server.end(),
    }
    return {prefix + name: float(value) for name, value in figures.items()}


if __name__ == "__main__":
    sys.exit(main())
