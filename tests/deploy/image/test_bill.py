"""The image's bill names what dpkg and pip put there, in every layer, and is valid CycloneDX."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.validation.json import JsonStrictValidator

from deploy.image.bill import Debian, Installed, bill, installed_in
from deploy.sbom import SCHEMA
from service.errors import SetupError
from tests.deploy.image.test_layers import layer

STATUS = b"""Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc
Version: 2.36-9
Description: more than
 one line
 Package: not-one

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: bash
Status: install ok installed
Architecture: amd64
Source: bash (5.2.15-2)
Version: 5.2.15-2+b2

Package: adduser
Status: install ok installed
Architecture: all
Version: 3.134
"""
ADDUSER = Debian(name="adduser", version="3.134", architecture="all", source="")
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def found(tmp_path: Path) -> Installed:
    return installed_in(
        (
            layer(tmp_path / "base", "var/lib/dpkg/status", STATUS),
            layer(tmp_path / "release", "usr/lib/os-release", b'ID=debian\nVERSION_ID="12"\n'),
            layer(tmp_path / "own", "opt/venv/lib/python3.11/site-packages/Prometheus_client-1.2.dist-info/METADATA"),
        )
    )


def test_what_is_installed_is_found_with_the_source_that_vulnerabilities_are_listed_by(found: Installed) -> None:
    assert found.debian == (
        ADDUSER,
        Debian(name="bash", version="5.2.15-2+b2", architecture="amd64", source="bash@5.2.15-2"),
        Debian(name="libc6", version="2.36-9", architecture="amd64", source="glibc@2.36-9"),
    )
    assert found.python == (("prometheus-client", "1.2"),)
    assert found.release == {"ID": "debian", "VERSION_ID": "12"}


def test_a_higher_layer_replaces_the_list_of_a_lower_one(tmp_path: Path) -> None:
    newer = STATUS.replace(b"3.134", b"3.135")
    layers = [layer(tmp_path / name, "var/lib/dpkg/status", text) for name, text in (("a", STATUS), ("b", newer))]
    assert [one.version for one in installed_in(tuple(layers)).debian if one.name == "adduser"] == ["3.135"]


def test_an_image_without_dpkg_has_a_list_for_each_package(tmp_path: Path) -> None:
    one = b"Package: adduser\nArchitecture: all\nVersion: 3.134\n"
    layers = (
        layer(tmp_path / "a", "./var/lib/dpkg/status.d/adduser", one),
        layer(tmp_path / "b", "./var/lib/dpkg/status.d/adduser.md5sums", b"0  usr/bin/adduser\n"),
    )
    assert installed_in(layers).debian == (ADDUSER,)


def test_a_base_that_lists_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="list its packages in var/lib/dpkg"):
        installed_in((layer(tmp_path / "a", "lib/apk/db/installed"),))


def test_the_bill_is_valid_and_names_all_of_it(found: Installed) -> None:
    text = bill("advsentry-cpu", found, MOMENT)
    assert JsonStrictValidator(SCHEMA).validate_str(text) is None
    made: dict[str, Any] = json.loads(text)
    assert {one.get("purl") for one in made["components"]} == {
        None,  # the distribution itself
        "pkg:deb/debian/adduser@3.134?arch=all&distro=debian-12",
        "pkg:deb/debian/bash@5.2.15-2%2Bb2?arch=amd64&distro=debian-12&upstream=bash%405.2.15-2",
        "pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12&upstream=glibc%402.36-9",
        "pkg:pypi/prometheus-client@1.2",
    }
    assert text == bill("advsentry-cpu", found, MOMENT)
