"""Defaults, below variables, below flags; and whatever is wrong is named."""

import pytest

from service.detection.verdict import RevealMode
from service.errors import SetupError
from service.settings import Settings


def test_a_flag_beats_a_variable_and_a_variable_a_default() -> None:
    environment = {"ADVSENTRY_PORT": "1", "ADVSENTRY_MAX_BATCH": "2", "ADVSENTRY_REVEAL": "decision", "PATH": "x"}
    made = Settings.build(environment, {"port": "3", "max_batch": None})
    assert (made.port, made.max_batch, made.reveal, made.host) == (3, 2, RevealMode.DECISION, "127.0.0.1")


def test_the_training_sides_variable_is_none_of_ours() -> None:
    assert Settings.build({"ADVSENTRY_DATA": "/data"}, {}) == Settings()


@pytest.mark.parametrize(
    ("environment", "flags", "says"),
    [
        ({"ADVSENTRY_MAXBATCH": "1"}, {}, "ADVSENTRY_MAXBATCH: unknown setting; did you mean ADVSENTRY_MAX_BATCH"),
        ({"ADVSENTRY_QQ": "1"}, {}, "ADVSENTRY_QQ: unknown setting; known are ADVSENTRY_A"),
        ({"ADVSENTRY_PORT": "many"}, {}, "ADVSENTRY_PORT: expected a whole number, got 'many'"),
        ({"ADVSENTRY_PORT": "1.5"}, {}, "expected a whole number"),
        ({"ADVSENTRY_PORT": "70000"}, {}, "ADVSENTRY_PORT: expected a number from 0 to 65535, got 70000"),
        ({"ADVSENTRY_MAX_BATCH": "0"}, {}, "ADVSENTRY_MAX_BATCH: expected a number from 1"),
        ({"ADVSENTRY_DRAIN_S": "nan"}, {}, "ADVSENTRY_DRAIN_S: expected a number from 0 to 1000000, got nan$"),
        ({"ADVSENTRY_DRAIN_S": "inf"}, {}, "got inf"),
        ({"ADVSENTRY_MAX_DEADLINE_S": "1e300"}, {}, "from 0.001 to 1000000, got 1e\\+300"),
        ({}, {"max_image_bytes": "1" + "0" * 400}, "from 1 to 2147483647, got 100000000000000..."),
        ({}, {"port": "70000"}, "--port or ADVSENTRY_PORT: expected a number from 0 to 65535, got 70000"),
        ({"ADVSENTRY_REVEAL": "all"}, {}, "expected one of decision, p_values, scores, got 'all'"),
        ({"ADVSENTRY_REFLECTION": "perhaps"}, {}, "expected on or off, got 'perhaps'"),
        ({}, {"device": "tpu"}, "--device: expected one of cpu, cuda, auto, got 'tpu'"),
        ({}, {"max_batch": "x"}, "--max-batch: expected a whole number"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(environment: dict[str, str], flags: dict[str, object], says: str) -> None:
    with pytest.raises(SetupError, match=says):
        Settings.build(environment, flags)


@pytest.mark.parametrize(("text", "value"), [("on", True), ("0", False), ("False", False)])
def test_a_switch_takes_plain_words(text: str, value: bool) -> None:
    assert Settings.build({"ADVSENTRY_REFLECTION": text}, {}).reflection is value
