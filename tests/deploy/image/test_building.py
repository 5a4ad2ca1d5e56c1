"""The build's own part: what it may see, what it is told of pip, and what stops it."""

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from deploy.image.__main__ import missed_of
from deploy.image.building import Buildah, mounted_below, pip_secrets
from deploy.results import load
from service.errors import SetupError

ROOT = Path(__file__).parent.parent.parent.parent
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")


def test_only_what_an_image_is_built_from_is_let_in() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    allowed = [line[1:] for line in lines if line.startswith("!")]
    assert all((ROOT / name).exists() for name in allowed)
    assert {name.split("/")[0] for name in allowed} <= {
        *("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "deploy", "protos", "service")
    }
    assert [name for name in allowed if name.startswith("deploy")] == [
        "deploy/image/requirements.py",
        "deploy/image/constraints-gpu.txt",
    ]
    assert lines.index("**/.*") > max(map(lines.index, (f"!{name}" for name in allowed)))


def test_nothing_of_where_packages_come_from_stays() -> None:
    said = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE)
    assert not re.search(r"PIP_|index-url|https?://", said)
    for run in re.findall(r"^RUN (?:.*\\\n)*.*", DOCKERFILE, re.MULTILINE):
        assert ("pip --python" in run) == ("type=secret,id=pip" in run)


def test_what_pip_is_told_here_is_told_to_the_build(tmp_path: Path) -> None:
    environment = {"PIP_INDEX_URL": "https://mirror.example/simple", "SSL_CERT_FILE": "/etc/roots.pem"}
    secrets = pip_secrets(environment, tmp_path)
    assert secrets["ca"] == Path("/etc/roots.pem")
    assert secrets["pip"].read_text("utf-8").splitlines() == [
        "[global]",
        "index-url = https://mirror.example/simple",
        "cert = /run/secrets/ca",
    ]
    assert stat.S_IMODE(secrets["pip"].stat().st_mode) == 0o600
    assert pip_secrets({}, tmp_path).keys() == {"pip"}


def test_a_machine_without_the_tools_says_which(tmp_path: Path) -> None:
    for name in ("dirname", "bash", "env"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    done = subprocess.run(
        [ROOT / "deploy" / "test_image.sh"],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr.startswith("test-image: skipped: there is no buildah debootstrap unshare chroot here")


def test_a_call_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "buildah").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "buildah").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SetupError, match=r"buildah .* rm x: exit status 3; see above"):
        Buildah(folder=tmp_path).run("rm", "x")


def test_a_figure_that_is_missed_is_told() -> None:
    metrics = next(result["metrics"] for result in load() if result["name"] == "image")
    assert missed_of(metrics) == []
    assert missed_of({**metrics, "own_layers_mb": 301.0, "secrets": 1.0}) == [
        "own_layers_mb is 301, asked <= 300",
        "secrets is 1, asked = 0",
    ]


def test_what_is_mounted_in_a_folder_is_taken_away_from_inside_out() -> None:
    mounts = "".join(
        f"none {point} tmpfs rw 0 0\n" for point in ("/", "/w/base/proc", "/w/base/proc/a\\040b", "/w/base2", "/w/base")
    )
    assert mounted_below(Path("/w/base"), mounts) == ["/w/base/proc/a b", "/w/base/proc"]
    assert mounted_below(Path("/w/other"), mounts) == []
