"""docs/engine.md: its commands and settings are those of the code."""

import re
import shlex
from pathlib import Path

from deploy import cuda_check, footprint
from service import cli, tune
from service.detection import graph_cache
from service.settings import setting_fields

PAGE = (Path(__file__).parent.parent.parent / "docs" / "engine.md").read_text(encoding="utf-8")


def test_each_command_is_understood() -> None:
    commands = [shlex.split(line) for line in re.findall(r"^    (advsentry .*)$", PAGE, re.MULTILINE)]
    assert {command[1] for command in commands} == {"tune", "serve"}
    for command in commands:
        assert cli._parser().parse_args(command[1:]).command


def test_each_script_is_there() -> None:
    named = set(re.findall(r"python -m (deploy\.\w+)", PAGE))
    assert named == {cuda_check.__name__, footprint.__name__}


def test_each_word_in_code_that_looks_like_a_setting_is_one() -> None:
    words = set(re.findall(r"`(threads|max_batch|cache_dir|device|device_id|gpu_mem_limit|tensorrt)`", PAGE))
    assert len(words) == 7
    assert words <= set(setting_fields())


def test_its_figures_are_those_of_the_code() -> None:
    assert f"1 to {max(tune.BATCHES)} images" in PAGE
    assert f"reaches {tune.WITHIN:.0%}".replace("%", " %") in PAGE
    assert f"The {graph_cache.MOST_FILES} graphs used\nlast are kept" in PAGE
    assert graph_cache.PAYS_S == 0.25  # "a quarter of a second"
