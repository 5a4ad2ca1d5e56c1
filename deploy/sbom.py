"""The software bill of materials of constraints.txt and of the GPU image's further pins, in CycloneDX: `make sbom`.

    python -m deploy.sbom --out dist/advsentry.cdx.json

Every pinned package is a component: `required` where the service needs it, else `optional`, with the extras that bring
it. The bundles that ship are components too, each with the SHA-256 of its graph. Licences, and what needs what, are
read from the packages installed here. The same commit gives the same bytes where SOURCE_DATE_EPOCH is set.
"""

import argparse
import hashlib
import importlib.metadata
import os
import sys
import time
import tomllib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service.detection.bundle import SHIPPED, load_bundle
from service.errors import AdvsentryError, SetupError

__all__ = ["EXTRA", "SCHEMA", "bill", "main", "needs", "pins"]

ROOT = Path(__file__).parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
CUDA = ROOT / "deploy" / "image" / "constraints-gpu.txt"
PROJECT = ROOT / "pyproject.toml"
SCHEMA = SchemaVersion.V1_6
EXTRA = "advsentry:extra"
"""Property of a component: an extra of ours that brings it."""
EXTRA_OF_CUDA = "cuda"
"""Its packages are pinned for the image alone: elsewhere NVIDIA's go by the machine. They are seldom installed where
the bill is made, so that nothing is read of them but the pins."""
INSTALLER = "pip"
"""Comes with an environment, not with what is pinned; a tool of `dev` names it all the same."""
LONGEST_LICENCE = 100
"""Characters of a licence's name; what is longer is its text, or a part of it."""


def pins(constraints: str) -> dict[str, str]:
    """Versions by normalised name, of the text of constraints.txt.

    Raises:
        SetupError: a line that is not NAME==VERSION.
    """
    found: dict[str, str] = {}
    for line in (line.split("#")[0].strip() for line in constraints.splitlines()):
        name, is_pinned, version = line.partition("==")
        if is_pinned:
            found[canonicalize_name(name)] = version
        elif line:
            raise SetupError(f"constraints.txt: expected NAME==VERSION in each line, got {line!r}")
    return found


def needs(
    first: Iterable[str], pinned: Mapping[str, str], own: Mapping[str, Sequence[str]]
) -> dict[str, frozenset[str]]:
    """Every package that these requirements bring on this platform, and what each of them needs itself.

    Args:
        first: requirements, as pyproject.toml has them.
        pinned: as of `pins`.
        own: the requirements of our extras.

    Raises:
        SetupError: a package is not pinned, or not installed.
    """
    found: dict[str, frozenset[str]] = {}
    waiting = [Requirement(text) for text in first if _applies(Requirement(text), {""})]
    seen = set[tuple[str, frozenset[str]]]()
    while waiting:
        wanted = waiting.pop()
        name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        if name == "advsentry":
            inner = [Requirement(text) for extra in extras for text in own[extra]]
            waiting += [one for one in inner if _applies(one, {""})]
            continue
        if name not in pinned:
            raise SetupError(f"{name} is needed and not pinned: add it to constraints.txt")
        direct = [one for one in _requirements(name) if one.name != INSTALLER and _applies(one, extras or {""})]
        found[name] = found.get(name, frozenset()) | {canonicalize_name(one.name) for one in direct}
        waiting += direct
    return found


def _requirements(name: str) -> list[Requirement]:
    try:
        return [Requirement(text) for text in importlib.metadata.requires(name) or ()]
    except importlib.metadata.PackageNotFoundError:
        raise SetupError(f"{name} is needed and not installed: run make setup") from None


def _applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


def bill(constraints: str, cuda: str, project: Mapping[str, Any], moment: datetime) -> str:
    """The bill, as CycloneDX JSON.

    Args:
        constraints: the text of constraints.txt.
        cuda: the text of constraints-gpu.txt.
        project: pyproject.toml, read.
        moment: at which it was made.

    Raises:
        SetupError: as `pins` and `needs`.
        BundleError: a bundle that ships is damaged.
    """
    pinned, table = pins(constraints), project["project"]
    own: Mapping[str, Sequence[str]] = table["optional-dependencies"]
    required = needs(table["dependencies"], pinned, own)
    by_extra = {extra: needs(own[extra], pinned, own) for extra in own if extra != EXTRA_OF_CUDA}
    by_extra[EXTRA_OF_CUDA] = dict.fromkeys(pins(cuda), frozenset())
    components = {
        name: Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=f"{name}@{version}",
            purl=PackageURL("pypi", None, name, version),
            scope=ComponentScope.REQUIRED if name in required else ComponentScope.OPTIONAL,
            licenses=_licences(name),
            properties=[Property(name=EXTRA, value=extra) for extra, brought in by_extra.items() if name in brought],
        )
        for name, version in {**pinned, **pins(cuda)}.items()
    }
    models = _models()
    us = Component(
        name="advsentry",
        version=table["version"],
        type=ComponentType.APPLICATION,
        bom_ref=f"advsentry@{table['version']}",
        purl=PackageURL("pypi", None, "advsentry", table["version"]),
        licenses=[LicenseFactory().make_from_string(table["license"])],
    )
    bom = Bom(
        components=[*components.values(), *models],
        metadata=BomMetaData(component=us, timestamp=moment),
        serial_number=_serial(us, constraints + cuda),
    )
    direct = {canonicalize_name(Requirement(text).name) for text in table["dependencies"]} & required.keys()
    bom.register_dependency(us, [*(components[name] for name in direct), *models])
    for brought in (required, *by_extra.values()):
        for name, after in brought.items():
            bom.register_dependency(components[name], [components[one] for one in after])
    return make_outputter(bom, OutputFormat.JSON, SCHEMA).output_as_string(indent=2) + "\n"


def _licences(name: str) -> list[License]:
    """As the package declares it, by a name or else by classifiers; none where it does neither, or is not here."""
    try:
        fields = importlib.metadata.metadata(name).json
    except importlib.metadata.PackageNotFoundError:
        return []
    words = str(fields.get("license_expression") or fields.get("license") or "").strip()
    if not words or len(words) > LONGEST_LICENCE or "\n" in words or words == "UNKNOWN":
        kinds = [one for one in fields.get("classifier") or () if one.startswith("License :: ")]
        words = ", ".join(one.rpartition(" :: ")[2] for one in kinds)
    return [LicenseFactory().make_from_string(words)] if words else []


def _models() -> list[Component]:
    manifests = [load_bundle(path).manifest for path in sorted(SHIPPED.iterdir()) if path.is_dir()]
    return [
        Component(
            name=manifest.name,
            version=manifest.version,
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref=f"bundle:{manifest.name}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=manifest.files["model.onnx"].sha256)],
        )
        for manifest in manifests
    ]


def _serial(us: Component, pinned: str) -> uuid.UUID:
    digest = hashlib.sha256(pinned.encode()).hexdigest()
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{us.purl} {digest}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the bill; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.sbom", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    options = parser.parse_args(arguments)
    moment = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())), UTC)
    try:
        pinned, cuda = CONSTRAINTS.read_text("utf-8"), CUDA.read_text("utf-8")
        text = bill(pinned, cuda, tomllib.loads(PROJECT.read_text("utf-8")), moment)
    except AdvsentryError as error:
        print(f"sbom: error: {error}", file=sys.stderr)
        return 1
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text, "utf-8")
    print(options.out, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
