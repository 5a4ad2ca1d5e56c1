"""Sets of generated images: what is read, what is mapped, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import SetupError
from training.data.generated import read_generated, write_generated

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 5, 6, 3), dtype=np.uint8)
LABELS = np.array([3, 0, 1, 2, 2, 1, 0])


@pytest.mark.parametrize("names", [("image", "label"), ("images", "labels"), ("arr_0", "arr_1"), ("data", "targets")])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_published_names_are_known_mapped_or_not(tmp_path: Path, names: tuple[str, str], save: Any) -> None:
    save(tmp_path / "set.npz", **{names[0]: IMAGES, names[1]: LABELS.astype(np.int32)})
    found = read_generated(tmp_path / "set.npz")
    assert np.array_equal(found.images, IMAGES)
    assert found.labels is not None
    assert (found.labels.dtype, found.labels.tolist()) == (np.int64, LABELS.tolist())
    assert (_base(found.images) is not None) == (save is np.savez)
    assert not found.origin


def _base(array: np.ndarray | None) -> np.memmap | None:
    """The mapped file that an array is a view of."""
    while array is not None and not isinstance(array, np.memmap):
        array = array.base  # type: ignore[assignment]
    return array


def test_grey_images_need_no_channel_and_stay_in_the_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "grey.npz", image=IMAGES[..., 0])
    found = read_generated(tmp_path / "grey.npz")
    assert found.images.shape == (7, 5, 6, 1)
    assert _base(found.images) is not None
    assert found.labels is None
    found.images[0] = 0  # in memory alone
    assert np.array_equal(read_generated(tmp_path / "grey.npz").images[..., 0], IMAGES[..., 0])


def test_arrays_of_fortran_order_are_read_as_they_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", image=np.asfortranarray(IMAGES), label=LABELS)
    assert np.array_equal(read_generated(tmp_path / "set.npz").images, IMAGES)


def test_what_is_written_is_read_with_its_origin(tmp_path: Path) -> None:
    write_generated(tmp_path / "own.npz", IMAGES, LABELS, {"generator": "pca", "data": {"set": "mnist"}})
    found = read_generated(tmp_path / "own.npz")
    assert np.array_equal(found.images, IMAGES)
    assert found.origin == {"generator": "pca", "data": {"set": "mnist"}}
    assert [path.name for path in tmp_path.iterdir()] == ["own.npz"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, r"expected one array of images, called image, images, arr_0, .*, got none among no arrays"),
        ({"label": LABELS}, r"expected one array of images, .* got none among label"),
        ({"image": IMAGES, "images": IMAGES}, r"expected one array of images, .* got image, images among"),
        ({"image": IMAGES / 255}, r"image: expected uint8 images .* got float64 \(7, 5, 6, 3\); store values from 0"),
        ({"image": IMAGES.transpose(0, 3, 1, 2)}, r"image: expected uint8 .* of 1 or 3 channels, .*channels last"),
        ({"image": IMAGES[:0]}, r"image: expected uint8 images"),
        ({"image": IMAGES, "label": LABELS[:-1]}, r"label: expected whole numbers \(7,\), .* got int64 \(6,\)"),
        ({"image": IMAGES, "label": LABELS / 2}, r"label: expected whole numbers \(7,\), .* got float64 \(7,\)"),
        ({"image": IMAGES, "label": np.eye(7)[LABELS].astype(int)}, r"label: expected whole numbers .* \(7, 7\)"),
        ({"image": IMAGES.astype(object)}, r"expected an \.npz file of generated images.*objects"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(SetupError, match=message):
        read_generated(tmp_path / "set.npz")


@pytest.mark.parametrize("damage", ["missing", "text", "half", "array", "folder"])
def test_other_files_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "set.npz"
    if damage == "text":
        path.write_text("no zip")
    elif damage == "half":
        np.savez(path, image=IMAGES)
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "array":
        np.save(tmp_path / "set.npy", IMAGES)
        (tmp_path / "set.npy").rename(path)
    elif damage == "folder":
        path.mkdir()
    with pytest.raises(SetupError, match=r"set\.npz: expected an \.npz file of generated images, as numpy\.savez"):
        read_generated(path)
