"""Builds a base image and ours with buildah, in a storage of their own, without any container engine."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.errors import SetupError

__all__ = ["ROOT", "Buildah", "build_base", "build_image", "mounted_below", "pip_secrets"]

ROOT = Path(__file__).parent.parent.parent
SUITE = "bookworm"
INDEX = ("index-url", "extra-index-url")
MIRROR = "http://deb.debian.org/debian"


@dataclass(frozen=True, kw_only=True)
class Buildah:
    """The program, with a storage that a folder holds."""

    folder: Path

    def command(self, *words: str | Path) -> list[str]:
        """A call of it."""
        storage = ["--root", str(self.folder / "storage"), "--runroot", str(self.folder / "run")]
        return ["buildah", *storage, *map(str, words)]

    def run(self, *words: str | Path) -> str:
        """Runs one call and gives what it printed.

        Raises:
            SetupError: it failed.
        """
        return _output(self.command(*words))

    def release(self) -> None:
        """Takes back the mount that the storage makes of itself, so that its folder can be removed."""
        subprocess.run(["umount", self.folder / "storage" / "overlay"], capture_output=True, check=False)


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SetupError(f"{' '.join([command[0], *command[-6:]])}: exit status {done.returncode}; see above")
    return done.stdout.strip()


def build_base(buildah: Buildah, name: str) -> None:
    """An image of Debian's python3 and its venv module; kept, and made only once.

    Raises:
        SetupError: Debian's packages cannot be had.
    """
    if subprocess.run(buildah.command("inspect", "--type", "image", name), capture_output=True, check=False).returncode:
        root = buildah.folder / "base"
        _unmount(root)  # of a run that was killed
        shutil.rmtree(root, ignore_errors=True)
        packages = "--include=python3,python3-venv"
        _output(["debootstrap", "--variant=minbase", packages, SUITE, str(root), os.environ.get("MIRROR", MIRROR)])
        _unmount(root)  # debootstrap leaves /proc where somebody looks into it at its end
        shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
        container = buildah.run("from", "scratch")
        buildah.run("add", "--quiet", container, root, "/")
        buildah.run("commit", "--quiet", container, name)
        buildah.run("rm", container)
        shutil.rmtree(root)


def mounted_below(folder: Path, mounts: str) -> list[str]:
    """Where something is mounted in a folder, the innermost first.

    Args:
        folder: that is asked about.
        mounts: as of /proc/self/mounts, which writes a blank by its octal number.
    """
    points = [Path(line.split()[1].replace("\\040", " ")) for line in mounts.splitlines()]
    return [str(point) for point in reversed(points) if folder in point.parents]


def _unmount(folder: Path) -> None:
    """Takes away what is mounted in a folder, before the folder is copied or removed.

    Raises:
        SetupError: something stays.
    """
    for point in mounted_below(folder.resolve(), Path("/proc/self/mounts").read_text(encoding="utf-8")):
        _output(["umount", "--lazy", point])


def build_image(buildah: Buildah, name: str, *, target: str, base: str) -> None:
    """Our image.

    Raises:
        SetupError: the build fails.
    """
    secrets = pip_secrets(os.environ, buildah.folder)
    words = [f"--secret=id={name},src={path}" for name, path in secrets.items()]
    # --format docker, since the other has no health check.
    words += ["--isolation=chroot", "--format=docker", f"--build-arg=BASE_IMAGE={base}"]
    buildah.run("bud", *words, "-f", ROOT / "deploy" / "Dockerfile", "--target", target, "-t", name, ROOT)


def pip_secrets(environment: Mapping[str, str], folder: Path) -> dict[str, Path]:
    """Files by the name of their secret: what pip is told on this machine, as far as it holds in a build too.

    Args:
        environment: PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, and PIP_CERT or SSL_CERT_FILE count.
        folder: for a file with a password, maybe: nobody else may read it.
    """
    given = {name: environment.get("PIP_" + name.upper().replace("-", "_")) for name in INDEX}
    lines = ["[global]", *(f"{name} = {value}" for name, value in given.items() if value)]
    secrets = {"pip": folder / "pip.conf"}
    if roots := environment.get("PIP_CERT") or environment.get("SSL_CERT_FILE"):
        lines.append("cert = /run/secrets/ca")
        secrets["ca"] = Path(roots)
    secrets["pip"].touch(mode=0o600)
    secrets["pip"].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return secrets
