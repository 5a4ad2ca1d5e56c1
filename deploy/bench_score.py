"""Images a second of `advsentry score` beside its parts alone: the bare session, and decoding.

The session and the decoder have one core each time, `score` has all that this process may use. What the cores could do
at most, if reading, judging and writing cost nothing, is their number over the time that an image takes to be decoded
and scored; `score` is told as a share of that, too.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from deploy.bench import bare_elsewhere, random_images
from deploy.result_file import write_result
from deploy.server_process import pinned
from service.detection.bundle import Bundle, find_bundle, load_bundle
from service.errors import AdvsentryError, SetupError
from service.scoring.chunks import Chunk, Item
from service.scoring.decoding import Decoder

DEFAULTS = ("digits", "gtsrb")
DIFFERENT = 256
"""Images that differ; the rest are their copies."""
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One bundle's figures, each in images a second."""

    name: str
    cores: int
    bare: float
    """The session on one core, at its best batch."""
    decode: float
    """Decoding on one core."""
    folder: float
    """`advsentry score` of a folder, on all cores."""
    tar: float
    """The same of a tar."""

    @property
    def ceiling(self) -> float:
        """All cores busy with nothing but decoding and the graph."""
        return self.cores / (1 / self.bare + 1 / self.decode)

    def metrics(self) -> dict[str, float]:
        """Flat, each with the bundle's name before it."""
        found: dict[str, float] = {
            "cores": self.cores,
            "bare_images_per_s": self.bare,
            "decode_images_per_s": self.decode,
            "ceiling_images_per_s": self.ceiling,
        }
        for name in ("folder", "tar"):
            rate = getattr(self, name)
            found[f"{name}_images_per_s"] = rate
            found[f"{name}_ratio_to_bare"] = rate / self.bare
            found[f"{name}_ratio_to_ceiling"] = rate / self.ceiling
        return {f"{self.name}_{key}": value for key, value in found.items()}


def main() -> int:
    """Runs the benchmark; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.bench_score", description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", action="append", help="a directory or a shipped name, once or more (digits, gtsrb)")
    parser.add_argument("--images", type=int, default=50_000, help="to score of each kind (50000)")
    parser.add_argument("--seconds", type=float, default=5.0, help="for the session and for decoding alone (5)")
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object instead of the table")
    parser.add_argument("--result", type=Path, help="a file for docs/results")
    parser.add_argument("--role", choices=["decode"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    started = time.monotonic()
    bundles = options.bundle or list(DEFAULTS)
    try:
        paths = [find_bundle(name) for name in bundles]
        if options.role == "decode":
            print(_decode_rate(paths[0], options.seconds))
            return 0
        loaded = [load_bundle(path) for path in paths]
        measured = [measure(bundle, options.images, options.seconds) for bundle in loaded]
    except AdvsentryError as error:
        print(f"bench_score: error: {error}", file=sys.stderr)
        return 1
    metrics = {name: value for one in measured for name, value in one.metrics().items()}
    print(json.dumps(metrics) if options.json else "\n\n".join(map(_table, measured)))
    if options.result:
        write_result(
            options.result,
            name="score",
            module="deploy.bench_score",
            recipe={"images": options.images, "seconds": options.seconds},
            seed=SEED,
            seconds=time.monotonic() - started,
            data={one.manifest.name: one.manifest.files["model.onnx"].sha256[:12] for one in loaded},
            metrics=metrics,
        )
    return 0


def measure(bundle: Bundle, images: int, seconds: float) -> Measured:
    """Measures a bundle.

    Args:
        images: in the folder and in the tar.
        seconds: for the session, and for the decoder.

    Raises:
        AdvsentryError: `advsentry score` does not do it.
    """
    core = min(os.sched_getaffinity(0))
    contents = _encoded(bundle)
    with tempfile.TemporaryDirectory() as place:
        folder, tar = Path(place, "folder"), Path(place, "images.tar")
        _write_folder(folder, contents, images)
        _write_tar(tar, contents, images)
        return Measured(
            name=bundle.manifest.name,
            cores=len(os.sched_getaffinity(0)),
            bare=bare_elsewhere(bundle.path, seconds, core).images_per_s,
            decode=_decode_elsewhere(bundle.path, seconds, core),
            folder=_score(bundle.path, folder, Path(place, "folder-scores"), images),
            tar=_score(bundle.path, tar, Path(place, "tar-scores"), images),
        )


def _encoded(bundle: Bundle) -> list[bytes]:
    found = []
    for image in random_images(bundle, DIFFERENT):
        buffer = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


def _named(contents: list[bytes], images: int) -> Iterator[tuple[str, bytes]]:
    for number in range(images):
        yield f"{number // 1000:05d}/{number:08d}.png", contents[number % len(contents)]


def _write_folder(folder: Path, contents: list[bytes], images: int) -> None:
    for name, content in _named(contents, images):
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def _write_tar(path: Path, contents: list[bytes], images: int) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in _named(contents, images):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def _decode_rate(path: Path, seconds: float) -> float:
    bundle = load_bundle(path)
    items = tuple(Item(path="", data=content, error=None) for content in _encoded(bundle)[:64])
    chunk = Chunk(piece=0, first=0, items=items, total=None, weight=0.0)
    decoder, runs = Decoder(str(path), ""), 0
    decoder(chunk)
    start = time.perf_counter()
    while (took := time.perf_counter() - start) < seconds:
        decoder(chunk)
        runs += 1
    return runs * len(items) / took


def _decode_elsewhere(path: Path, seconds: float, core: int) -> float:
    arguments = [sys.executable, "-m", "deploy.bench_score", "--role", "decode", "--bundle", str(path)]
    done = subprocess.run(
        [*arguments, "--seconds", str(seconds)], stdout=subprocess.PIPE, check=True, preexec_fn=pinned(core)
    )
    return float(done.stdout)


def _score(path: Path, given: Path, out: Path, images: int) -> float:
    """Images a second, from the first look at the inputs to the last file in its place."""
    arguments = [
        sys.executable,
        "-m",
        "service",
        "score",
        str(given),
        "--out",
        str(out),
        "--bundle",
        str(path),
        "--json",
    ]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError(f"advsentry score: {done.stderr.strip().splitlines()[-1]}")
    summary = json.loads(done.stdout)
    if summary["images"] != images:
        raise SetupError(f"advsentry score: expected {images} rows, got {summary['images']}")
    return float(summary["images_per_s"])


def _table(one: Measured) -> str:
    rows = [
        (f"{one.name} bare session, one core", one.bare),
        (f"{one.name} decoding alone, one core", one.decode),
        (f"{one.name} {one.cores} core(s) with nothing else to do", one.ceiling),
        (f"{one.name} score, a folder", one.folder),
        (f"{one.name} score, a tar", one.tar),
    ]
    head = f"{'':<44} {'images/s':>9} {'of bare':>8} {'of most':>8}"
    return "\n".join(
        [head, *(f"{text:<44} {rate:9.0f} {rate / one.bare:8.2f} {rate / one.ceiling:8.2f}" for text, rate in rows)]
    )


if __name__ == "__main__":
    sys.exit(main())
