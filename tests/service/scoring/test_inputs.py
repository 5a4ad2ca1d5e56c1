"""Which files are found, and how they are cut."""

import os
from pathlib import Path

import pytest

from service.errors import SetupError
from service.files import find_images
from service.scoring import inputs
from service.scoring.inputs import Entry, Kind, cut, entries, survey


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def names(found: list[Entry], folder: Path) -> list[str]:
    return [os.path.relpath(one.path, folder) for one in found]


def test_a_folder_has_the_images_that_detect_finds_in_the_same_order(tmp_path: Path) -> None:
    touched(tmp_path, "b.png", "a/2.JPG", "a/1.png", "a.b/x.webp", "a/notes.txt", "c/deep/er/1.jpeg")
    (tmp_path / "link.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "lost.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert [one.path for one in entries([tmp_path])] == [str(path) for path in find_images([tmp_path])]
    assert names(list(entries([tmp_path])), tmp_path)[:3] == ["a/1.png", "a/2.JPG", "a/lost.png"]


def test_archives_in_a_folder_are_inputs_and_lists_are_not(tmp_path: Path) -> None:
    touched(tmp_path, "1.png", "2.tar", "3.tar.gz", "4.zip", "5.parquet", "6.txt", "7.csv")
    found = list(entries([tmp_path]))
    assert names(found, tmp_path) == ["1.png", "2.tar", "3.tar.gz", "4.zip", "5.parquet"]
    assert [one.kind for one in found] == [Kind.IMAGE, Kind.TAR, Kind.TAR, Kind.ZIP, Kind.PARQUET]


def test_a_list_names_files_of_any_kind_and_a_file_that_is_not_there_is_left_to_its_row(tmp_path: Path) -> None:
    touched(tmp_path, "1.png", "odd name", "2.tar")
    lines = [f"{tmp_path}/1.png\r\n", "\n", f"{tmp_path}/odd name\n", f"{tmp_path}/2.tar\n", "gone.png\n", "nul\0.png"]
    (tmp_path / "list.txt").write_bytes("".join(lines).encode() + b"\n\xff.png")
    found = list(entries([tmp_path / "list.txt"]))
    assert [one.path for one in found][-3:] == ["gone.png", "nul\0.png", "\udcff.png"]
    assert [(one.kind, one.size) for one in found[:4]] == [
        (Kind.IMAGE, 5),
        (Kind.IMAGE, 8),
        (Kind.TAR, 5),
        (Kind.IMAGE, 0),
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"other"),
        lambda path: os.utime(path, ns=(1, 1)),
        lambda path: path.rename(path.with_name("0.png")),
        lambda path: path.with_name("3.png").write_bytes(b""),
        lambda path: path.unlink(),
    ],
    ids=["content", "time", "name", "one more", "one less"],
)
def test_what_changes_the_inputs_changes_their_fingerprint(tmp_path: Path, change: object) -> None:
    touched(tmp_path, "1.png", "2.png")
    before = survey([tmp_path])
    assert survey([tmp_path]) == before
    change(tmp_path / "1.png")  # type: ignore[operator]
    assert survey([tmp_path]).fingerprint != before.fingerprint


def test_a_survey_sums_up(tmp_path: Path) -> None:
    touched(tmp_path, "1.png", "2.parquet", "3.parquet")
    found = survey([tmp_path])
    assert (found.files, found.size, found.first_parquet) == (3, 5 + 9 + 9, str(tmp_path / "2.parquet"))


@pytest.mark.parametrize(
    ("name", "says"), [("nope", "no such file or folder"), ("pipe", "a pipe or a device"), ("empty", "no image and no")]
)
def test_an_input_that_is_none_is_refused(tmp_path: Path, name: str, says: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SetupError, match=says):
        survey([tmp_path / name])


def test_pieces_hold_so_many_files_or_so_many_bytes_of_archives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "PIECE_BYTES", 10)
    touched(tmp_path, "1.png", "2.png", "3.png", "4.tar", "5.tar", "6.png", "7.png")
    found = list(cut([tmp_path], 3))
    assert [piece.number for piece in found] == [0, 1, 2]
    assert [names(list(piece.entries), tmp_path) for piece in found] == [
        ["1.png", "2.png", "3.png"],
        ["4.tar", "5.tar"],
        ["6.png", "7.png"],
    ]
    assert sum(piece.weight for piece in found) == survey([tmp_path]).size
