"""What the Open Inference Protocol's callers do wrong, and what they are told."""

import time
from collections.abc import Iterator

import grpc
import pytest

from protos import inference as pb
from service.detection.engine import Engine
from tests import tiny
from tests.service import bad_images, oip
from tests.service.rpc.test_errors_on_the_wire import failure, field
from tests.service.running import Running, running

CODE = grpc.StatusCode
ABOUT_A_MODEL = ("ModelMetadata", "ModelConfig", "ModelStatistics")
IMAGES = tiny.images(3)
Tensor, Wanted = oip.Tensor, oip.Wanted


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Running]:
    with running(engine, max_batch_items=32, canary_s=100.0) as made:
        yield made


def tensor(**fields: object) -> Tensor:
    return Tensor(**{"name": "images", "datatype": "UINT8", "shape": [1, 8, 8, 1], **fields})  # type: ignore[arg-type]


def shaped(*shape: int, datatype: str = "UINT8", size: int = 64) -> pb.ModelInferRequest:
    made = tensor(shape=shape, datatype=datatype)
    return pb.ModelInferRequest(model_name="advsentry", inputs=[made], raw_input_contents=[b"\0" * size])


def typed(shape: list[int], datatype: str, **contents: object) -> pb.ModelInferRequest:
    made = tensor(shape=shape, datatype=datatype, contents=pb.InferTensorContents(**contents))  # type: ignore[arg-type]
    return pb.ModelInferRequest(model_name="advsentry", inputs=[made])


def raw_files(raw: bytes, count: int) -> pb.ModelInferRequest:
    made = tensor(shape=[count], datatype="BYTES")
    return pb.ModelInferRequest(model_name="advsentry", inputs=[made], raw_input_contents=[raw])


def parameter(name: str, **value: object) -> pb.ModelInferRequest:
    return oip.pixels(IMAGES, parameters={name: pb.InferParameter(**value)})  # type: ignore[arg-type]


