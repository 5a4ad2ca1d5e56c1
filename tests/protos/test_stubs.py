"""The committed stubs are those that protoc makes of the committed source."""

from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

ROOT = Path(__file__).parent.parent.parent
STUBS = ("detection_pb2.py", "detection_pb2.pyi", "detection_pb2_grpc.py", "inference_pb2.pyi", "inference.binpb")
RENAMED = {"inference_pb2.pyi": "inference.pyi"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stubs")
    known = Path(protoc.__file__).parent / "_proto"  # google/protobuf/*.proto
    (out / "protos").mkdir()
    of_detection = [f"--python_out={out}", f"--grpc_python_out={out}"]
    of_inference = ["--include_imports", f"--descriptor_set_out={out / 'protos' / 'inference.binpb'}"]
    for name, flags in (("detection", of_detection), ("inference", of_inference)):
        arguments = ["protoc", f"-I{ROOT}", f"-I{known}", f"--pyi_out={out}", *flags]
        assert protoc.main([*arguments, str(ROOT / "protos" / f"{name}.proto")]) == 0
    return out / "protos"


@pytest.mark.parametrize("name", STUBS)
def test_the_committed_stub_is_what_protoc_makes(made: Path, name: str) -> None:
    committed = ROOT / "protos" / RENAMED.get(name, name)
    assert (made / name).read_bytes() == committed.read_bytes(), "run `make protos`"


def test_the_descriptors_name_no_path_of_the_machine_that_made_them() -> None:
    files = FileDescriptorSet.FromString((ROOT / "protos" / "inference.binpb").read_bytes()).file
    assert [file.name for file in files] == ["protos/inference.proto"]
