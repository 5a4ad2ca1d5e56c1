"""What the wheel and the sdist hold, built by the backend itself, without a network."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path, PurePosixPath
from shutil import copy2, copytree, ignore_patterns

import pytest

from service.detection.bundle import SHIPPED, load_bundle

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("service", "training", "protos")
BESIDE = ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "CHANGELOG.md", "constraints.txt")
BUILD = "import sys; from setuptools import build_meta as made; print(getattr(made, sys.argv[1])('out'))"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


def build(tree: Path, kind: str) -> Path:
    done = subprocess.run(
        [sys.executable, "-c", BUILD, kind], cwd=tree, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return tree / "out" / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a build can see of a checkout, with tests where setuptools looks for them and a folder that has no end."""
    made = tmp_path_factory.mktemp("tree")
    for package in PACKAGES:
        copytree(ROOT / package, made / package, ignore=ignore_patterns("__pycache__"))
    for name in BESIDE:
        copy2(ROOT / name, made / name)
    for folder in ("tests", "deploy"):
        (made / folder).mkdir()
        (made / folder / "__init__.py").touch()
        (made / folder / "test_something.py").touch()
    (made / "build").mkdir()
    for name in ("one", "other"):
        (made / "build" / name).symlink_to(made)
    return made


@pytest.fixture(scope="module")
def wheel(tree: Path) -> Path:
    return build(tree, "build_wheel")


def sources() -> set[str]:
    paths = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in paths if "__pycache__" not in path.parts}


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == sources()
    for suffix in (".onnx", ".npz", ".toml", ".pyi", ".proto", ".binpb", ".html", "/py.typed"):
        assert any(name.endswith(suffix) for name in names), suffix


def test_bundles_of_the_wheel_load(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path, [name for name in archive.namelist() if name.startswith("service/bundles/")])
    found = sorted(path.name for path in (tmp_path / "service" / "bundles").iterdir())
    assert found == sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())
    for name in found:
        load_bundle(tmp_path / "service" / "bundles" / name)  # checks every file's SHA-256


def test_it_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        facts = {PurePosixPath(name).name: name for name in archive.namelist() if ".dist-info/" in name}
        metadata = Parser().parsestr(archive.read(facts["METADATA"]).decode())
        scripts = archive.read(facts["entry_points.txt"]).decode()
    assert (metadata["Name"], metadata["Version"]) == ("advsentry", VERSION)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "LICENSE" in facts
    assert not [line for line in metadata.get_all("Requires-Dist", []) if "torch" in line and "extra ==" not in line]
    assert "advsentry = service.__main__:main" in scripts
    assert "advsentry-train = training.__main__:main" in scripts


def test_the_sdist_builds_the_same_wheel(tree: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build(tree, "build_sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    names = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert {"constraints.txt", "CHANGELOG.md", "LICENSE"} <= names
    assert not [name for name in names if name.startswith(("tests/", "deploy/"))]
    again = zipfile.ZipFile(build(unpacked, "build_wheel"))
    assert {one.filename: one.CRC for one in again.infolist() if not one.filename.endswith("/RECORD")} == {
        one.filename: one.CRC for one in zipfile.ZipFile(wheel).infolist() if not one.filename.endswith("/RECORD")
    }


def test_the_version_stands_in_one_place() -> None:
    newest = next(line for line in (ROOT / "CHANGELOG.md").read_text("utf-8").splitlines() if line.startswith("## "))
    assert newest.split()[1] == VERSION
    code = [path for folder in (*PACKAGES, "deploy") for path in (ROOT / folder).rglob("*.py")]
    assert not [path for path in code if f'"{VERSION}"' in path.read_text("utf-8")]
