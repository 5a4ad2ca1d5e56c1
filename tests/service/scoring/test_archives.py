"""Images of archives, also of damaged ones."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pyarrow (the extra `score`) is not installed")

from service.errors import InvalidRequest, SetupError
from service.scoring.archives import members
from service.scoring.inputs import entries
from tests.service.scoring import made

MOST = 10_000


def read(path: Path, *, column: str = "", most_bytes: int = MOST) -> list[tuple[str, bytes | str | None]]:
    """Every member's name, and its bytes or what is wrong with it."""
    found: list[tuple[str, bytes | str | None]] = []
    (entry,) = entries([path])
    for member in members(entry, root=str(path.parent), column=column, most_bytes=most_bytes):
        name = member.path.removeprefix(str(path))
        try:
            found.append((name, member.load()))
        except InvalidRequest as error:
            found.append((name, str(error)))
    return found


PICTURES = made.pictures(20)


@pytest.mark.parametrize(
    ("name", "make", "form"),
    [
        ("a.zip", made.zipped, "/in/{:05d}.png"),
        ("a.tar", made.tarred, "/{:05d}.png"),
        ("a.tar.gz", lambda path, given: made.tarred(path, given, "w:gz"), "/{:05d}.png"),
        ("a.tar.xz", lambda path, given: made.tarred(path, given, "w:xz"), "/{:05d}.png"),
        ("a.parquet", made.tabled, "#{}"),
        ("b.parquet", lambda path, given: made.tabled(path, given, structs=True), "#{}"),
    ],
)
def test_the_images_come_in_their_order(
    tmp_path: Path, name: str, make: Callable[[Path, list[bytes]], Path], form: str
) -> None:
    path = make(tmp_path / name, PICTURES)
    assert read(path) == [(form.format(number), content) for number, content in enumerate(PICTURES)]


def test_the_weights_of_a_tar_are_its_bytes(tmp_path: Path) -> None:
    (entry,) = entries([made.tarred(tmp_path / "a.tar", PICTURES)])
    weights = [one.weight for one in members(entry, root="", column="", most_bytes=MOST)]
    assert 0 < sum(weights) <= entry.size


def test_a_member_that_is_not_asked_for_is_passed_over(tmp_path: Path) -> None:
    (entry,) = entries([made.tarred(tmp_path / "a.tar", PICTURES)])
    found = [
        one.load() if number % 3 == 0 else None
        for number, one in enumerate(members(entry, root="", column="", most_bytes=MOST))
    ]
    assert found == [content if number % 3 == 0 else None for number, content in enumerate(PICTURES)]


