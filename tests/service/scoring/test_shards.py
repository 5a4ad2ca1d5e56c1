"""Nothing lost and nothing twice, in whatever order rows come and wherever a run is cut off."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="pyarrow (the extra `score`) is not installed")

import pyarrow as pa

from service.errors import SetupError
from service.scoring import shards as shards_module
from service.scoring.decoding import NO_NUMBER, Columns
from service.scoring.ledger import MANIFEST, Ledger
from service.scoring.shards import Shards

TOLD = {"format": 1, "alpha": 0.05}
SHARD = 10


def rows(piece: int, numbers: list[int]) -> Columns:
    return {
        "piece": np.full(len(numbers), piece),
        "number": np.array(numbers),
        "total": np.full(len(numbers), NO_NUMBER),
        "error": np.array(["" if number % 4 else "bad" for number in numbers], object),
        "is_adversarial": np.array([number % 3 == 0 for number in numbers]),
    }


def end(piece: int, total: int) -> Columns:
    told = dict(rows(piece, [NO_NUMBER]))
    return {**told, "total": np.array([total])}


def joined(*parts: Columns) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def table(columns: Columns) -> pa.Table:
    return pa.table({name: columns[name].tolist() for name in ("piece", "number")})


def written(folder: Path) -> dict[str, list[int]]:
    import pyarrow.parquet as pq

    return {path.name: pq.read_table(path)["number"].to_pylist() for path in sorted(folder.glob("*.parquet"))}


@pytest.mark.parametrize("seed", range(20))
def test_rows_in_any_order_and_more_than_once_come_out_once_and_in_order(tmp_path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    totals = {0: 25, 1: 0, 2: 20, 3: 7}
    parts = [end(piece, total) for piece, total in totals.items()]
    for piece, total in totals.items():
        numbers = generator.permutation([*range(total), *range(0, total, 3)]).tolist()
        parts += [rows(piece, numbers[start : start + 4]) for start in range(0, len(numbers), 4)]
    order = generator.permutation(len(parts)).tolist()
    with Ledger(tmp_path, TOLD) as ledger:
        shards = Shards(ledger, table, SHARD)
        for start in range(0, len(order), 3):
            shards.add(joined(*(parts[i] for i in order[start : start + 3])))
        assert all(ledger.has_ended(piece) for piece in totals)
        assert ledger.totals.images == 52
    assert written(tmp_path) == {
        "shard-000000-0000.parquet": list(range(10)),
        "shard-000000-0001.parquet": list(range(10, 20)),
        "shard-000000-0002.parquet": list(range(20, 25)),
        "shard-000002-0000.parquet": list(range(10)),
        "shard-000002-0001.parquet": list(range(10, 20)),
        "shard-000003-0000.parquet": list(range(7)),
    }


def test_a_piece_that_lacks_a_row_has_not_ended(tmp_path: Path) -> None:
    with Ledger(tmp_path, TOLD) as ledger:
        shards = Shards(ledger, table, SHARD)
        shards.add(joined(rows(0, [*range(9), 0, *range(10, 20)]), end(0, 20)))
        assert not ledger.has_ended(0)
        assert ledger.shards(0) == {1}
        shards.add(rows(0, [9]))
        assert ledger.has_ended(0)


def test_the_totals_are_those_of_what_is_finished(tmp_path: Path) -> None:
    with Ledger(tmp_path, TOLD) as ledger:
        Shards(ledger, table, SHARD).add(joined(rows(0, list(range(10))), rows(1, [0])))
        now = ledger.totals
    assert (now.images, now.errors, now.adversarial, now.shards) == (10, 3, 4, 1)
    with Ledger(tmp_path, TOLD) as ledger:
        assert ledger.totals == now


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", range(12))
def test_wherever_a_run_is_cut_off_the_next_one_completes_it(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off before and after each step that leaves a trace on the disk."""
    steps = iter(range(100))

    def perhaps() -> None:
        if next(steps) == step:
            raise Killed

    real_write, real_append = shards_module.write_shard, Ledger._append

    def write(path: Path, content: pa.Table) -> int:
        perhaps()
        path.with_name(f".{path.name}.tmp").write_bytes(b"half of it")
        perhaps()
        size = real_write(path, content)
        perhaps()
        return size

    def append(ledger: Ledger, line: object) -> None:
        if next(steps) == step:
            ledger._file.write(b'{"piece": 0, "sh')  # half a line
            ledger._file.flush()
            raise Killed
        real_append(ledger, line)  # type: ignore[arg-type]

    def run(folder: Path) -> None:
        with Ledger(folder, TOLD) as ledger:
            shards = Shards(ledger, table, SHARD)
            for piece in range(2):
                if not ledger.has_ended(piece):
                    shards.add(joined(rows(piece, list(range(15))), end(piece, 15)))

    with monkeypatch.context() as patch:
        patch.setattr(shards_module, "write_shard", write)
        patch.setattr(Ledger, "_append", append)
        with pytest.raises(Killed):
            run(tmp_path)
    run(tmp_path)
    expected = {
        f"shard-{piece:06d}-000{shard}.parquet": list(range(10 * shard, min(15, 10 * shard + 10)))
        for piece in range(2)
        for shard in range(2)
    }
    assert written(tmp_path) == expected
    assert not list(tmp_path.glob(".*"))
    with Ledger(tmp_path, TOLD) as ledger:
        assert ledger.totals.images == 30


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    with Ledger(tmp_path, TOLD):
        pass
    with pytest.raises(SetupError, match=r"was begun with alpha 0\.05, this run has 0\.01; go on with the same"):
        Ledger(tmp_path, {**TOLD, "alpha": 0.01})
    with pytest.raises(SetupError, match="was begun with new None, this run has 1"):
        Ledger(tmp_path, {**TOLD, "new": 1})


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path, TOLD), pytest.raises(SetupError, match="another run writes there"):
        Ledger(tmp_path, TOLD)


def test_a_folder_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SetupError, match=r"expected an empty folder or that of an earlier run, found notes\.txt"):
        Ledger(tmp_path, TOLD)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(SetupError, match="cannot be written: "):
        Ledger(tmp_path / "notes.txt", TOLD)


def test_a_finished_shard_that_is_gone_or_changed_is_told(tmp_path: Path) -> None:
    with Ledger(tmp_path, TOLD) as ledger:
        Shards(ledger, table, SHARD).add(rows(0, list(range(10))))
    path = tmp_path / "shard-000000-0000.parquet"
    content = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(SetupError, match=r"expected the finished shard of \d+ bytes, got 0; put it back"):
        Ledger(tmp_path, TOLD)
    path.unlink()
    with pytest.raises(SetupError, match="got none"):
        Ledger(tmp_path, TOLD)
    path.write_bytes(content)
    with Ledger(tmp_path, TOLD) as ledger:
        assert ledger.totals.images == 10


def test_a_manifest_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("hello\n")
    with pytest.raises(SetupError, match="no manifest of a run"):
        Ledger(tmp_path, TOLD)


def test_a_disk_that_is_full_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("service.scoring.tables.pq.write_table", full)
    with (
        Ledger(tmp_path, TOLD) as ledger,
        pytest.raises(SetupError, match="cannot be written: No space left on device"),
    ):
        Shards(ledger, table, SHARD).add(rows(0, list(range(10))))
    assert not list(tmp_path.glob(".*"))
