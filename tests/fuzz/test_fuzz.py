"""What fuzzing found stays found: its corpus again, and messages of every structure with bytes of every kind."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.fuzz import campaign, targets
from deploy.fuzz.seeds import seeds
from protos import detection_pb2 as pb
from protos import inference as oip
from service.errors import InvalidRequest
from service.rpc.inference_inputs import INPUT

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)

numbers = st.integers(0, 2**32 - 1) | st.integers(0, 16)
rates = st.floats(allow_nan=True) | st.sampled_from([0.0, 0.01, 0.1, 1.0])
texts = st.text(max_size=200) | st.just("1")
files = st.sampled_from(seeds()["image"])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A file with some bytes changed, cut or doubled."""
    data = bytearray(draw(files))
    for _ in range(draw(st.integers(0, 4))):
        if data:
            place = draw(st.integers(0, len(data) - 1))
            data[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    return bytes(data)


images = st.one_of(
    st.builds(
        lambda data, kind: pb.Image(encoded=pb.EncodedImage(data=data, mime_type=kind)), damaged(), texts | st.just("")
    ),
    st.builds(
        lambda size, data: pb.Image(raw=pb.RawImage(height=size[0], width=size[1], channels=size[2], data=data)),
        st.tuples(numbers, numbers, numbers) | st.just((8, 8, 1)),
        st.binary(max_size=100) | st.binary(min_size=64, max_size=64),
    ),
    st.just(pb.Image()),
)
options = st.builds(
    pb.DetectOptions,
    model_version=texts | st.just(""),
    target_fpr=st.none() | rates,
    detectors=st.lists(texts, max_size=3),
    top_k=numbers,
    return_embedding=st.booleans(),
    priority=numbers,
)
tensors = st.builds(
    oip.ModelInferRequest.InferInputTensor,
    name=texts | st.just(INPUT),
    datatype=texts | st.sampled_from(["UINT8", "BYTES", "FP32"]),
    shape=st.lists(st.integers(-(2**63), 2**63 - 1) | st.sampled_from([1, 2, 8]), max_size=5) | st.just([1, 8, 8, 1]),
    contents=st.none()
    | st.builds(
        oip.InferTensorContents,
        uint_contents=st.lists(numbers, max_size=70),
        bytes_contents=st.lists(damaged(), max_size=3),
    ),
)
requests = st.one_of(
    st.tuples(st.just("detect"), st.builds(pb.DetectRequest, request_id=texts, image=images, options=options)),
    st.tuples(
        st.just("batch"),
        st.builds(pb.BatchDetectRequest, request_id=texts, images=st.lists(images, max_size=5), options=options),
    ),
    st.tuples(
        st.just("stream"),
        st.builds(
            pb.StreamDetectRequest,
            item_id=texts,
            image=images,
            stream_options=st.none() | st.builds(pb.StreamOptions, options=options, preserve_order=st.booleans()),
        ),
    ),
    st.tuples(
        st.just("infer"),
        st.builds(
            oip.ModelInferRequest,
            model_name=texts | st.just("advsentry"),
            inputs=st.lists(tensors, max_size=2),
            raw_input_contents=st.lists(st.binary(max_size=70), max_size=2),
        ),
    ),
)


@QUICK
@given(requests)
def test_messages_of_any_structure_give_an_answer_or_an_allowed_error(request: tuple[str, object]) -> None:
    name, message = request
    targets.run(name, message.SerializeToString())  # type: ignore[attr-defined]


@QUICK
@given(st.sampled_from(list(targets.TARGETS)), st.binary(max_size=300))
def test_any_bytes_do(name: str, data: bytes) -> None:
    targets.run(name, data)


@pytest.mark.parametrize("name", list(targets.TARGETS))
def test_the_corpus_and_the_seeds_find_nothing_any_more(name: str) -> None:
    kept = sorted((campaign.CORPUS / name).iterdir())
    assert kept, "the corpus is empty"
    for data in [*(path.read_bytes() for path in kept), *seeds()[name]]:
        targets.run(name, data)


def test_another_error_and_a_slow_input_come_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(data: bytes) -> None:
        raise IndexError

    monkeypatch.setitem(targets.TARGETS, "facts", fail)
    with pytest.raises(IndexError):
        targets.run("facts", b"")
    monkeypatch.setattr(targets, "SLOWEST_S", -1.0)
    with pytest.raises(targets.TooSlow):
        targets.run("tensor", b"")


def test_a_planted_defect_is_found_by_atheris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not campaign.is_installed():
        pytest.skip("atheris is made for Linux")
    planted = tmp_path / "sitecustomize.py"
    planted.write_text(
        "import service.rpc.convert as c\n"
        "read = c.info_request\n"
        "def planted(data):\n"
        "    if data[:1] == b'!': raise IndexError\n"
        "    read(data)\n"
        "c.info_request = planted\n"
    )
    root = Path(campaign.__file__).parent.parent.parent
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{root}")
    found = campaign.fuzz("facts", tmp_path / "work", 30)
    assert found.crashes
    assert "IndexError" in found.text


def test_what_is_wrong_with_a_request_is_its_callers_affair() -> None:
    with pytest.raises(InvalidRequest):
        targets.TARGETS["detect"](b"\xff")
