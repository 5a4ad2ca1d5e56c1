import gzip
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.errors import SetupError
from tests.training.data.test_cifar import write_batches
from training.data import DATASETS, DataSet, ImageSet, load_data
from training.data.arrays import GTSRB_CLASSES
from training.data.types import empty_like


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(root: Path, *, packed: bool = True, images: bytes | None = None) -> Path:
    folder = root / "mnist"
    folder.mkdir(parents=True)
    for part, count in (("train", 30), ("t10k", 10)):
        pixels = np.arange(count * 28 * 28, dtype=np.uint8).reshape(count, 28, 28)
        files = {
            f"{part}-images-idx3-ubyte": images or idx(pixels),
            f"{part}-labels-idx1-ubyte": idx((np.arange(count) % 10).astype(np.uint8)),
        }
        for name, content in files.items():
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
    return root


def write_arrays(path: Path, **changed: object) -> Path:
    arrays: dict[str, object] = {
        "train_images": np.zeros((6, 4, 4, 3), np.uint8),
        "train_labels": np.array([0, 0, 1, 1, 2, 2]),
        "test_images": np.zeros((3, 4, 4, 3), np.uint8),
        "test_labels": np.array([0, 1, 2]),
    }
    arrays |= changed
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})  # type: ignore[arg-type]
    return path


def write_folder(root: Path) -> Path:
    for part in ("train", "test"):
        for shade, label in enumerate(("cat", "dog")):
            (root / part / label).mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (5, 4), (40 * shade, number, 9)).save(root / part / label / f"{number}.png")
    return root


def write_zip(root: Path, name: str) -> Path:
    top = write_folder(root / "files")
    with zipfile.ZipFile(root / name, "w") as archive:
        for path in sorted(top.rglob("*.png")):
            archive.write(path, path.relative_to(top))
    return root / name


def tracked(root: Path) -> Path:
    write_arrays(root / "gtsrb32.npz", train_tracks=np.array([0, 0, 1, 1, 2, 2]))
    return root


def write_cifar10(root: Path) -> Path:
    write_batches(root / "cifar-10-batches-py")
    return root


MAKERS: dict[str, tuple[Callable[[Path], Path | None], tuple[int, int, tuple[int, int, int], int]]] = {
    "digits": (lambda _: None, (1797, 0, (8, 8, 1), 10)),
    "mnist": (write_mnist, (30, 10, (28, 28, 1), 10)),
    "gtsrb32": (tracked, (6, 3, (4, 4, 3), 43)),
    "cifar10": (write_cifar10, (10, 2, (32, 32, 3), 10)),
    "cifar10-jpeg75": (lambda root: write_zip(root, "cifar10-jpeg75.zip").parent, (4, 4, (4, 5, 3), 2)),
    "npz": (lambda root: write_arrays(root / "any.npz"), (6, 3, (4, 4, 3), 3)),
    "folder": (write_folder, (4, 4, (4, 5, 3), 2)),
    "zip": (lambda root: write_zip(root, "any.zip"), (4, 4, (4, 5, 3), 2)),
}


def test_every_data_set_has_its_row() -> None:
    assert list(MAKERS) == list(DATASETS)


@pytest.mark.parametrize("name", MAKERS)
def test_each_set_loads(name: str, tmp_path: Path) -> None:
    make, (train, test, shape, classes) = MAKERS[name]
    loaded = load_data(name, make(tmp_path))
    assert (len(loaded.train), len(loaded.test), len(loaded.class_names)) == (train, test, classes)
    assert loaded.train.images.shape[1:] == shape
    assert (loaded.train.tracks is not None) == (name == "gtsrb32")


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "digits"])
def test_data_that_are_not_there_say_what_to_do(name: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"expected .*--data or ADVSENTRY_DATA"):
        load_data(name, None)
    with pytest.raises(SetupError, match=r"expected .*--data or ADVSENTRY_DATA"):
        load_data(name, tmp_path / "nowhere")
    with pytest.raises(SetupError, match=r"expected .*--data or ADVSENTRY_DATA"):
        load_data(name, tmp_path)


def test_an_unknown_set_lists_the_known() -> None:
    with pytest.raises(SetupError, match=r"data\.set: expected one of digits, mnist.*got 'mnits'"):
        load_data("mnits", None)


def test_digits_use_the_whole_range() -> None:
    images = load_data("digits", None).train.images
    assert sorted(set(images.ravel().tolist()))[:3] == [0, 16, 32]
    assert images.max() == 255


