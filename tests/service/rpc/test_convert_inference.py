"""Whatever bytes come, reading a ModelInferRequest gives a request or the caller's error."""

import contextlib
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as some

from protos import inference as pb
from service.detection.verdict import RevealMode
from service.errors import InvalidRequest, PermissionRefused, UnknownModel
from service.rpc import convert_inference as convert
from service.rpc import inference_facts as facts
from service.rpc.inference_outputs import outputs_of
from tests import tiny
from tests.service import oip

MOST = 8
MANIFEST = tiny.manifest({})
LOADED = settings(deadline=None)  # other tests run beside these
CALLERS_FAULT = (InvalidRequest, UnknownModel, PermissionRefused)
SEED = oip.pixels(tiny.images(2), id="7", parameters={"target_fpr": pb.InferParameter(double_param=0.01)})


def read(data: bytes) -> convert.InferRequest:
    """All that is done with a request before an image is decoded."""
    request = convert.infer_request(convert.received(data, MOST), MANIFEST, MOST)
    outputs_of(request.outputs, RevealMode.P_VALUES)
    pictures = list(request.images.pictures)
    assert len(pictures) == request.images.count
    return request


def check(data: bytes) -> None:
    """Anything but our own errors is raised."""
    with contextlib.suppress(*CALLERS_FAULT):
        request = read(data)
        assert 1 <= request.images.count <= MOST
        assert request.timeout_s > 0


@LOADED
@given(some.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    check(data)


@LOADED
@given(some.lists(some.tuples(some.integers(0, 400), some.integers(0, 255)), max_size=6), some.integers(0, 400))
def test_a_good_request_with_bytes_of_it_changed(changes: list[tuple[int, int]], length: int) -> None:
    data = bytearray(SEED.SerializeToString())
    for place, value in changes:
        data[place % len(data)] = value
    check(bytes(data))
    check(bytes(data[:length]))


names = some.sampled_from(["images", "label", "advsentry", "tiny", "target_fpr", "timeout", "priority", "x", ""])
parameters = some.one_of(
    some.builds(pb.InferParameter),
    some.builds(pb.InferParameter, bool_param=some.booleans()),
    some.builds(pb.InferParameter, int64_param=some.integers(-(2**63), 2**63 - 1)),
    some.builds(pb.InferParameter, uint64_param=some.integers(0, 2**64 - 1)),
    some.builds(pb.InferParameter, string_param=some.text(max_size=100)),
    some.builds(pb.InferParameter, double_param=some.floats()),
)
named_parameters = some.dictionaries(names, parameters, max_size=2)
contents = some.builds(
    pb.InferTensorContents,
    uint_contents=some.lists(some.integers(0, 300), max_size=8),
    int_contents=some.lists(some.integers(-1, 1), max_size=1),
    bytes_contents=some.lists(some.binary(max_size=4), max_size=4),
)
shapes = some.lists(some.one_of(some.integers(-1, 4), some.integers(-(2**63), 2**63 - 1)), max_size=5)
tensors = some.builds(
    oip.Tensor,
    name=names,
    datatype=some.sampled_from(["UINT8", "BYTES", "FP32", ""]),
    shape=some.one_of(some.just([1]), some.just([1, 2, 2, 1]), shapes),
    parameters=some.one_of(some.just({}), named_parameters),
    contents=some.one_of(some.none(), contents),
)
requests = some.builds(
    pb.ModelInferRequest,
    model_name=names,
    model_version=some.text(max_size=3),
    id=some.text(max_size=200),
    parameters=named_parameters,
    inputs=some.lists(tensors, max_size=2),
    outputs=some.lists(some.builds(oip.Wanted, name=names, parameters=named_parameters), max_size=2),
    raw_input_contents=some.lists(some.one_of(some.binary(max_size=20), some.just(oip.strings([b"x"]))), max_size=2),
)


@LOADED
@given(requests)
def test_any_structure(request: pb.ModelInferRequest) -> None:
    check(request.SerializeToString())


@LOADED
@given(some.binary(max_size=100))
def test_any_bytes_that_ask_about_a_model(data: bytes) -> None:
    try:
        asked = facts.model_request(data)
    except InvalidRequest:
        return
    assert isinstance(asked.name, str)


@LOADED
@given(some.integers(1, MOST), some.integers(1, 4), some.integers(1, 4), some.integers(1, 3), some.booleans())
def test_pixels_come_back_as_they_were(n: int, height: int, width: int, channels: int, typed: bool) -> None:
    images = np.random.default_rng(0).integers(0, 256, (n, height, width, channels), np.uint8)
    read_back = read(oip.pixels(images, typed=typed).SerializeToString())
    assert read_back.images.size == (height, width, channels)


@LOADED
@given(some.lists(some.binary(max_size=20), min_size=1, max_size=MOST), some.booleans())
def test_files_come_back_as_they_were(coded: list[bytes], typed: bool) -> None:
    came = convert.received(oip.files(coded, typed=typed).SerializeToString(), MOST)
    request = convert.infer_request(came, MANIFEST, MOST)
    assert [picture.data for picture in request.images.pictures] == coded
    assert request.images.size is None


def test_pixels_are_cut_into_images() -> None:
    images = tiny.images(3)
    for typed in (False, True):
        came = convert.received(oip.pixels(images, typed=typed).SerializeToString(), MOST)
        pictures = list(convert.infer_request(came, MANIFEST, MOST).images.pictures)
        assert [picture.data for picture in pictures] == [image.tobytes() for image in images]
        assert {picture.size for picture in pictures} == {(8, 8, 1)}


def test_parameters_are_read() -> None:
    known = {
        "target_fpr": pb.InferParameter(double_param=0.05),
        "timeout": pb.InferParameter(int64_param=1_500_000),
        "priority": pb.InferParameter(uint64_param=2),
        "triton_enable_empty_final_response": pb.InferParameter(bool_param=True),
    }
    request = read(oip.pixels(tiny.images(1), parameters=known).SerializeToString())
    assert (request.asked.alpha, request.asked.priority, request.timeout_s) == (0.05, 2, 1.5)
    assert read(oip.pixels(tiny.images(1)).SerializeToString()).timeout_s == math.inf
