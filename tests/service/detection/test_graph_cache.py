"""Kept graphs: the same answers, and nothing that goes wrong with them keeps a server from starting."""

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from service.detection import graph_cache, sessions
from service.detection.bundle import SHIPPED, load_bundle
from service.detection.engine import Engine
from service.detection.graph_cache import GraphCache, cache_folder
from service.errors import BundleError
from tests import tiny

BUNDLES = sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())


@pytest.fixture
def cache(tmp_path: Path) -> GraphCache:
    return GraphCache(tmp_path / "cache", pays_s=0)


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "graphs").iterdir())


def keep(cache: GraphCache, key: str, content: bytes) -> None:
    with cache.writing(key) as place:
        assert place is not None
        place.write_bytes(content)


@pytest.mark.parametrize("name", BUNDLES)
def test_answers_are_bit_equal_with_and_without(name: str, tmp_path: Path, cache: GraphCache) -> None:
    bundle = load_bundle(SHIPPED / name)
    shape = bundle.manifest.input
    images = np.random.default_rng(0).integers(0, 256, (5, shape.height, shape.width, shape.channels), dtype=np.uint8)
    plain = Engine(bundle, threads=1).graph.run(images)
    for start in ("first", "second"):
        found = Engine(bundle, threads=1, cache=cache).graph.run(images)
        for field in ("logits", "embedding", "scores"):
            assert np.array_equal(getattr(found, field), getattr(plain, field)), (start, field)
    assert len(kept(tmp_path)) == 1