def test_mnist_reads_plain_files_in_the_root_itself(tmp_path: Path) -> None:
    plain = load_data("mnist", write_mnist(tmp_path / "plain", packed=False) / "mnist")
    packed = load_data("mnist", write_mnist(tmp_path / "packed"))
    assert np.array_equal(plain.train.images, packed.train.images)
    assert plain.train.images[0, 3, 4, 0] == 3 * 28 + 4
    assert plain.train.labels[13] == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\x0d\3" + bytes(100), "expected an IDX file starting 00000803, got 00000d03"),
        (b"", "expected an IDX file"),
        (idx(np.zeros((3, 28, 28), np.uint8))[:-1], "expected 2352 bytes .* got 2351"),
    ],
    ids=["magic", "empty", "cut"],
)
def test_mnist_refuses_a_damaged_file(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        load_data("mnist", write_mnist(tmp_path, packed=False, images=content or b"\0"))


def test_mnist_refuses_a_damaged_archive(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    path = tmp_path / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SetupError, match=r"train-images.*expected a readable IDX file"):
        load_data("mnist", tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"test_labels": None}, "test_labels missing"),
        (
            {"train_images": np.zeros((6, 4, 4, 3))},
            r"train_images: expected uint8 \(N, H, W, C\), got float64 .* from 0 to 0; store values from 0 to 255",
        ),
        ({"train_images": np.full((6, 4, 4, 3), 300)}, r"expected uint8 .*, got int64 .* from 300 to 300; store"),
        ({"train_labels": np.zeros(6)}, "train_labels: expected whole numbers, got float64"),
        ({"train_labels": np.zeros(5, int)}, r"train_labels: expected shape \(6,\), one number for each.*got \(5,\)"),
        ({"test_images": np.zeros((3, 5, 4, 3), np.uint8)}, r"expected test images of shape \(4, 4, 3\)"),
        (
            {"test_images": np.zeros((3, 4, 4), np.uint8)},
            r"expected test images of shape \(4, 4, 3\) .* got \(4, 4, 1\); bring all",
        ),
        ({"test_labels": np.array([0, 1, 3])}, "expected test labels in 0 to 2, got 3 at image 2; number the classes"),
        ({"train_labels": np.array([0, 1, 2, -1, 0, 0])}, "expected train labels in 0 to 2, got -1 at image 3"),
        (
            {"train_labels": np.array([0, 1, 10**12, 2, 0, 0])},
            "any: expected train labels that number the classes from 0 without gaps, got 1000000000000 at image 2 "
            "where only 4 labels occur; mend that label",
        ),
        ({"train_labels": np.array([0, 1, 2, 255, 0, 0], np.uint8)}, "got 255 at image 3 where only 4 labels occur"),
        ({"class_names": np.array(["a", "b"])}, "expected train labels in 0 to 1, got 2 at image 4"),
        (
            {"class_names": np.array(["cat", "dog", "cat"])},
            "any: class_names: expected each name once, got 'cat' for the classes 0, 2; name them apart",
        ),
        ({"class_names": np.array("cat")}, r"class_names: expected a list of names, got an array of shape \(\)"),
        (
            {"test_images": np.zeros((0, 4, 4, 3), np.uint8), "test_labels": np.zeros(0, int)},
            "any: expected test images, got none; add some, or set a part of the training images apart",
        ),
        ({"train_tracks": np.zeros((6, 1), int)}, r"train_tracks: expected shape \(6,\), one number for each"),
        ({"train_images": np.array([{}], dtype=object)}, r"expected an \.npz file of plain arrays"),
        (
            {"train_images": np.zeros((0, 4, 4, 3), np.uint8), "train_labels": np.zeros(0, int)},
            "expected training images, got none",
        ),
    ],
    ids=[
        *("missing", "float", "deep", "float labels", "count", "sizes", "channels", "range", "negative", "huge"),
        *("large", "names", "names twice", "one name", "no test", "tracks", "pickle", "empty"),
    ],
)
def test_npz_refuses_wrong_arrays(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        load_data("npz", write_arrays(tmp_path / "any.npz", **changed))


def test_npz_leaves_a_few_gaps_to_the_check_that_names_them(tmp_path: Path) -> None:
    labels = np.array([0, 1, 3, 3, 0, 1])
    loaded = load_data("npz", write_arrays(tmp_path / "any.npz", train_labels=labels, test_labels=labels[:3]))
    assert loaded.class_names == ("0", "1", "2", "3")


def test_npz_refuses_another_file(tmp_path: Path) -> None:
    (tmp_path / "any.npz").write_bytes(b"no archive")
    with pytest.raises(SetupError, match=r"any\.npz: expected an \.npz file"):
        load_data("npz", tmp_path / "any.npz")


def test_npz_refuses_a_single_array(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(SetupError, match=r"one\.npy: expected an \.npz file of several arrays, got a single array"):
        load_data("npz", tmp_path / "one.npy")


def test_images_with_transparency_or_layers_are_refused(tmp_path: Path) -> None:
    pixels = np.zeros((6, 4, 4, 4), np.uint8)
    path = write_arrays(tmp_path / "any.npz", train_images=pixels, test_images=pixels[:3])
    with pytest.raises(SetupError, match=r"expected 1 \(grey\) or 3 \(RGB\) channels, got 4"):
        load_data("npz", path)


def test_npz_takes_class_names_and_grey_images(tmp_path: Path) -> None:
    grey = np.zeros((6, 4, 4), np.uint8)
    path = write_arrays(
        tmp_path / "a.npz", train_images=grey, test_images=grey[:3], class_names=np.array(["x", "y", "z"])
    )
    loaded = load_data("npz", path)
    assert loaded.class_names == ("x", "y", "z")
    assert loaded.train.images.shape == (6, 4, 4, 1)


def test_gtsrb_needs_its_tracks(tmp_path: Path) -> None:
    write_arrays(tmp_path / "gtsrb32.npz")
    with pytest.raises(SetupError, match="expected the array train_tracks"):
        load_data("gtsrb32", tmp_path)


def test_gtsrb_names_its_43_classes() -> None:
    assert len(set(GTSRB_CLASSES)) == 43
    assert (GTSRB_CLASSES[14], GTSRB_CLASSES[25], GTSRB_CLASSES[40]) == ("stop", "road works", "roundabout")


def test_folder_classes_are_sorted_names(tmp_path: Path) -> None:
    loaded = load_data("folder", write_folder(tmp_path))
    assert loaded.class_names == ("cat", "dog")
    assert loaded.train.images[2, 0, 0].tolist() == [40, 0, 9]
    assert loaded.train.labels.tolist() == [0, 0, 1, 1]


def test_folder_refuses_a_broken_image(tmp_path: Path) -> None:
    (write_folder(tmp_path) / "train" / "cat" / "0.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(SetupError, match=r"train/cat/0\.png: expected a .*PNG or JPEG"):
        load_data("folder", tmp_path)


def test_folder_says_how_another_file_starts(tmp_path: Path) -> None:
    (write_folder(tmp_path) / "train" / "cat" / "0.png").write_bytes(b"<html>")
    with pytest.raises(SetupError, match=r"0\.png: expected a PNG or JPEG image, got .* starts with b'<html>'"):
        load_data("folder", tmp_path)


def test_folder_refuses_16_bit_images(tmp_path: Path) -> None:
    deep = Image.fromarray(np.full((4, 5), 40_000, np.uint16))
    deep.save(write_folder(tmp_path) / "train" / "dog" / "1.png")
    with pytest.raises(SetupError, match=r"dog/1\.png: expected 8 bits a channel, got 16"):
        load_data("folder", tmp_path)


def test_folder_passes_over_folders_in_a_class(tmp_path: Path) -> None:
    (write_folder(tmp_path) / "train" / "dog" / ".thumbnails").mkdir()
    assert len(load_data("folder", tmp_path).train) == 4


def test_folder_refuses_images_of_several_sizes(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4)).save(write_folder(tmp_path) / "train" / "dog" / "1.png")
    with pytest.raises(SetupError, match="expected images of one size"):
        load_data("folder", tmp_path)


def test_folder_refuses_a_class_that_only_test_has(tmp_path: Path) -> None:
    (write_folder(tmp_path) / "test" / "dog").rename(tmp_path / "test" / "emu")
    with pytest.raises(SetupError, match="expected test classes that train has, got emu"):
        load_data("folder", tmp_path)


def test_zip_refuses_another_file(tmp_path: Path) -> None:
    (tmp_path / "any.zip").write_bytes(b"no archive")
    with pytest.raises(SetupError, match=r"any\.zip: expected a zip file"):
        load_data("zip", tmp_path / "any.zip")


def test_zip_refuses_damaged_content(tmp_path: Path) -> None:
    path = tmp_path / "any.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/cat/0.png", bytes(1000))
    content = bytearray(path.read_bytes())
    start = content.index(b"0.png") + len(b"0.png")
    content[start : start + 4] = b"\xff" * 4
    path.write_bytes(content)
    with pytest.raises(SetupError, match=r"any\.zip: expected a zip file"):
        load_data("zip", path)


def test_images_must_be_8_bit() -> None:
    with pytest.raises(SetupError, match=r"images: expected uint8 \(N, H, W, C\), got float64 \(2, 3\)"):
        ImageSet(images=np.zeros((2, 3)), labels=np.zeros(2, np.int64))  # type: ignore[arg-type]


def test_taking_keeps_labels_and_tracks_beside_images() -> None:
    images = ImageSet(
        images=np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1), labels=np.arange(4), tracks=np.arange(4) + 9
    )
    taken = images.take(np.array([2, 0]))
    assert (taken.images.ravel().tolist(), taken.labels.tolist()) == ([2, 0], [2, 0])
    assert taken.tracks is not None
    assert taken.tracks.tolist() == [11, 9]
    assert DataSet(name="d", class_names=("a",) * 4, train=images, test=empty_like(images)).name == "d"
