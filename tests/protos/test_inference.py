"""Our descriptors of the Open Inference Protocol against those of Triton's client, in one process with them."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

SCRIPT = """
from google.protobuf import descriptor_pool
from protos import inference
from tritonclient.grpc import model_config_pb2, service_pb2

UNKNOWN_TO_TRITON = {"properties"}  # of ModelMetadataResponse; its client skips what it does not know


def compare(ours, theirs):
    for field in ours.fields:
        if field.name in UNKNOWN_TO_TRITON:
            continue
        known = theirs.fields_by_name[field.name]
        assert (field.number, field.type, field.is_repeated) == (known.number, known.type, known.is_repeated), field
        if field.message_type is not None:
            assert field.message_type.full_name == known.message_type.full_name
    for nested in ours.nested_types:
        if nested.name != "PropertiesEntry":
            compare(nested, theirs.nested_types_by_name[nested.name])


theirs = {**model_config_pb2.DESCRIPTOR.message_types_by_name, **service_pb2.DESCRIPTOR.message_types_by_name}
compared = 0
for name, ours in inference.DESCRIPTOR.message_types_by_name.items():
    compare(ours, theirs[name])
    compared += 1
numbers = {value.name: value.number for value in model_config_pb2.DataType.DESCRIPTOR.values}
assert numbers == dict(inference.DataType.items())
service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
for method in inference.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
    known = service.methods_by_name[method.name]
    assert method.input_type.full_name == known.input_type.full_name
    assert method.output_type.full_name == known.output_type.full_name
    assert (method.client_streaming, method.server_streaming) == (known.client_streaming, known.server_streaming)
assert inference.DESCRIPTOR.pool is not descriptor_pool.Default()
assert service_pb2.ModelInferRequest is not inference.ModelInferRequest
print(compared)
"""


def test_the_contract_is_tritons_and_bears_its_client_in_the_same_process() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 25
