"""deploy/compose.yaml: its parts find each other, and what it says of the service are settings."""

import re
from pathlib import Path

import yaml

from service.settings import PREFIX, Settings, env_name, setting_fields

FOLDER = Path(__file__).parent.parent.parent / "deploy"
COMPOSE, GPU, HISTORY, PROMETHEUS, SOURCES, BOARDS = (
    (FOLDER / name).read_text(encoding="utf-8")
    for name in (
        "compose.yaml",
        "compose.gpu.yaml",
        "compose.history.yaml",
        "prometheus/prometheus.yml",
        "grafana/provisioning/datasources/prometheus.yml",
        "grafana/provisioning/dashboards/advsentry.yml",
    )
)
SERVICES = re.findall(r"^  (\w+):\n    image:", COMPOSE, re.MULTILINE)


def test_the_parts_find_each_other() -> None:
    assert SERVICES == ["advsentry", "prometheus", "grafana"]
    assert re.findall(r"names: \[(\w+)\]", PROMETHEUS) == [SERVICES[0]]
    assert re.findall(r"port: (\d+)", PROMETHEUS) == [str(Settings().metrics_port)]
    assert re.findall(r"url: http://(\w+):9090", SOURCES) == [SERVICES[1]]
    assert re.findall(r"^  (\w+):$", GPU, re.MULTILINE) == [SERVICES[0]]


def test_what_is_mounted_is_there() -> None:
    mounts = dict(re.findall(r"- (?:\$\{\w+:-)?(\.[\w./]+)\}?:(/\S+):ro", COMPOSE))
    assert len(mounts) == 4
    assert all((FOLDER / source).is_dir() for source in mounts)
    (boards,) = re.findall(r"path: (\S+)", BOARDS)
    assert mounts["./grafana/dashboards"] == boards
    (home,) = re.findall(r"HOME_DASHBOARD_PATH: (\S+)", COMPOSE)
    assert (FOLDER / "grafana/dashboards" / Path(home).name).exists()
    assert Path(home).parent == Path(boards)


def test_the_page_names_what_is_there() -> None:
    page = (FOLDER.parent / "docs" / "deploy.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\bdeploy/[\w./-]+\w", page))
    assert len(named) >= 6
    assert [name for name in named if not (FOLDER.parent / name).exists()] == []
    targets = set(re.findall(r"^FROM \S+ AS (\w+)$", (FOLDER / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"--target (\w+)", page)) <= targets


def test_what_is_set_are_settings() -> None:
    said = set(re.findall(rf"\b{PREFIX}\w+", COMPOSE + (FOLDER / "Dockerfile").read_text(encoding="utf-8")))
    assert len(said) >= 4
    assert said <= {env_name(name) for name in setting_fields()}


def test_nothing_is_open_to_others_and_every_version_is_named() -> None:
    ports = re.findall(r"^      - (\S+:\d+)$", COMPOSE, re.MULTILINE)
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)
    images = re.findall(r"image: (\S+)", COMPOSE)[1:]
    assert all(re.search(r":v?\d+\.\d+\.\d+$", image) for image in images)
    assert COMPOSE.count("cap_drop: [ALL]") == COMPOSE.count("no-new-privileges:true") == len(SERVICES)


def test_the_history_finds_its_redis_which_keeps_nothing_and_pushes_nothing_out() -> None:
    made = yaml.safe_load(HISTORY)
    service, redis = made["services"]["advsentry"], made["services"]["redis"]
    settings = Settings.build(service["environment"], {})
    assert settings.history_url == "redis://redis:6379"
    assert settings.history_secret == f"/run/secrets/{service['secrets'][0]}"
    assert made["secrets"].keys() == set(service["secrets"])
    assert set(yaml.safe_load(COMPOSE)["services"]["advsentry"]["networks"]) < set(service["networks"])
    assert redis["networks"] == ["history"]
    assert made["networks"]["history"] == {"internal": True}
    assert "ports" not in redis
    assert redis["command"][1:5] == ["--save", "", "--appendonly", "no"]
    assert redis["command"][-1] == "noeviction"
    assert redis["cap_drop"] == ["ALL"]
    assert re.search(r":\d+\.\d+\.\d+$", redis["image"])


def test_the_image_has_what_the_history_asks_redis_with() -> None:
    extras = re.findall(r"^ARG EXTRAS=(\S+)$", (FOLDER / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert len(extras) == 2
    assert all("redis" in one.split(",") for one in extras)
