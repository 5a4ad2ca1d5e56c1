"""The fields of a message are counted before it is parsed, whatever they are."""

import pytest

from protos import inference as pb
from service.errors import InvalidRequest
from service.rpc.wire import check_id, has_more_fields, parsed

REQUEST = pb.ModelInferRequest
INPUT = pb.ModelInferRequest.InferInputTensor


@pytest.mark.parametrize(
    "field",
    [b"\x12\x00", b"\x10\x01", b"\x19" + b"0" * 8, b"\x1d0000", b"\x13\x14"],
    ids=["length", "int", "8", "4", "group"],
)
def test_fields_of_every_kind_count(field: bytes) -> None:
    fields_in_it = 2 if field == b"\x13\x14" else 1  # a group is its start and its end
    assert not has_more_fields(field * 10, 10 * fields_in_it)
    assert has_more_fields(field * 10, 10 * fields_in_it - 1)


def test_a_group_hides_nothing_behind_it() -> None:
    assert has_more_fields(b"\x13\x14" + b"\x12\x00" * 100, 50)


@pytest.mark.parametrize("rest", [b"\x80", b"\x12\xff", b"\xff" * 20, b"\x16", b"\x17"])
def test_what_is_damaged_is_left_to_the_parser(rest: bytes) -> None:
    assert not has_more_fields(b"\x12\x00" + rest, 2)
    with pytest.raises(InvalidRequest, match=r"expected one inference\.ModelInferRequest"):
        parsed(pb.ModelInferRequest, b"\x12\x00" + rest)


def test_fields_of_messages_within_count_where_they_are_asked_for() -> None:
    tensor = INPUT(name="images", contents=pb.InferTensorContents(bytes_contents=[b""] * 20))
    data = pb.ModelInferRequest(inputs=[tensor]).SerializeToString()
    assert not has_more_fields(data, 1)
    assert has_more_fields(data, 22, REQUEST)
    assert not has_more_fields(data, 23, REQUEST)  # input, name, contents and 20 images


def test_leaves_are_not_looked_into() -> None:
    data = pb.ModelInferRequest(inputs=[INPUT(name="images", shape=[1])] * 3).SerializeToString()
    assert has_more_fields(data, 8, REQUEST)
    assert not has_more_fields(data, 3, REQUEST, frozenset({"inputs"}))


def test_a_long_list_of_numbers_counts_as_many_fields() -> None:
    contents = pb.InferTensorContents(uint_contents=[1] * (20 * 4096))
    data = pb.ModelInferRequest(inputs=[INPUT(contents=contents)]).SerializeToString()
    assert has_more_fields(data, 22, REQUEST)
    assert not has_more_fields(data, 23, REQUEST)  # input, contents, the list, and 20 for its length
    raw = pb.ModelInferRequest(raw_input_contents=[bytes(20 * 4096)]).SerializeToString()
    assert not has_more_fields(raw, 1, REQUEST)


@pytest.mark.parametrize(("value", "size"), [("x" * 128, None), ("x" * 129, 129), ("ä" * 64, None), ("ä" * 65, 130)])
def test_an_id_is_bounded_in_bytes(value: str, size: int | None) -> None:
    if size is None:
        check_id(value, "id")
    else:
        with pytest.raises(InvalidRequest, match=f"id: expected at most 128 bytes, got {size}"):
            check_id(value, "id")
