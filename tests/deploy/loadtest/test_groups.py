"""What a shared history of a fleet takes, from what was measured."""

import pytest

from deploy.loadtest import groups
from deploy.loadtest.page import page

FLEET = {
    "metrics": {"peak_images_per_s": 1000.0, "cores_detect": 7.5},
    "recipe": {"images_per_day": 43_200_000.0, "history_s": 100.0},
}
SHARED = {
    "batch_1_alone_us": 400.0,
    "batch_1_us": 600.0,
    "batch_1_commands": 4.0,
    "batch_1_in_bytes": 1000.0,
    "batch_1_out_bytes": 50.0,
    "batch_1_redis_us": 20.0,
    "reader_out_bytes": 900.0,
    "catch_up_us": 500.0,
    "entry_bytes": 1000.0,
    "replica_bytes": 2000.0,
}


def test_one_process_alone_has_its_own_queries_and_no_redis() -> None:
    assert groups.group(1, FLEET, SHARED) == groups.Group(
        groups=8,
        per_s=125.0,
        share=pytest.approx(125 * 400e-6),
        process_gb=pytest.approx(125 * 100 * 2000e-9),
        redis_gb=0.0,
        commands_per_s=0.0,
        network_mb_per_s=0.0,
        redis_cores=0.0,
    )


def test_processes_that_share_each_apply_the_queries_of_all() -> None:
    found = groups.group(4, FLEET, SHARED)
    assert (found.groups, found.per_s) == (2, 500.0)
    assert found.share == pytest.approx(125 * 600e-6 + 375 * 500e-6)
    assert found.process_gb == pytest.approx(500 * 100 * 2000e-9)
    assert found.redis_gb == pytest.approx(1000 * 100 * 1000e-9)
    assert found.commands_per_s == pytest.approx(4000)
    assert found.network_mb_per_s == pytest.approx(1000 * (1050 + 3 * 900) / 1e6)
    assert found.redis_cores == pytest.approx(0.02)


def test_the_largest_rate_is_that_of_a_part_of_a_core() -> None:
    assert groups.most_per_s(SHARED) == pytest.approx(400)


def test_each_table_tells_what_was_measured_and_where() -> None:
    others = {"batch_32_alone_us": 1.0, "catch_up_entries": 1e5, "catch_up_s": 33.3}
    batch = {name.replace("_1_", "_32_"): value + 1 for name, value in SHARED.items() if name.startswith("batch_1_")}
    result = {"metrics": SHARED | batch | others, "machine": "a machine", "commit": "c0ffee", "command": "a command"}
    made = groups.tables(result, FLEET)
    assert "| microseconds of a core for a query | 600 | 601 |" in made["shared-costs"]
    assert "* a machine; commit c0ffee; `a command`" in made["shared-costs"]
    assert "| seconds in which a new process caught up with 100,000 | 33 |" in made["shared-further"]
    assert "| 4 | 2 | 500 | 0.26 | 0.1 | 0 | 4,000 | 4 | 0.0 |" in made["shared-fleet"]
    assert made["shared-fleet"].count("\n| ") == len(groups.SIZES)
    marks = "".join(f"<!-- made by `make docs`: {name} -->\nold\n<!-- end -->\n" for name in made)
    assert "old" not in page(marks, made)


def test_the_page_is_the_one_that_the_results_give() -> None:
    text = groups.current_page()
    assert groups.PAGE.read_text("utf-8") == text
    assert text.count("<!-- made by `make docs`: shared-") == 3
