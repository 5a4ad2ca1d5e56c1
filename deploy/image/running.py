"""Runs the image's own command: as buildah's container, and with a root that nobody can write to."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.image.building import Buildah
from deploy.image.layers import Image
from service.client import Client
from service.detection.engine import Engine, is_right
from service.errors import SetupError

__all__ = ["Answers", "Container", "ask", "confined", "contained"]

READY = re.compile(r"serving grpc=\S+:(\d+) metrics=\S+:(\d+) health=\S+:(\d+)")
ENDS_S = 60.0
SHELLS = ("dash", "bash")


@dataclass(frozen=True, kw_only=True)
class Container:
    """A server that runs in the image."""

    process: "subprocess.Popen[str]"
    target: str
    metrics: str

    @property
    def server(self) -> int:
        """The process that serves: the last of the line that begins with ours."""
        found = self.process.pid
        while children := _children(found):
            found = children[0]
        return found

    def status(self, name: str) -> str:
        """A line of what the kernel says of the server, such as `Uid` or `CapEff`."""
        text = Path(f"/proc/{self.server}/status").read_text(encoding="ascii")
        return next(line.partition(":")[2].split()[0] for line in text.splitlines() if line.startswith(f"{name}:"))

    @property
    def may_write_root(self) -> bool:
        """Whether the server's root is mounted to be written."""
        mounts = Path(f"/proc/{self.server}/mountinfo").read_text(encoding="utf-8").splitlines()
        roots = [fields[5].split(",") for line in mounts if (fields := line.split())[4] == "/"]
        return "ro" not in roots[-1]

    def end(self) -> int:
        """Sends SIGTERM to the server; gives the exit status of the container."""
        os.kill(self.server, signal.SIGTERM)
        return self.process.wait(ENDS_S)


@contextlib.contextmanager
def _running(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[Container]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            found = READY.search(process.stdout.readline())
            if found is None:
                raise SetupError("the image's server did not start; its own message stands above")
            yield Container(
                process=process,
                target=f"127.0.0.1:{found[1]}",
                metrics=f"127.0.0.1:{found[2]}",
            )
        finally:
            if process.poll() is None:
                _kill_family(process.pid)


def _children(pid: int) -> list[int]:
    """Of any of its threads; none of a process that has ended."""
    with contextlib.suppress(OSError):
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        return [int(child) for task in tasks for child in task.read_text(encoding="ascii").split()]
    return []


def _kill_family(pid: int) -> None:
    for child in _children(pid):
        _kill_family(child)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def contained(buildah: Buildah, name: str, image: Image) -> Iterator[tuple[Container, Callable[[], str]]]:
    """The entry point and the arguments of the image, by `buildah run --isolation=chroot`, as the image's user.

    Gives also its health check, which runs beside it in the same way and gives what it printed.
    """
    container = buildah.run("from", "--pull-never", name)
    run = ("run", "--isolation=chroot", container, "--")
    words = [*image.config["Entrypoint"], *image.config["Cmd"]]
    probe = image.config["Healthcheck"]["Test"][1:]
    try:
        with _running(buildah.command(*run, *words)) as made:
            yield made, lambda: buildah.run(*run, *probe)
    finally:
        buildah.run("rm", container)


@contextlib.contextmanager
def confined(buildah: Buildah, name: str, image: Image, bundle: Path) -> Iterator[Container]:
    """The same with a root that is read-only, /tmp in memory, no shell, no privilege to gain, and one's own bundle.

    The bundle is mounted at /mnt.
    """
    container = buildah.run("from", "--pull-never", name)
    root = buildah.run("mount", container)
    user = image.config["User"]
    shells = [path for name in SHELLS if (path := Path(root, "usr/bin", name)).is_file()]
    mounts = [
        f"mount --bind {shlex.quote(root)} {shlex.quote(root)}",
        f"mount --bind {shlex.quote(str(bundle.resolve()))} {shlex.quote(root)}/mnt",
        f"mount --rbind /dev {shlex.quote(root)}/dev",
        f"mount -t proc proc {shlex.quote(root)}/proc",
        f"mount -t tmpfs tmpfs {shlex.quote(root)}/tmp",
        *(f"mount --bind /dev/null {shlex.quote(str(shell))}" for shell in shells),
        f"mount -o remount,bind,ro {shlex.quote(root)}/mnt",
        f"mount -o remount,bind,ro {shlex.quote(root)}",
    ]
    words = [*image.config["Entrypoint"], *image.config["Cmd"], "--bundle", "/mnt"]
    inside = f"exec setpriv --no-new-privs chroot --userspec={user} --groups= {shlex.quote(root)} {shlex.join(words)}"
    script = " && ".join([*mounts, inside])
    environment = dict(entry.split("=", 1) for entry in image.config["Env"])
    outside = ["env", f"PATH={environment['PATH']}:/usr/sbin:/sbin", "unshare", "--mount", "sh", "-c", script]
    try:
        with _running(outside, environment) as made:
            yield made
    finally:
        buildah.run("umount", container)
        buildah.run("rm", container)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a server gave back."""

    wrong: int
    """Of the bundle's known images, those with another answer than was written down at its export."""
    asked: int
    series: int
    """On the page of metrics."""
    is_ready: bool


def ask(container: Container, bundle: Path) -> Answers:
    """Sends the known images of a bundle from outside by gRPC, and reads the metrics by HTTP."""
    known = Engine.load(bundle, threads=1).canaries()
    with Client(container.target, timeout_s=30.0) as client:
        wrong = sum(not is_right(canary, client.detect(image)) for canary, image in known)
    with urllib.request.urlopen(f"http://{container.metrics}/metrics", timeout=10) as answer:
        lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return Answers(wrong=wrong, asked=len(known), series=len(lines), is_ready="advsentry_ready 1.0" in lines)
