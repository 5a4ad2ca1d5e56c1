"""The history's calibration of a bundle: made, put into it, taken out, checked."""

import dataclasses
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.detection.bundle import SHIPPED, file_entries, load_bundle, read_files
from service.detection.engine import Engine
from service.errors import BundleError, SetupError
from service.history.calibration import Calibration
from tests import tiny
from training.__main__ import main
from training.history import command
from training.history.checking import Check, false_positives, figures
from training.history.folders import own_streams
from training.history.kinds import KINDS, OWN, RANDOM, TRACKS
from training.history.making import made_history, own_history, streams_for
from training.history.pools import Pools, pools_of
from training.history.traffic import Stream

LEVEL = 0.1


@pytest.fixture(scope="module")
def made(engine: Engine) -> Calibration:
    return made_history(engine, pools(), level=LEVEL, seed=0)


def pools() -> Pools:
    return Pools(
        calibration=list(tiny.images(220, seed=3)[:, None]),
        check=list(tiny.images(150, seed=4)[:, None]),
        check_tracks=(),
    )


@pytest.fixture
def copy(bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_path, tmp_path / "copied"))


def test_a_calibration_supports_its_level_for_each_kind(made: Calibration) -> None:
    made.check_level(LEVEL)
    assert made.streams == streams_for(LEVEL) * 3 // 4
    assert made.p_value(0.0) == 1.0
    assert made.p_value(1e6) == pytest.approx(1 / (made.streams + 1))


def test_too_few_images_are_refused(engine: Engine) -> None:
    few = dataclasses.replace(pools(), calibration=pools().calibration[:199])
    with pytest.raises(SetupError, match=r"tiny: expected 200 images or tracks in the parts .*, got 199"):
        made_history(engine, few, level=LEVEL, seed=0)


def test_the_check_counts_queries_streams_and_clients_of_each_kind(engine: Engine, made: Calibration) -> None:
    check = Check(engine=engine, calibration=made, level=LEVEL, streams=2, seed=0)
    found = false_positives(check, pools())
    assert found.keys() == {"similar", *KINDS} - {TRACKS}
    assert all(one.streams == 2 for name, one in found.items() if name != "similar")
    assert found["popular"].clients > found["crops"].clients == 2
    assert found["similar"].queries == sum(
        one.queries for name, one in found.items() if name not in ("similar", RANDOM)
    )
    assert figures(found)["random_false_positive_rate"] == found[RANDOM].flagged_queries / found[RANDOM].queries
    flagged = false_positives(dataclasses.replace(check, calibration=_always(made)), pools())
    assert flagged["noise"].flagged_queries > 0, "a check that cannot find a false positive"
    assert flagged["noise"].flagged_streams >= flagged["noise"].flagged_clients > 0
    with pytest.raises(SetupError, match=r"a level of 0\.001 needs a calibration with 999 streams"):
        false_positives(dataclasses.replace(check, level=0.001), pools())


def _always(calibration: Calibration) -> Calibration:
    """One that finds every component of enough queries suspicious."""
    rates = dataclasses.replace(calibration.rates, allowance=0.0, matches=())
    edges = dataclasses.replace(calibration.edges, matches=1, radius=1.0)
    return Calibration.ranked(edges, rates, [[0.0]] * calibration.streams)


def test_a_calibration_goes_into_a_bundle_and_out_again(
    copy: Path, made: Calibration, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    monkeypatch.setattr(command, "pools_of", lambda *_: pools())
    monkeypatch.setattr(command, "made_history", lambda *_, **__: made)
    assert main(["history", str(copy), "--level", str(LEVEL)]) == 0
    assert "history.npz of" in capsys.readouterr().err
    loaded = load_bundle(copy)
    assert loaded.history is not None
    assert loaded.history.to_bytes() == made.to_bytes()
    kept = {path.name: path.read_bytes() for path in copy.iterdir()}
    assert kept.keys() == before.keys() | {"history.npz"}
    assert all(kept[name] == before[name] for name in before if name != "manifest.json")
    assert main(["history", str(copy), "--remove"]) == 0
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


@pytest.mark.parametrize("way", [["--level", str(LEVEL)], ["--remove"]])
def test_a_calibration_of_another_version_is_replaced_or_taken_out(
    copy: Path, made: Calibration, way: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = load_bundle(copy).manifest
    files = {**read_files(copy, manifest.files), "history.npz": b"of another version"}
    (copy / "history.npz").write_bytes(files["history.npz"])
    (copy / "manifest.json").write_text(dataclasses.replace(manifest, files=file_entries(files)).to_json())
    with pytest.raises(BundleError, match=r"history.npz: .* make it again for this bundle"):
        load_bundle(copy)
    monkeypatch.setattr(command, "pools_of", lambda *_: pools())
    monkeypatch.setattr(command, "made_history", lambda *_, **__: made)
    assert main(["history", str(copy), *way]) == 0
    assert (load_bundle(copy).history is None) == (way == ["--remove"])


def test_the_check_of_a_bundle_writes_a_result(
    copy: Path, tmp_path: Path, made: Calibration, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "pools_of", lambda *_: pools())
    monkeypatch.setattr(command, "made_history", lambda *_, **__: made)
    monkeypatch.setattr(command, "STREAMS", 1)
    check = ["history", str(copy), "--check", "--level", str(LEVEL), "--result", str(tmp_path / "history-benign.json")]
    assert main(check) == 1
    assert "expected a bundle with history.npz, got one without" in capsys.readouterr().err
    assert main(["history", str(copy), "--level", str(LEVEL)]) == 0
    assert main([*check, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "history-benign.json").read_text(encoding="utf-8"))
    assert written["name"] == "history-benign"
    assert written["metrics"] == printed
    assert printed["streams_ranked"] == made.streams
    assert "--check --level 0.1 --seed 0" in written["command"]
    assert main(check) == 0
    assert "random" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--level", "2"], "--level: expected a number from 0.0001 to 0.1, got 2"),
        (["--only-streams"], "--only-streams: expected --streams beside it"),
        (["--result", "x.json"], "--result: expected --check beside it"),
        (["--check", "--result", "x"], "--result: expected a file NAME.json"),
        (["--seed", "-1"], "--seed: expected a number of at least 0"),
        ([], "expected a bundle with its recipe in the manifest"),
        (["--streams", "no/such"], "--streams: expected a folder with a folder or zip file for each stream"),
    ],
)
def test_wrong_arguments_are_refused(
    copy: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["history", str(copy), *arguments]) == 1
    assert says in capsys.readouterr().err


