"""The commands, in this process."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from service import serve
from service.__main__ import main
from service.detection.engine import Engine
from service.detection.types import Detection
from tests import tiny
from tests.service import bad_images
from tests.service.running import Running, running


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Running]:
    with running(engine) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, image in enumerate(tiny.images(3)):
        Image.fromarray(image[:, :, 0]).save(tmp_path / f"{number}.png")
    Image.fromarray(tiny.odd_image()[:, :, 0]).save(tmp_path / "odd.png")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


@pytest.fixture(params=["here", "remote"])
def where(request: pytest.FixtureRequest, bundle_path: Path, server: Running) -> list[str]:
    return ["--bundle", str(bundle_path)] if request.param == "here" else ["--target", server.ports.grpc]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_detect_prints_one_aligned_row_an_image(
    capsys: pytest.CaptureFixture[str], folder: Path, where: list[str]
) -> None:
    status, out, _ = run(capsys, "detect", folder, *where)
    lines = out.splitlines()
    assert status == 0
    assert lines[0].split() == ["image", "class", "probability", "p-value", "verdict", "reasons"]
    assert [line.split()[0] for line in lines[1:]] == [str(folder / f"{name}.png") for name in (0, 1, 2, "odd")]
    assert "ADVERSARIAL  the image is brighter than in 99.5 % of clean images" in lines[4]
    column = lines[0].index("verdict")
    assert all(line[column - 2 : column] == "  " for line in lines)


def test_both_ways_give_the_same_bytes(
    capsys: pytest.CaptureFixture[str], folder: Path, bundle_path: Path, server: Running
) -> None:
    here = run(capsys, "detect", folder, "--json", "--bundle", bundle_path)
    remote = run(capsys, "detect", folder, "--json", "--target", server.ports.grpc)
    assert here == remote


def test_an_image_that_fails_is_a_row_and_status_1(
    capsys: pytest.CaptureFixture[str], folder: Path, where: list[str]
) -> None:
    (folder / "1.png").write_text("hello")
    status, out, _ = run(capsys, "detect", folder, *where, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 1
    assert rows[1]["reason"] == "FORMAT_UNSUPPORTED"
    assert "starts with" in rows[1]["error"] or "start with" in rows[1]["error"]
    assert rows[2]["verdict"] in ("clean", "adversarial")
    assert run(capsys, "detect", folder / "1.png", *where)[0] == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["detect", "no/such.png"], "no/such.png: no such file or folder"),
        (["detect", "{folder}/empty"], "no image in this folder"),
        (["detect", "{folder}/0.png", "--bundle", "nope"], "nope: no such bundle directory"),
        (["detect", "{folder}/0.png", "--target", "127.0.0.1:1"], "no server answers at 127.0.0.1:1"),
        (["detect", "{folder}/0.png", "--bundle", "{bundle}", "--alpha", "0.001"], "needs 999 calibration images"),
        (["detect", "{folder}/0.png", "--target", "{target}", "--alpha", "0.03"], "expected one of 0.005"),
        (["detect", "{folder}/0.png", "--target", "host.invalid:1"], "the address of host.invalid:1 is not found"),
        (["detect", "{folder}/0.png", "--target", ""], "expected HOST:PORT with a port from 1 to 65535, got ''"),
        (
            ["detect", "{folder}/0.png", "--target", "host"],
            "expected HOST:PORT with a port from 1 to 65535, got 'host'",
        ),
        (["detect", "{folder}/0.png", "--target", "host:99999"], "a port from 1 to 65535, got 'host:99999'"),
        (["detect", "{folder}/0.png", "--target", "::1:50051"], "expected an IPv6 address in brackets"),
        (["detect", "{folder}/0.png", "--target", "{metrics}"], "is no gRPC port"),
        (["detect", "{folder}/0.png", "--target", "{target}", "--tls"], "speaks no TLS; leave --ca"),
        (
            ["detect", "{folder}/0.png", "--bundle", ""],
            "the name of a shipped one (digits, gtsrb, gtsrb-int8, mnist), got ''",
        ),
        (["reload", "--admin", "http://{target}"], "what answers there is no HTTP"),
        (["reload", "--admin", "http://127.0.0.1:1"], "no answer: Connection refused; is it"),
        (["detect", "{folder}/0.png", "--bundle", "{bundle}", "--alpha", "0.03"], "expected one of 0.005, 0.01"),
        (["detect", "{folder}/0.png", "--target", "{target}", "--reveal", "decision"], "--reveal goes without"),
        (["detect", "{folder}/pipe"], "pipe: expected an image file or a folder, got a pipe or a device"),
        (["detect", "/dev/null"], "got a pipe or a device"),
        (["detect", "a" * 300], "aaa: cannot be read: File name too long"),
        (["detect", "{folder}/0.png/x"], "0.png/x: cannot be read: Not a directory"),
        (["info", "a" * 300], "no such bundle directory"),
        (["info", "nope"], "nope: no such bundle directory"),
        (["serve", "--port", "x"], "--port: expected a whole number"),
        (["serve", "--bundle", "nope"], "nope: no such bundle directory"),
        (["serve", "--host", "[::1]"], "expected an address or a name, such as 127.0.0.1 or ::1, got '[::1]'"),
        (["serve", "--host", ""], "expected an address or a name, such as 127.0.0.1 or ::1, got ''"),
        (["token", "new", "x", "--days", "0"], "--days: expected a whole number from 1 to "),
        (["token", "new", "x", "--identities", "/dev/null"], "/dev/null: expected a file of identities"),
        (["token", "new", "x", "--identities", "{folder}/0.png"], "expected identities in TOML, found no UTF-8"),
        (["worker"], "`worker` is started by `advsentry serve --workers N`, not by hand"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_users_mistake_is_one_line_without_a_traceback(
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    bundle_path: Path,
    server: Running,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    says: str,
) -> None:
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe")
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
    places = {"folder": folder, "bundle": bundle_path, "target": server.ports.grpc, "metrics": server.ports.metrics}
    status, out, err = run(capsys, *(argument.format(**places) for argument in arguments))
    assert (status, out) == (1, "")
    assert err.startswith("advsentry: error: ")
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["nope"], ["detect"], ["serve", "--nope"]], ids=str)
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_a_file_that_goes_away_is_a_row(
    capsys: pytest.CaptureFixture[str], folder: Path, where: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_bytes = Path.read_bytes

    def gone(path: Path) -> bytes:
        if path.name == "1.png":
            raise FileNotFoundError(2, "No such file or directory")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", gone)
    status, out, err = run(capsys, "detect", folder, *where, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (status, err) == (1, "")
    assert [row.get("error") for row in rows] == [None, "cannot be read: No such file or directory", None, None]


def test_an_unreadable_folder_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refused)
    assert run(capsys, "detect", tmp_path)[2] == f"advsentry: error: {tmp_path}: cannot be read: Permission denied\n"


def test_exact_answers_take_any_alpha(capsys: pytest.CaptureFixture[str], folder: Path, bundle_path: Path) -> None:
    arguments = ("--bundle", bundle_path, "--alpha", "0.03", "--reveal", "scores")
    assert run(capsys, "detect", folder / "0.png", *arguments)[0] == 0


def test_what_pillow_thinks_of_a_file_is_not_printed(tmp_path: Path, bundle_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(bad_images.bomb(10_000))  # Pillow warns above 89 million pixels
    arguments = [sys.executable, "-m", "service", "detect", str(tmp_path), "--bundle", str(bundle_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "at most 25000000 pixels" in done.stdout


def test_info_says_what_a_bundle_is(capsys: pytest.CaptureFixture[str], bundle_path: Path) -> None:
    status, out, _ = run(capsys, "info", bundle_path)
    assert status == 0
    for fact in ("tiny, version 1", "8 x 8 x 1", "the image is brighter", "linf, eps 0.1", "0.00334", "299"):
        assert fact in out
    _, out, _ = run(capsys, "info", bundle_path, "--json")
    assert json.loads(out)["smallest_alpha"] == pytest.approx(1 / 300)


def test_info_says_whether_other_sizes_are_taken(
    capsys: pytest.CaptureFixture[str], bundle_path: Path, resizing_path: Path
) -> None:
    for path, says, takes in (
        (bundle_path, "other sizes     refused", False),
        (resizing_path, "other sizes     taken, stretched to 8 x 8, antialiased", True),
    ):
        assert says in run(capsys, "info", path)[1]
        assert json.loads(run(capsys, "info", path, "--json")[1])["takes_other_sizes"] is takes


def test_a_photograph_is_resized_only_by_a_bundle_that_can(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, bundle_path: Path, resizing_path: Path
) -> None:
    large = Image.fromarray(tiny.images(1)[0, :, :, 0]).resize((40, 24), Image.Resampling.NEAREST)
    large.save(tmp_path / "photo.png")
    status, out, _ = run(capsys, "detect", tmp_path / "photo.png", "--bundle", resizing_path, "--json")
    assert (status, json.loads(out).keys()) == (0, {"image", *Detection.__dataclass_fields__})
    status, out, _ = run(capsys, "detect", tmp_path / "photo.png", "--bundle", bundle_path, "--json")
    assert status == 1
    assert json.loads(out) == {
        "image": str(tmp_path / "photo.png"),
        "error": "the model wants 8 x 8 grey (1 channel) (height x width), got 24 x 40 grey (1 channel); "
        f"--bundle: expected one for such images, got {bundle_path}",
        "reason": "WRONG_SIZE",
    }


def test_a_disk_that_is_full_is_one_line() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        arguments = [sys.executable, "-m", "service", "info", "digits"]
        done = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert done.stderr == "advsentry: error: standard output cannot be written: No space left on device\n"


def test_health_has_its_exit_status(capsys: pytest.CaptureFixture[str], server: Running) -> None:
    assert run(capsys, "health", "--target", server.ports.grpc)[:2] == (0, "SERVING\n")
    status, out, err = run(capsys, "health", "--target", "127.0.0.1:1")
    assert (status, out) == (1, "NOT_SERVING\n")
    assert err == "advsentry: error: no server answers at 127.0.0.1:1; start one with `advsentry serve`\n"
    status, out, err = run(capsys, "health", "--target", server.ports.grpc, "--service", "nope")
    assert (status, out, err) == (1, "NOT_SERVING\n", "advsentry: error: unknown service 'nope'\n")


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("advsentry 0.")


@pytest.mark.parametrize("command", ["serve", "tune"])
def test_two_onnxruntimes_are_refused(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Package:
        def __init__(self, name: str) -> None:
            self.name = name

    both = [Package("onnxruntime"), Package("onnxruntime-gpu")]
    monkeypatch.setattr(serve.importlib.metadata, "distributions", lambda: both)
    status, _, err = run(capsys, command)
    assert status == 1
    assert "both onnxruntime and onnxruntime-gpu are installed" in err


@pytest.mark.parametrize(
    ("line", "cut"),
    [
        ("--vers info digits", "--vers"),
        ("serve --por 50052", "--por 50052"),
        ("serve --thread 3", "--thread 3"),
        ("detect x.png --targ host:1", "--targ host:1"),
        ("score in --out x --bundle digits --top", "--top"),
        ("info digits --js", "--js"),
        ("token new somebody --day 3", "--day 3"),
        ("health --targ host:1", "--targ host:1"),
        ("tune --sec 1", "--sec 1"),
        ("reload --adm http://host:1", "--adm http://host:1"),
        ("history --js", "--js"),
        ("history forgive somebody --adm http://host:1", "--adm http://host:1"),
    ],
)
def test_a_flag_cut_short_is_an_unknown_one(line: str, cut: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(line.split())
    assert caught.value.code == 2
    assert capsys.readouterr().err.endswith(f"advsentry: error: unrecognized arguments: {cut}\n")


def test_no_help_names_what_only_the_supervisor_starts(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["nonsense"]):
        with pytest.raises(SystemExit):
            main(words)
    out, err = capsys.readouterr()
    assert "serve" in out
    assert "choose from" in err
    assert "worker" not in out + err


@pytest.mark.parametrize(("given", "threads"), [({}, 1), ({"OPENBLAS_NUM_THREADS": "2"}, min(2, os.cpu_count() or 1))])
def test_small_matrices_are_multiplied_in_one_thread_unless_the_operator_wants_more(
    given: dict[str, str], threads: int
) -> None:
    code = (
        "from threadpoolctl import threadpool_info\n"
        "from service.__main__ import main\n"
        "assert main(['info', 'digits', '--json']) == 0\n"
        "print([pool['num_threads'] for pool in threadpool_info() if pool['user_api'] == 'blas'])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment | given
    )
    assert done.stdout.splitlines()[-1] == str([threads])
