import io
import pickle
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.errors import SetupError
from training.data import cifar, load_data
from training.data.sources import SOURCES, digest

NAMES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


def text(content: bytes) -> bytes:
    """A string as Python 2 pickles it."""
    return b"T" + struct.pack("<i", len(content)) + content


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def pickled(pixels: np.ndarray, labels: list[int], *, kind: bytes = b"u1") -> bytes:
    """A batch in the very opcodes of the public files: protocol 2, as Python 2 and its numpy wrote them."""
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"\x87R"
    dtype = b"cnumpy\ndtype\n" + text(kind) + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    shape = b"(" + b"".join(number(size) for size in pixels.shape) + b"t"
    state = b"(" + number(1) + shape + dtype + b"\x89" + text(pixels.tobytes()) + b"tb"
    listed = b"](" + b"".join(number(label) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + state + text(b"labels") + listed + b"u."


def batches() -> dict[str, bytes]:
    """Two images each; the red value of row 3, column 4 is the number of the batch, from 0."""
    made = {}
    for place, name in enumerate(NAMES):
        pixels = np.zeros((2, 3, 32, 32), np.uint8)
        pixels[:, 0, 3, 4] = place
        pixels[1, 2] = 200
        made[name] = pickled(pixels.reshape(2, -1), [place, 9])
    return made


def write_batches(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, content in batches().items():
        (folder / name).write_bytes(content)
    return folder


def write_tar(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small archive, whose checksum takes the place of the public one."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in batches().items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with path.open("rb") as file:
        source = replace(SOURCES["cifar10"][0], sha256=digest(file))
    monkeypatch.setattr(cifar, "SOURCES", {"cifar10": (source,)})


@pytest.mark.parametrize("form", ["folder", "the folder itself", "archive"])
def test_images_and_labels_come_in_their_order(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if form == "archive":
        write_tar(tmp_path / "cifar-10-python.tar.gz", monkeypatch)
    else:
        write_batches(tmp_path / "cifar-10-batches-py")
    loaded = load_data("cifar10", tmp_path / "cifar-10-batches-py" if form == "the folder itself" else tmp_path)
    assert loaded.train.images.shape == (10, 32, 32, 3)
    assert loaded.train.images[::2, 3, 4, 0].tolist() == [0, 1, 2, 3, 4]
    assert loaded.train.images[1, 0, 0].tolist() == [0, 0, 200]
    assert loaded.train.labels.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
    assert loaded.test.labels.tolist() == [5, 9]
    assert loaded.class_names[3] == "cat"


def test_missing_data_name_the_public_address_and_its_checksum(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"https://www\.cs\.toronto\.edu/~kriz/cifar-10-python\.tar\.gz.*6d958be0745"):
        load_data("cifar10", tmp_path)


def test_an_archive_with_another_checksum_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"half of it")
    with pytest.raises(SetupError, match=r"tar\.gz: expected SHA-256 6d958be.*, got .*; delete it and fetch it anew"):
        load_data("cifar10", tmp_path)


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    (write_batches(tmp_path / "cifar-10-batches-py") / "data_batch_4").unlink()
    with pytest.raises(SetupError, match=r"expected the file .*data_batch_4, found none"):
        load_data("cifar10", tmp_path)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("1 / 0",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({b"data": Harmful()}), r"got: a call of builtins\.eval"),
        (b"cnumpy\nload\n.", r"got: a call of numpy\.load"),
        (batches()["test_batch"][:-9], "expected a batch of CIFAR-10"),
        (b"", "expected a batch of CIFAR-10"),
        (pickle.dumps([1, 2]), "expected a batch of CIFAR-10"),
        (pickled(np.zeros((2, 3071), np.uint8), [0, 1]), "cannot reshape"),
        (pickled(np.zeros((2, 3072), np.uint8), [0, 1], kind=b"O8"), "another array than one of bytes"),
        (pickled(np.zeros((2, 3072), np.uint8), [0]), "expected 2 labels, one an image, got 1"),
        (pickled(np.zeros((2, 3072), np.uint8), [0, 10]), "expected .*labels in 0 to 9, got 10"),
    ],
    ids=["code", "numpy", "cut", "empty", "list", "sizes", "objects", "labels", "range"],
)
def test_a_damaged_or_harmful_batch_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (write_batches(tmp_path / "cifar-10-batches-py") / "data_batch_2").write_bytes(content)
    with pytest.raises(SetupError, match=message):
        load_data("cifar10", tmp_path)