def test_the_second_start_runs_the_kept_graph_unoptimised(
    bundle_path: Path, cache: GraphCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    Engine.load(bundle_path, threads=1, cache=cache)
    made: list[tuple[bytes, ort.GraphOptimizationLevel]] = []
    real = sessions._session

    def spy(model: bytes, options: ort.SessionOptions, wanted: object) -> ort.InferenceSession:
        made.append((model, options.graph_optimization_level))
        return real(model, options, wanted)  # type: ignore[arg-type]

    monkeypatch.setattr(sessions, "_session", spy)
    Engine.load(bundle_path, threads=2, cache=cache)  # the number of threads is not in the key
    assert [level for _, level in made] == [ort.GraphOptimizationLevel.ORT_DISABLE_ALL]
    assert made[0][0] != load_bundle(bundle_path).graph


def test_only_this_user_may_enter(tmp_path: Path, bundle_path: Path, cache: GraphCache) -> None:
    Engine.load(bundle_path, threads=1, cache=cache)
    (file,) = kept(tmp_path)
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [_flip, _cut, _empty], ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_told_and_made_anew(
    tmp_path: Path,
    bundle_path: Path,
    cache: GraphCache,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
) -> None:
    Engine.load(bundle_path, threads=1, cache=cache)
    (file,) = kept(tmp_path)
    right = file.read_bytes()
    damage(file)
    with caplog.at_level(logging.WARNING):
        Engine.load(bundle_path, threads=1, cache=cache)
    assert [record.getMessage() for record in caplog.records] == [
        f"optimised graph {file}: not used: the file is damaged"
    ]
    assert file.read_bytes() == right


def test_a_kept_file_that_is_no_graph_is_told_and_made_anew(
    tmp_path: Path, bundle_path: Path, cache: GraphCache, caplog: pytest.LogCaptureFixture
) -> None:
    Engine.load(bundle_path, threads=1, cache=cache)
    (file,) = kept(tmp_path)
    keep(cache, file.stem, b"no graph, but whole")
    damaged = file.read_bytes()
    with caplog.at_level(logging.WARNING):
        Engine.load(bundle_path, threads=1, cache=cache)
    (message,) = caplog.messages
    assert message.startswith(f"optimised graph {file.stem}: onnxruntime cannot load it: ")
    assert file.read_bytes() != damaged


def test_a_folder_that_others_may_enter_is_not_used(
    tmp_path: Path, bundle_path: Path, cache: GraphCache, caplog: pytest.LogCaptureFixture
) -> None:
    Engine.load(bundle_path, threads=1, cache=cache)
    (file,) = kept(tmp_path)
    file.parent.chmod(0o770)
    with caplog.at_level(logging.WARNING):
        Engine.load(bundle_path, threads=1, cache=cache)
    assert "expected a folder of this user with mode 700" in caplog.text


@pytest.mark.parametrize("stands", ["file", "link"])
def test_a_place_that_is_no_folder_is_not_used(
    tmp_path: Path, bundle_path: Path, cache: GraphCache, caplog: pytest.LogCaptureFixture, stands: str
) -> None:
    (tmp_path / "cache").mkdir()
    if stands == "file":
        (tmp_path / "cache" / "graphs").write_text("in the way")
    else:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        (tmp_path / "cache" / "graphs").symlink_to(tmp_path / "elsewhere")
    with caplog.at_level(logging.WARNING):
        Engine.load(bundle_path, threads=1, cache=cache)
    assert "optimised graph: cannot be kept" in caplog.text


def test_a_folder_that_cannot_be_made_is_told(
    tmp_path: Path, bundle_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        Engine.load(bundle_path, threads=1, cache=GraphCache(tmp_path / ("a" * 300), pays_s=0))
    assert "cannot be kept in" in caplog.text
    assert "File name too long" in caplog.text


def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path,
    bundle_path: Path,
    cache: GraphCache,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(graph_cache.os, "fsync", full)
    with caplog.at_level(logging.WARNING):
        Engine.load(bundle_path, threads=1, cache=cache)
    assert "cannot be kept in" in caplog.text
    assert "No space left on device" in caplog.text
    assert kept(tmp_path) == []


def test_a_disk_that_is_full_for_onnxruntime_is_told(
    tmp_path: Path,
    bundle_path: Path,
    cache: GraphCache,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = sessions._session

    def full(model: bytes, options: ort.SessionOptions, wanted: object) -> ort.InferenceSession:
        if options.optimized_model_filepath:
            raise sessions._NoSession("No space left on device")
        return real(model, options, wanted)  # type: ignore[arg-type]

    monkeypatch.setattr(sessions, "_session", full)
    with caplog.at_level(logging.WARNING):
        Engine.load(bundle_path, threads=1, cache=cache)
    assert caplog.messages == ["optimised graph: cannot be kept: No space left on device"]
    assert kept(tmp_path) == []


def test_what_is_no_graph_is_the_bundles_fault_and_leaves_nothing(tmp_path: Path, cache: GraphCache) -> None:
    with pytest.raises(BundleError, match=r"model\.onnx: onnxruntime cannot load it"):
        sessions.open_session("model.onnx", b"no graph", threads=1, cache=cache)
    assert cache.is_empty


def test_the_least_recently_used_go_and_so_do_leftovers(tmp_path: Path, cache: GraphCache) -> None:
    for number in range(graph_cache.MOST_FILES):
        keep(cache, f"key{number}", b"graph")
        os.utime(tmp_path / "cache" / "graphs" / f"key{number}.graph", (number, number))
    folder = tmp_path / "cache" / "graphs"
    for name in ("old", "new"):
        (folder / f"{name}.tmp").write_bytes(b"left behind")
    os.utime(folder / "old.tmp", (0, 0))
    assert cache.read("key0") == b"graph"  # used now
    keep(cache, "another", b"graph")
    names = {path.name for path in folder.iterdir()}
    assert {"key0.graph", "another.graph", "new.tmp"} <= names
    assert not {"key1.graph", "old.tmp"} & names


def test_only_graphs_that_take_time_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = GraphCache(tmp_path / "cache", pays_s=0.25)
    monkeypatch.setattr(sessions, "_key", None)  # nor is any time spent on one that is not kept
    seconds = iter([10.0, 10.2])
    monkeypatch.setattr(sessions.time, "thread_time", lambda: next(seconds))
    sessions.open_session("model.onnx", tiny.graph(), threads=1, cache=cache)
    assert cache.is_empty
    monkeypatch.undo()
    seconds = iter([10.0, 10.3])
    monkeypatch.setattr(sessions.time, "thread_time", lambda: next(seconds))
    sessions.open_session("model.onnx", tiny.graph(), threads=1, cache=cache)
    assert len(kept(tmp_path)) == 1


@pytest.mark.parametrize("fact", ["processor_kind", "ort"])
def test_another_processor_or_version_has_another_key(fact: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sessions._key(b"graph")
    assert sessions._key(b"other graph") != before
    if fact == "ort":
        monkeypatch.setattr(sessions.ort, "__version__", "0.0.1")
    else:
        monkeypatch.setattr(sessions, "processor_kind", lambda: "another")
    assert sessions._key(b"graph") != before


def test_the_setting_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("auto") == tmp_path / "advsentry"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder("auto") == Path("/home/someone/.cache/advsentry")
    assert cache_folder("") is None
    assert cache_folder("/var/cache/x") == Path("/var/cache/x")


def test_a_user_without_a_home_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert cache_folder("auto") is None
