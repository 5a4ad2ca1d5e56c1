import hashlib
from pathlib import Path

import pytest

from service.errors import SetupError
from training.__main__ import main
from training.data import DATASETS, sources
from training.data.sources import SOURCES, Source, download


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that stands in for a public one."""
    file = tmp_path / "public" / "set.gz"
    file.parent.mkdir()
    file.write_bytes(b"images")
    source = Source(url=file.as_uri(), sha256=hashlib.sha256(b"images").hexdigest())
    monkeypatch.setattr(sources, "SOURCES", {"mnist": (source,)})
    return file


def test_sources_are_of_known_sets_and_whole() -> None:
    assert set(SOURCES) <= set(DATASETS)
    for each in (source for several in SOURCES.values() for source in several):
        assert each.url.startswith("https://")
        assert len(bytes.fromhex(each.sha256)) == 32
    assert [source.name for source in SOURCES["cifar10"]] == ["cifar-10-python.tar.gz"]


def test_a_download_keeps_the_file_and_is_not_repeated(published: Path, tmp_path: Path) -> None:
    root = tmp_path / "new" / "data"
    download("mnist", root)
    assert [(path.name, path.read_bytes()) for path in root.iterdir()] == [("set.gz", b"images")]
    published.unlink()
    download("mnist", root)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"other", r"set\.gz: expected a file of SHA-256 .*, got .*; try again"), (None, "expected to download it to")],
    ids=["other file", "no file"],
)
def test_a_failed_download_leaves_nothing(published: Path, tmp_path: Path, content: bytes | None, message: str) -> None:
    published.unlink() if content is None else published.write_bytes(content)
    with pytest.raises(SetupError, match=message):
        download("mnist", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_only_public_sets_can_be_downloaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "digits", "--out", str(tmp_path / "run"), "--data", str(tmp_path), "--download"]) == 1
    assert "--download: expected one of the sets mnist, cifar10, got digits" in capsys.readouterr().err
    with pytest.raises(SetupError, match="expected a folder to keep the data in, got none"):
        download("mnist", None)