ONE = oip.pixels(IMAGES[:1])
WITH_BOTH = pb.ModelInferRequest(
    model_name="advsentry", inputs=[tensor(contents=pb.InferTensorContents())], raw_input_contents=[b"\0" * 64]
)
BAD = {
    "no input": (pb.ModelInferRequest(model_name="advsentry"), "expected one, 'images', got none"),
    "another input": (
        pb.ModelInferRequest(model_name="advsentry", inputs=[tensor(name="x")]),
        "expected one, 'images', got 'x'",
    ),
    "two inputs": (pb.ModelInferRequest(model_name="advsentry", inputs=[tensor(), tensor()]), "got 'images', 'images'"),
    "floats": (shaped(1, 8, 8, 1, datatype="FP32"), "expected UINT8 .pixels. or BYTES .encoded files., got 'FP32'"),
    "three axes": (shaped(1, 8, 8), "expected .n, height, width, channels. of UINT8"),
    "five axes": (shaped(1, 8, 8, 1, 1), "expected .n, height, width, channels. of UINT8"),
    "files of two axes": (shaped(1, 1, datatype="BYTES"), "expected .n. of BYTES"),
    "no images": (shaped(0, 8, 8, 1, size=1), "expected 1 to 32 images, got 0"),
    "less than none": (shaped(-1, 8, 8, 1), "expected 1 to 32 images, got -1"),
    "too many images": (shaped(33, 8, 8, 1), "expected 1 to 32 images, got 33"),
    "no height": (shaped(1, 0, 8, 1, size=1), "height, width and channels of 1 or more"),
    "astronomic": (shaped(1, 2**62, 2**62, 2**62), "expected 1 x .* bytes, got 64"),
    "too short": (shaped(1, 8, 8, 1, size=63), "expected 1 x 8 x 8 x 1 = 64 bytes, got 63"),
    "too long": (shaped(1, 8, 8, 1, size=65), "= 64 bytes, got 65"),
    "another size": (shaped(1, 4, 16, 1), r"images\[0\]: the model wants 8 x 8 grey .*, got 4 x 16 x 1"),
    "two raw entries": (
        pb.ModelInferRequest(model_name="advsentry", inputs=[tensor()], raw_input_contents=[b"x", b"y"]),
        "expected 1 entry, as there is 1 input, got 2",
    ),
    "raw and typed": (WITH_BOTH, "contents: expected to be unset where raw_input_contents is used"),
    "neither": (pb.ModelInferRequest(model_name="advsentry", inputs=[tensor()]), "= 64 uint_contents, got 0"),
    "too few numbers": (typed([1, 8, 8, 1], "UINT8", uint_contents=[0] * 63), "= 64 uint_contents, got 63"),
    "numbers above 255": (
        typed([2, 8, 8, 1], "UINT8", uint_contents=[0] * 127 + [256]),
        r"images\[1\]: .*numbers from 0 to 255",
    ),
    "numbers of another field": (
        typed([1, 8, 8, 1], "UINT8", int_contents=[0] * 64),
        "expected uint_contents of UINT8, got int_contents",
    ),
    "files of another field": (typed([1], "BYTES", uint_contents=[0]), "expected bytes_contents of BYTES, got uint"),
    "too few files": (typed([2], "BYTES", bytes_contents=[b"x"]), "expected 2 elements, as shape says, got 1"),
    "files cut short": (raw_files(oip.strings([b"xy"])[:-1], 1), "cut short or too many"),
    "files without end": (raw_files(b"\xff\xff\xff\xff" + b"x" * 9, 1), "cut short or too many"),
    "files too many": (raw_files(oip.strings([b"xy", b"z"]), 1), "cut short or too many"),
    "no file": (raw_files(oip.strings([b""]), 1), r"images\[0\]: expected an encoded or raw image, got no bytes"),
    "shared memory": (
        pb.ModelInferRequest(
            model_name="advsentry",
            inputs=[tensor(parameters={"shared_memory_region": pb.InferParameter(string_param="x")})],
        ),
        "shared memory and classification are not served",
    ),
    "classification": (
        oip.pixels(
            IMAGES, outputs=[Wanted(name="label", parameters={"classification": pb.InferParameter(int64_param=2)})]
        ),
        "shared memory and classification are not served",
    ),
    "unknown output": (oip.pixels(IMAGES, outputs=[Wanted(name="x")]), "expected some of label, probabilities, .*'x'"),
    "rate as text": (parameter("target_fpr", string_param="0.01"), "expected target_fpr to be a double, got string_p"),
    "rate as a number": (parameter("target_fpr", int64_param=1), "expected target_fpr to be a double, got int64_param"),
    "rate of nothing": (parameter("target_fpr"), "expected target_fpr to be a double, got nothing"),
    "rate that is none": (parameter("target_fpr", double_param=float("nan")), "got nan"),
    "rate that is no step": (parameter("target_fpr", double_param=0.03), r"expected one of 0\.005, 0\.01"),
    "priority below 0": (parameter("priority", int64_param=-1), "expected priority to be a whole number of 0 or more"),
    "priority as text": (parameter("priority", string_param="1"), "expected priority to be a whole number"),
    "timeout below 0": (parameter("timeout", int64_param=-1), "expected timeout to be a whole number of 0 or more"),
    "unknown parameter": (parameter("target_fpt", double_param=0.01), "known are target_fpr .*, got 'target_fpt'"),
    "long id": (oip.pixels(IMAGES, id="x" * 129), "id: expected at most 128 bytes, got 129"),
}


@pytest.mark.parametrize(("request_", "says"), BAD.values(), ids=BAD.keys())
def test_what_the_caller_does_wrong_is_told(server: Running, request_: pb.ModelInferRequest, says: str) -> None:
    oip.fails(server.channel, "ModelInfer", request_, CODE.INVALID_ARGUMENT, says)
    assert oip.infer(server.channel, ONE).outputs


FIELDS = {
    "no input": "inputs",
    "floats": "inputs[0].datatype",
    "three axes": "inputs[0].shape",
    "too many images": "inputs[0].shape",
    "too short": "raw_input_contents[0]",
    "another size": "inputs[0]",
    "two raw entries": "raw_input_contents",
    "raw and typed": "inputs[0].contents",
    "numbers above 255": "inputs[0]",
    "files cut short": "raw_input_contents[0]",
    "shared memory": "inputs[0].parameters",
    "classification": "outputs[0].parameters",
    "unknown output": "outputs[0].name",
    "rate as text": "parameters[target_fpr]",
    "rate that is no step": "parameters[target_fpr]",
    "unknown parameter": "parameters[target_fpt]",
    "long id": "id",
}


