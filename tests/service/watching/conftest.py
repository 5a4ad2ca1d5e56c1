from pathlib import Path

import pytest

from tests.service.watching.world import FRIEND, GUEST, Scripted


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("watching") / "identities.toml"
    path.write_text(GUEST.entry + FRIEND.entry)
    return str(path)


@pytest.fixture
def history() -> Scripted:
    return Scripted()