def streams_folder(folder: Path, count: int) -> Path:
    """Streams of three images, in folders and zip files in turn."""
    images = tiny.images(3 * count, seed=9)
    for number in range(count):
        place = folder / f"stream {number:03}"
        place.mkdir(parents=True)
        for row in range(3):
            Image.fromarray(images[3 * number + row, :, :, 0]).save(place / f"{row}.png")
        if number % 2:
            with zipfile.ZipFile(f"{place}.zip", "w") as archive:
                for path in sorted(place.iterdir(), reverse=True):  # the order is that of the names
                    archive.write(path, path.name)
            shutil.rmtree(place)
    return folder


def test_own_streams_come_from_folders_and_zip_files_in_their_names_order(engine: Engine, tmp_path: Path) -> None:
    streams = own_streams(streams_folder(tmp_path / "own", 3), engine)
    wanted = tiny.images(9, seed=9)
    assert [stream.kind for stream in streams] == [OWN] * 3
    for number, stream in enumerate(streams):
        assert np.array_equal(stream.images, wanted[3 * number : 3 * number + 3])
    assert len({stream.clients[0] for stream in streams}) == 3


@pytest.mark.parametrize("damage", ["empty", "no image", "size", "no zip"])
def test_a_folder_of_anything_else_is_refused(engine: Engine, tmp_path: Path, damage: str) -> None:
    place = tmp_path / "own"
    (place / "a").mkdir(parents=True)
    if damage == "no image":
        (place / "a" / "x.png").write_bytes(b"x")
    elif damage == "size":
        Image.new("L", (9, 9)).save(place / "a" / "x.png")
    elif damage == "no zip":
        shutil.rmtree(place / "a")
        (place / "a.txt").write_bytes(b"x")
    says = {
        "empty": "a: expected a stream of images, found none",
        "no image": "a/x.png: expected PNG",
        "size": "a/x.png: the model wants 8 x 8",
        "no zip": "a.txt: expected a folder or a zip file of images",
    }
    with pytest.raises(SetupError, match=says[damage]):
        own_streams(place, engine)


def own(count: int) -> list[Stream]:
    images = tiny.images(2 * count, seed=11)
    return [
        Stream(kind=OWN, images=images[2 * n : 2 * n + 2], clients=(str(n),) * 2, times=(float(n), n + 1.0))
        for n in range(count)
    ]


def test_own_streams_alone_make_a_calibration_or_are_told_to_be_too_few(engine: Engine) -> None:
    found = own_history(engine, own(200), level=LEVEL, seed=0)
    found.check_level(LEVEL)
    assert own_history(engine, own(200), level=LEVEL, seed=0).to_bytes() == found.to_bytes(), "the same seed"
    with pytest.raises(SetupError, match=r"--streams: expected 200 streams or more for a level of 0.1, got 199"):
        own_history(engine, own(199), level=LEVEL, seed=0)


def test_pools_are_disjoint_and_of_the_bundles_own_data(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = Engine.load(SHIPPED / "digits", threads=1)
    found = pools_of(digits, None)
    config = digits.bundle.manifest.training["data"]
    assert len(found.calibration) == config["calibration"] + config["fusion"]
    assert len(found.check) > 200
    assert len(found.check_tracks) == 0
    manifest = digits.bundle.manifest
    other = {**manifest.training, "data": {**config, "seed": 1}}
    monkeypatch.setattr(
        digits, "bundle", dataclasses.replace(digits.bundle, manifest=dataclasses.replace(manifest, training=other))
    )
    with pytest.raises(SetupError, match="digits: expected the data that the bundle was calibrated on, got others"):
        pools_of(digits, None)
