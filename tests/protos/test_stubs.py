"""The committed stubs are those that protoc makes of the committed source."""

from pathlib import Path

import pytest
from grpc_tools import protoc

ROOT = Path(__file__).parent.parent.parent
STUBS = ("detection_pb2.py", "detection_pb2.pyi", "detection_pb2_grpc.py")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stubs")
    known = Path(protoc.__file__).parent / "_proto"  # google/protobuf/*.proto
    arguments = [
        "protoc",
        f"-I{ROOT}",
        f"-I{known}",
        f"--python_out={out}",
        f"--pyi_out={out}",
        f"--grpc_python_out={out}",
    ]
    assert protoc.main([*arguments, str(ROOT / "protos" / "detection.proto")]) == 0
    return out / "protos"


@pytest.mark.parametrize("name", STUBS)
def test_the_committed_stub_is_what_protoc_makes(made: Path, name: str) -> None:
    assert (made / name).read_text() == (ROOT / "protos" / name).read_text(), "run `make protos`"
