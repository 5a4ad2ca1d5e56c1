"""Reflection as grpcurl uses it: list the services, then find the file of each, and of each message that it needs."""

from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from protos import inference
from service.detection.engine import Engine
from tests.service.running import Running, running

METHODS = {
    "advsentry.v1.DetectorService": {"Detect", "BatchDetect", "StreamDetect", "GetModelInfo"},
    "inference.GRPCInferenceService": {
        "ServerLive",
        "ServerReady",
        "ModelReady",
        "ServerMetadata",
        "ModelMetadata",
        "ModelInfer",
        "ModelStreamInfer",
        "ModelConfig",
        "ModelStatistics",
    },
    "grpc.health.v1.Health": {"Check", "Watch"},
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo"},
}


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Running]:
    with running(engine, canary_s=100.0) as made:
        yield made


@pytest.fixture(scope="module")
def reflected(server: Running) -> ProtoReflectionDescriptorDatabase:
    return ProtoReflectionDescriptorDatabase(server.channel)


def test_every_service_is_listed(reflected: ProtoReflectionDescriptorDatabase) -> None:
    assert set(reflected.get_services()) == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_every_service_is_described_with_all_that_it_needs(
    reflected: ProtoReflectionDescriptorDatabase, name: str
) -> None:
    service = DescriptorPool(reflected).FindServiceByName(name)
    assert {method.name for method in service.methods} == METHODS[name]
    for method in service.methods:
        GetMessageClass(method.input_type)()
        GetMessageClass(method.output_type)()


@pytest.mark.parametrize("file", ["protos/inference.proto", "protos/detection.proto"])
def test_a_file_is_found_by_its_name(reflected: ProtoReflectionDescriptorDatabase, file: str) -> None:
    assert DescriptorPool(reflected).FindFileByName(file).name == file


def test_a_call_can_be_made_from_reflection_alone(
    server: Running, reflected: ProtoReflectionDescriptorDatabase
) -> None:
    service = DescriptorPool(reflected).FindServiceByName("inference.GRPCInferenceService")
    method = service.methods_by_name["ModelMetadata"]
    request = GetMessageClass(method.input_type)(name="advsentry")
    call = server.channel.unary_unary(f"/{service.full_name}/{method.name}")
    answer = GetMessageClass(method.output_type).FromString(call(request.SerializeToString()))
    assert answer.inputs[0].name == "images"


def test_what_is_not_there_is_not_found(reflected: ProtoReflectionDescriptorDatabase) -> None:
    with pytest.raises(KeyError):
        DescriptorPool(reflected).FindServiceByName("inference.Nothing")


def test_without_reflection_nothing_is_told(engine: Engine) -> None:
    with running(engine, reflection=False, canary_s=100.0) as server, pytest.raises(grpc.RpcError) as caught:
        ProtoReflectionDescriptorDatabase(server.channel).get_services()
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_every_method_of_the_contract_is_served(server: Running) -> None:
    for method in inference.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
        call = server.channel.unary_unary(f"/inference.GRPCInferenceService/{method.name}").future(b"\xff")
        assert call.code() is grpc.StatusCode.INVALID_ARGUMENT
