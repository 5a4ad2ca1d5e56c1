"""What an image must not have is found in its layers."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from deploy.image.layers import Content, Image, content_of

KEY = b"-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n"


def layer(path: Path, name: str, content: bytes = b"", *, user: int = 0, mode: int = 0o644) -> Path:
    """An archive of one file."""
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo(name)
        member.size, member.uid, member.gid, member.mode = len(content), user, user, mode
        archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def found(tmp_path: Path, request: pytest.FixtureRequest) -> Content:
    return content_of((layer(tmp_path / "layer", *request.param),))


def test_a_good_layer_tells_its_size_and_packages(tmp_path: Path) -> None:
    path = layer(tmp_path / "layer", "opt/venv/lib/python3.11/site-packages/prometheus_client-1.2.dist-info/METADATA")
    found = content_of((path,))
    assert (found.secrets, found.tests, found.writable) == ((), (), ())
    assert (found.files, found.packages) == (1, {"prometheus-client": "1.2"})
    assert found.size_mb * 1e6 == path.stat().st_size > found.compressed_mb * 1e6 > 0


@pytest.mark.parametrize(
    "found",
    [
        ("etc/tls.key",),
        ("etc/pip.conf",),
        ("opt/.git/config",),
        ("opt/notes", KEY),
        ("opt/notes", b"index = https://me:secret@mirror.example/simple"),
        ("opt/notes", b"redis://me:pass]word@store"),
    ],
    indirect=True,
)
def test_a_secret_is_found(found: Content) -> None:
    assert len(found.secrets) == 1


@pytest.mark.parametrize("found", [("opt/tests/tiny.py",), ("opt/test_x.py",), ("opt/conftest.py",)], indirect=True)
def test_a_test_is_found(found: Content) -> None:
    assert len(found.tests) == 1


@pytest.mark.parametrize(
    "found",
    [
        ("opt/testing.py",),
        ("opt/keys.py", b"https://pypi.example/simple"),
        ("opt/latest/a.py",),
        (
            "opt/manual.py",
            b"redis://[user:password@]host or redis://[[username]:[password]]@host, in a log redis://me:***@host",
        ),
    ],
    indirect=True,
)
def test_what_only_sounds_like_one_is_none(found: Content) -> None:
    assert (found.secrets, found.tests) == ((), ())


def test_what_the_server_could_change_is_found(tmp_path: Path) -> None:
    layers = layer(tmp_path / "a", "a", user=65532), layer(tmp_path / "b", "b", mode=0o666), layer(tmp_path / "c", "c")
    assert content_of(layers).writable == ("a", "b")


def test_an_image_is_read(tmp_path: Path) -> None:
    config = {"config": {"User": "1"}, "history": [{"created_by": "RUN x"}, {}]}
    (tmp_path / "c").write_text(json.dumps(config))
    manifest = {"config": {"digest": "sha256:c"}, "layers": [{"digest": "sha256:l"}]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    image = Image.read(tmp_path)
    assert (image.config["User"], image.history, image.layers) == ("1", ("RUN x", ""), (tmp_path / "l",))