def test_a_tar_keeps_no_list_of_what_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made.tarred(tmp_path / "a.tar", PICTURES)
    held: list[int] = []
    real = tarfile.TarFile.next

    def watched(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
        held.append(len(archive.members))  # type: ignore[attr-defined]
        return real(archive)

    monkeypatch.setattr(tarfile.TarFile, "next", watched)
    read(path)
    assert len(held) > 20
    assert max(held) <= 1


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.parquet"])
def test_an_image_that_is_too_large_is_not_read(tmp_path: Path, name: str) -> None:
    contents = [PICTURES[0], bytes(MOST + 1), PICTURES[1]]
    make = {"a.zip": made.zipped, "a.tar": made.tarred, "a.parquet": made.tabled}[name]
    found = [content for _, content in read(make(tmp_path / name, contents))]  # type: ignore[arg-type]
    assert found == [PICTURES[0], f"expected at most {MOST} bytes, got {MOST + 1}", PICTURES[1]]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_that_is_cut_short_gives_what_it_has_and_one_error(tmp_path: Path, mode: str) -> None:
    ending = "tar" if mode == "w" else "tar.gz"
    path = made.tarred(tmp_path / f"a.{ending}", PICTURES, mode)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 // 512 * 512 + 100])
    found = read(path)
    good = [one for _, one in found if isinstance(one, bytes)]
    assert good == PICTURES[: len(good)]
    assert 0 < len(good) < 20
    assert [str(one)[:40] for _, one in found[len(good) :]][-1] == "the archive cannot be read on: unexpecte" or (
        "cannot be read" in str(found[-1][1])
    )
    assert len(found) - len(good) <= 2  # the member that was cut, and the archive


@pytest.mark.parametrize("at", ["header", "end"])
def test_a_tar_with_a_damaged_header_or_without_its_end_says_so(tmp_path: Path, at: str) -> None:
    path = made.tarred(tmp_path / "a.tar", PICTURES)
    content = bytearray(path.read_bytes())
    if at == "header":
        place = content.index(b"00010.cls")
        content[place + 148 : place + 156] = b"99999999"  # its checksum
    else:
        del content[content.index(b"00010.cls") :]
    path.write_bytes(content)
    found = read(path)
    assert [one for _, one in found[:10]] == PICTURES[:10]
    assert len(found) == 11
    assert found[10][0] == ""
    assert "the archive cannot be read on" in str(found[10][1])


def test_a_link_in_a_tar_is_an_error_and_not_lost(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("link.png")
        info.type, info.linkname = tarfile.SYMTYPE, "x.png"
        archive.addfile(info)
        folder = tarfile.TarInfo("folder.png")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    assert read(tmp_path / "a.tar") == [("/link.png", "expected an image file, got a link or a device in an archive")]


def test_a_damaged_or_locked_member_of_a_zip_is_one_error(tmp_path: Path) -> None:
    path = made.zipped(tmp_path / "a.zip", PICTURES)
    with zipfile.ZipFile(path) as archive:
        place = archive.infolist()[3].header_offset
    content = bytearray(path.read_bytes())
    content[place + 60] ^= 0xFF  # in its data
    content[content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 4) + 8] |= 1  # the first image wants a password
    path.write_bytes(content)
    found = read(path)
    assert len(found) == 20
    assert [number for number, (_, one) in enumerate(found) if one != PICTURES[number]] == [0, 2]
    assert "password" in str(found[0][1])
    assert "cannot be read" in str(found[2][1])


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.parquet", "a.tar.gz"])
@pytest.mark.parametrize("content", [b"", b"hello" * 1000])
def test_what_is_no_archive_is_one_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    ((where, says),) = read(tmp_path / name)
    assert where == ""
    assert str(says).startswith("the archive cannot be read on: ")


def test_an_archive_that_is_gone_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("gone.tar")
    (entry,) = entries([tmp_path / "list.txt"])
    (member,) = members(entry, root=str(tmp_path), column="", most_bytes=MOST)
    with pytest.raises(InvalidRequest, match="No such file or directory"):
        member.load()


def test_the_column_of_images_may_be_named_and_must_be_where_there_are_two(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from service.scoring.archives import image_column

    path = made.tabled(tmp_path / "a.parquet", [*PICTURES[:2], None])
    assert [says for _, says in read(path, column="image")][2] == "expected an encoded image, got null"
    assert "expected the column id of encoded images" in str(read(path, column="id")[0][1])
    two = pa.schema([("a", pa.binary()), ("b", pa.large_binary()), ("c", pa.string())])
    with pytest.raises(SetupError, match=r"expected one column of encoded images.*found a, b; name it with --column"):
        image_column(two, "", "x")
    assert image_column(two, "b", "x") == "b"
    pq.write_table(pa.table({"c": ["x"]}), tmp_path / "none.parquet")
    assert "found none" in str(read(tmp_path / "none.parquet")[0][1])


def test_a_member_of_a_zip_gives_no_more_than_it_claims(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(10**6))
    content = bytearray(buffer.getvalue())
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):  # it claims 100 bytes
        place = content.index(mark) + offset
        content[place : place + 4] = (100).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(content)
    ((_, says),) = read(tmp_path / "a.zip")
    assert "cannot be read: Bad CRC-32" in str(says)
