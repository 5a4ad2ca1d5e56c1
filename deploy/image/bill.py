"""The bill of materials of an image, base and all: Debian's packages and Python's, as its own layers list them.

It is what a scanner needs to look up known vulnerabilities, and no scan: which of these versions have one is written in
databases that are not in the image. What was put there by neither dpkg nor pip is not in the bill.
"""

import re
import tarfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.parser import HeaderParser
from pathlib import Path

from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat
from packageurl import PackageURL
from packaging.utils import canonicalize_name

from deploy.image.layers import PACKAGE
from deploy.sbom import SCHEMA
from service.errors import SetupError

__all__ = ["Debian", "Installed", "bill", "installed_in"]

STATUS = re.compile(r"(\./)?var/lib/dpkg/status(\.d/[^/]+)?")
"""dpkg's list, as a whole or, in images without dpkg, a file for each package."""
SUMS = ".md5sums"
"""End of what lies beside them and lists files."""
RELEASE = re.compile(r"(\./)?(usr/lib|etc)/os-release")


@dataclass(frozen=True, kw_only=True, order=True)
class Debian:
    """A package of the base's distribution."""

    name: str
    version: str
    architecture: str
    source: str
    """The source package and its version where they differ: by these vulnerabilities are listed."""


@dataclass(frozen=True, kw_only=True)
class Installed:
    """What is in an image."""

    release: Mapping[str, str]
    """Of os-release: `ID`, `VERSION_ID` and so on; empty where there is none."""
    debian: tuple[Debian, ...]
    python: tuple[tuple[str, str], ...]
    """Names and versions, of ours and of the base's."""


def installed_in(layers: tuple[Path, ...]) -> Installed:
    """Reads the lists of all layers, from the lowest to the highest; a file of a higher one replaces a lower one's.

    Raises:
        SetupError: there is no list of packages: the base is of a distribution that this does not know.
    """
    lists, release = dict[str, str](), dict[str, str]()
    python = set[tuple[str, str]]()
    for layer in layers:
        with tarfile.open(layer) as archive:
            for member in archive:
                if package := PACKAGE.search(member.name):
                    python.add((canonicalize_name(package[1]), package[2]))
                if STATUS.fullmatch(member.name) and not member.name.endswith(SUMS):
                    lists[member.name.removeprefix("./")] = _text(archive, member)
                if RELEASE.fullmatch(member.name) and member.isfile():
                    release = dict(_settings(_text(archive, member)))
    if not lists:
        raise SetupError(
            "expected the base to list its packages in var/lib/dpkg, as Debian's and its kin do; it has no list"
        )
    debian = {package for text in lists.values() for package in _packages(text)}
    return Installed(release=release, debian=tuple(sorted(debian)), python=tuple(sorted(python)))


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    stream = archive.extractfile(member)
    return "" if stream is None else stream.read().decode("utf-8")


def _settings(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, is_set, value = line.partition("=")
        if is_set:
            yield name, value.strip("\"'")


def _packages(text: str) -> Iterator[Debian]:
    for paragraph in text.strip().split("\n\n"):
        fields = HeaderParser().parsestr(paragraph)
        is_there = fields.get("Status", "ok installed").endswith(" installed")  # else removed, and its settings kept
        if is_there and (name := fields.get("Package")):
            source, _, version = fields.get("Source", name).partition(" ")
            own = fields["Version"]
            yield Debian(
                name=name,
                version=own,
                architecture=fields.get("Architecture", ""),
                source=f"{source}@{version.strip('()') or own}" if (source, version) != (name, "") else "",
            )


def bill(name: str, found: Installed, moment: datetime) -> str:
    """The bill, as CycloneDX JSON.

    Args:
        name: of the image.
        found: in it.
        moment: at which it was made.
    """
    base = found.release.get("ID", "debian")
    distro = f"{base}-{found.release.get('VERSION_ID', '')}".rstrip("-")
    components = [_of_debian(package, base, distro) for package in found.debian]
    components += [_component(name, version, PackageURL("pypi", None, name, version)) for name, version in found.python]
    system = Component(
        name=base,
        version=found.release.get("VERSION_ID"),
        type=ComponentType.OPERATING_SYSTEM,
        bom_ref=f"os:{distro}",
    )
    image = Component(name=name, type=ComponentType.CONTAINER, bom_ref=f"image:{name}")
    serial = uuid.uuid5(uuid.NAMESPACE_URL, repr(found))
    bom = Bom(
        components=[system, *components],
        metadata=BomMetaData(component=image, timestamp=moment),
        serial_number=serial,
    )
    bom.register_dependency(image, [system, *components])
    return make_outputter(bom, OutputFormat.JSON, SCHEMA).output_as_string(indent=2) + "\n"


def _of_debian(package: Debian, base: str, distro: str) -> Component:
    qualifiers = {"arch": package.architecture, "distro": distro}
    if package.source:
        qualifiers["upstream"] = package.source
    return _component(package.name, package.version, PackageURL("deb", base, package.name, package.version, qualifiers))


def _component(name: str, version: str, url: PackageURL) -> Component:
    return Component(name=name, version=version, type=ComponentType.LIBRARY, bom_ref=url.to_string(), purl=url)