@pytest.mark.parametrize(("case", "expected"), FIELDS.items(), ids=FIELDS.keys())
def test_programs_are_told_the_field_at_fault(server: Running, case: str, expected: str) -> None:
    call = server.channel.unary_unary(f"/{oip.SERVICE}/ModelInfer")
    assert field(failure(call, BAD[case][0].SerializeToString())) == expected


@pytest.mark.parametrize("name", ["", "digits", "advsentry2"])
def test_a_model_that_is_not_here(server: Running, name: str) -> None:
    oip.fails(
        server.channel,
        "ModelInfer",
        oip.pixels(IMAGES, model_name=name),
        CODE.NOT_FOUND,
        "'advsentry', also called 'tiny'",
    )
    for method in ABOUT_A_MODEL[: 2 if name == "" else 3]:
        request = pb.ModelMetadataRequest(name=name)
        oip.fails(server.channel, method, request, CODE.NOT_FOUND, "'advsentry', also called 'tiny'")
    assert not oip.tell(server.channel, "ModelReady", name=name).ready


def test_a_version_that_is_not_here(server: Running) -> None:
    oip.fails(server.channel, "ModelInfer", oip.pixels(IMAGES, model_version="2"), CODE.NOT_FOUND, "not '2'")
    for method in ABOUT_A_MODEL:
        oip.fails(
            server.channel, method, pb.ModelMetadataRequest(name="advsentry", version="2"), CODE.NOT_FOUND, "not '2'"
        )
    assert not oip.tell(server.channel, "ModelReady", name="advsentry", version="2").ready
    assert oip.tell(server.channel, "ModelReady", name="advsentry", version="1").ready


def test_a_bad_image_fails_its_request_by_its_index_and_all_its_images_count(server: Running) -> None:
    case = bad_images.CASES[0]
    before = server.value("advsentry_image_errors_total", reason=case.reason)
    good = oip.png(IMAGES[0])
    trailers = oip.fails(
        server.channel,
        "ModelInfer",
        oip.files([good, good, case.data]),
        CODE.INVALID_ARGUMENT,
        rf"images\[2\]: .*{case.says}",
    )
    assert trailers["x-advsentry-reason"] == case.reason
    assert server.value("advsentry_image_errors_total", reason=case.reason) == before + 3


@pytest.mark.parametrize("method", [*oip.METHODS, "ModelInfer"])
def test_bytes_that_are_no_message_are_the_callers_fault(server: Running, method: str) -> None:
    oip.fails(server.channel, method, b"\xff\xff garbage", CODE.INVALID_ARGUMENT, "expected one inference")


def test_an_unknown_method_of_triton_is_unimplemented(server: Running) -> None:
    oip.fails(server.channel, "RepositoryIndex", b"", CODE.UNIMPLEMENTED, "found")


@pytest.mark.parametrize(
    "field", [b"\x2a\x00", b"\x32\x00", b"\x3a\x00", b"\x22\x00", b"\x2b\x2c"], ids=["in", "out", "raw", "map", "group"]
)
def test_a_request_of_millions_of_fields_is_refused_unparsed(server: Running, field: bytes) -> None:
    since = time.monotonic()
    oip.fails(server.channel, "ModelInfer", field * (8 * 2**20 - 100), CODE.INVALID_ARGUMENT, "got far more fields")
    assert time.monotonic() - since < 5  # parsed, the first takes 25 s and 800 MB


def test_a_tensor_of_millions_of_files_is_refused_unparsed(server: Running) -> None:
    inner = b"\x2a\x80\x80\x80\x06" + b"\x42\x00" * (3 * 2**21)  # contents of 12 MiB
    data = b"\x2a\x85\x80\x80\x06" + inner
    oip.fails(server.channel, "ModelInfer", data, CODE.INVALID_ARGUMENT, "got far more fields")
