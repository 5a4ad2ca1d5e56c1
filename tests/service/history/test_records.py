import numpy as np
import pytest

from service.history.calibration import Calibration
from service.history.entries import Entry
from service.history.history import History
from service.history.records import Record, packed, unpacked
from service.history.sealing import SEAL_BYTES, Seal
from tests.service.history import toy

SENDER = 2**64 - 1


@pytest.fixture(scope="module")
def entries(calibration: Calibration) -> list[Entry]:
    history = History(calibration, dimensions=toy.DIMENSIONS)
    under_one = history.keyed(toy.stream(toy.pictures(np.random.default_rng(0), 5), "a", start=0.0))
    under_two = history.keyed(toy.stream(toy.pictures(np.random.default_rng(0), 5), "", start=86_390.0))
    assert [len(one.sketches) for one in under_one + under_two] == [1] * 5 + [2] * 5
    return under_one + under_two


def test_an_entry_comes_back_bit_by_bit(entries: list[Entry]) -> None:
    for entry in entries:
        record = unpacked(packed(Record(SENDER, 12.5, entry)), toy.DIMENSIONS)
        assert (record.sender, record.sent) == (SENDER, 12.5)
        found = record.what
        assert isinstance(found, Entry)
        for name in ("client", "digest", "generation", "label", "marks"):
            assert getattr(found, name) == getattr(entry, name)
        assert len(found.sketches) == len(entry.sketches)
        for name in ("sketches", "cells", "own_cells", "embedding"):
            one, other = np.asarray(getattr(found, name)), np.asarray(getattr(entry, name))
            assert one.dtype == other.dtype
            assert np.array_equal(one, other)


def test_a_forgiven_client_comes_back() -> None:
    assert unpacked(packed(Record(SENDER, 1.0, 2**64 - 5)), 8) == Record(SENDER, 1.0, 2**64 - 5)


def test_what_is_no_record_is_refused(entries: list[Entry]) -> None:
    good = packed(Record(SENDER, 1.0, entries[0]))
    forgiven = packed(Record(SENDER, 1.0, 3))
    wrong = [
        b"",
        good[:16],
        good[:40],
        good[:-1],
        good + b"0",
        good[:16] + b"\7" + good[17:],
        forgiven[:-1],
        bytes(900),
    ]
    for content in wrong:
        with pytest.raises(ValueError, match="expected a record"):
            unpacked(content, toy.DIMENSIONS)
    with pytest.raises(ValueError, match="of 25 dimensions"):
        unpacked(good, toy.DIMENSIONS + 1)


def test_what_is_sealed_opens_under_its_key_alone() -> None:
    seal, other = Seal(b"k" * 32), Seal(b"l" * 32)
    for content in (b"", b"one", bytes(2000)):
        sealed = seal.sealed(content)
        assert len(sealed) == len(content) + SEAL_BYTES
        assert seal.opened(sealed) == content
        assert seal.sealed(content) != sealed
        with pytest.raises(ValueError, match="under this secret"):
            other.opened(sealed)


def test_no_changed_bit_goes_unseen() -> None:
    seal = Seal(b"k" * 32)
    sealed = seal.sealed(b"content")
    for place in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(ValueError, match="under this secret"):
            seal.opened(bytes(changed))
    for length in range(len(sealed)):
        with pytest.raises(ValueError, match="under this secret"):
            seal.opened(sealed[:length])


def test_a_sealed_content_looks_random() -> None:
    sealed = np.frombuffer(Seal(b"k" * 32).sealed(bytes(100_000)), np.uint8)
    counts = np.bincount(sealed, minlength=256)
    assert counts.min() > 300
    assert counts.max() < 500
