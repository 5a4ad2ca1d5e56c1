"""The alarms: raised by what they should be, taken back, and silent for what is nothing."""

import logging
import math

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from service.drift import DRIFT_WINDOW_S, EVERY_S, Drift
from service.metrics import Metrics

CLEAN = np.linspace(0.0005, 1, 1000)
"""Uniform, as p-values of clean images are."""


class Traffic:
    """A service that is looked at every few seconds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.drift = Drift(self.metrics)
        self.now = self.drift._snapshots[0].at

    def send(self, p_values: np.ndarray, detector: str = "fused") -> None:
        self.metrics.p_value(detector).observe_all(p_values.tolist())

    def judge(self, images: int, adversarial: int, alpha: float = 0.01) -> None:
        judged = self.metrics.judged
        judged.images += images
        judged.adversarial += adversarial
        judged.expected += alpha * images

    def look(self, after_s: float = EVERY_S) -> None:
        self.now += after_s
        self.drift.look(self.now)

    def value(self, name: str, **labels: str) -> float:
        found = self.registry.get_sample_value(f"advsentry_{name}", labels)
        assert found is not None
        return found

    def alarm(self, detector: str = "fused") -> float:
        return self.value("calibration_drift_alarm", detector=detector)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message.partition(":")[0] for record in caplog.records if record.name == "service.drift"]


def test_clean_images_raise_no_alarm(caplog: pytest.LogCaptureFixture) -> None:
    traffic, generator = Traffic(), np.random.default_rng(0)
    for _ in range(50):
        traffic.send(generator.random(200))
        traffic.judge(200, int((generator.random(200) < 0.01).sum()))
        traffic.look()
        assert traffic.alarm() == 0
        assert traffic.value("adversarial_share_alarm") == 0
    assert traffic.value("calibration_drift", detector="fused") == pytest.approx(0.1, abs=0.01)
    assert lines(caplog) == []


@pytest.mark.parametrize("shift", [0.6, 2.0], ids=["too few", "too many"])
def test_another_distribution_raises_it_for_its_detector_and_clean_images_take_it_back(
    shift: float, caplog: pytest.LogCaptureFixture
) -> None:
    traffic = Traffic()
    caplog.set_level(logging.INFO)
    traffic.send(np.minimum(1, CLEAN / shift), "odd")
    traffic.send(CLEAN, "right")
    traffic.look()
    assert (traffic.alarm("odd"), traffic.alarm("right")) == (1, 0)
    assert traffic.value("calibration_drift", detector="odd") == pytest.approx(0.1 * shift, abs=0.002)
    traffic.look()
    assert lines(caplog) == ["alarm"]
    traffic.look(DRIFT_WINDOW_S)
    traffic.send(CLEAN, "odd")
    traffic.look()
    assert traffic.alarm("odd") == 0
    assert lines(caplog) == ["alarm", "the alarm is over"]


def test_the_alarm_does_not_flicker_at_its_edge(caplog: pytest.LogCaptureFixture) -> None:
    traffic = Traffic()
    traffic.send(CLEAN / 1.35)
    traffic.look()
    assert traffic.alarm() == 1
    traffic.send(np.concatenate([CLEAN, CLEAN]))  # a share of 0.117 altogether: right again
    traffic.look()
    assert traffic.alarm() == 0
    traffic.send(CLEAN / 1.35)  # 0.126: neither wrong nor right
    traffic.look()
    assert traffic.alarm() == 0
    assert len(lines(caplog)) == 2


def test_few_images_say_nothing() -> None:
    traffic = Traffic()
    traffic.send(np.full(999, 0.01))
    traffic.look()
    assert math.isnan(traffic.value("calibration_drift", detector="fused"))
    assert traffic.alarm() == 0


def test_only_the_last_hour_counts_and_memory_is_bounded() -> None:
    traffic = Traffic()
    traffic.send(np.full(5000, 0.01))
    for _ in range(int(DRIFT_WINDOW_S / EVERY_S) + 50):
        traffic.send(CLEAN[::50])
        traffic.look()
    assert traffic.value("calibration_drift", detector="fused") == pytest.approx(0.1, abs=0.005)
    assert len(traffic.drift._snapshots) <= DRIFT_WINDOW_S / EVERY_S + 2


def test_an_attack_raises_the_other_alarm_and_ten_quiet_minutes_end_it(caplog: pytest.LogCaptureFixture) -> None:
    traffic = Traffic()
    traffic.judge(300, 8)
    traffic.look()
    assert traffic.value("adversarial_share_alarm") == 0  # few, and 14 may come by chance
    traffic.judge(100, 60)
    traffic.look()
    assert traffic.value("adversarial_share_alarm") == 1
    assert traffic.value("adversarial_share") == pytest.approx(68 / 400)
    for _ in range(70):
        traffic.judge(20, 0)
        traffic.look()
    assert traffic.value("adversarial_share_alarm") == 0
    assert lines(caplog) == ["alarm", "the alarm is over"]


def test_what_a_high_alpha_lets_expect_is_no_attack() -> None:
    traffic = Traffic()
    traffic.judge(1000, 110, alpha=0.1)
    traffic.look()
    assert traffic.value("adversarial_share_alarm") == 0
    traffic.judge(1000, 110, alpha=0.01)
    traffic.look(700.0)
    assert traffic.value("adversarial_share_alarm") == 1


def test_another_bundle_begins_anew() -> None:
    traffic = Traffic()
    traffic.send(np.full(2000, 0.01))
    traffic.look()
    assert traffic.alarm() == 1
    traffic.drift.restart()
    assert math.isnan(traffic.value("calibration_drift", detector="fused"))
    assert traffic.alarm() == 0
