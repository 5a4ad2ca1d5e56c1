"""Messages that are small until they are opened, through the door of a server in a process of its own."""

import http.server
import io
import re
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from PIL import Image

from protos import detection_pb2 as pb
from tests import tiny
from tests.service.rpc.test_door import CODE, SERVICE, file, raw
from tests.service.test_process import serving

MIB = 2**20


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes) -> bytes:
    """A grey PNG of zeros."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def detect(data: bytes) -> bytes:
    return pb.DetectRequest(image=file(data)).SerializeToString()


def texts() -> bytes:
    """10,000 compressed texts of 100 kB each."""
    return detect(png(8, 8, *[chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(100_000)))] * 10_000))


@dataclass(frozen=True)
class Bomb:
    name: str
    message: Callable[[], bytes]
    code: grpc.StatusCode
    reason: str = ""
    method: str = "Detect"
    packed: bool = False


GOOD = pb.DetectRequest(image=raw(tiny.images(1)[0])).SerializeToString()
BOMBS = [
    Bomb("81 megapixels in 80 kB", lambda: detect(png(9000, 9000)), CODE.INVALID_ARGUMENT, "TOO_MANY_PIXELS"),
    Bomb("a header of 900 megapixels", lambda: detect(png(30000, 1)[:40]), CODE.INVALID_ARGUMENT),
    Bomb("10,000 compressed texts", texts, CODE.INVALID_ARGUMENT, "UNDECODABLE"),
    Bomb("64 MiB of zeros in gzip", lambda: bytes(64 * MIB), CODE.RESOURCE_EXHAUSTED, packed=True),
    Bomb("a stream of the same", lambda: bytes(64 * MIB), CODE.RESOURCE_EXHAUSTED, method="StreamDetect", packed=True),
    Bomb("a message of 64 MiB", lambda: bytes(64 * MIB), CODE.RESOURCE_EXHAUSTED),
    Bomb("a group in a group, a million times", lambda: b"\x0b" * 10**6, CODE.INVALID_ARGUMENT),
    Bomb("a message in a message, closed nowhere", lambda: b"\x12\xff\xff\x03" * 10**5, CODE.INVALID_ARGUMENT),
    Bomb("a million unknown fields", lambda: b"\xf8\x7f\x01" * 10**6 + GOOD, CODE.INVALID_ARGUMENT),
    Bomb("a batch of millions", lambda: b"\x12\x00" * (7 * MIB), CODE.INVALID_ARGUMENT, method="BatchDetect"),
    *(
        Bomb(name, bytes, CODE.INVALID_ARGUMENT, "FORMAT_UNSUPPORTED")
        for name in ("an address", "a path", "a path as an address")
    ),
]


class Server:
    def __init__(self, target: str, pid: int) -> None:
        self.channel = grpc.insecure_channel(target, options=[("grpc.max_send_message_length", -1)])
        self._pid = pid
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # forget the peak until now

    def peak_mib(self) -> float:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self._pid}/status").read_text())
        assert found
        return int(found[1]) / 1024

    def send(self, bomb: Bomb, message: bytes) -> grpc.Call:
        packing = grpc.Compression.Gzip if bomb.packed else grpc.Compression.NoCompression
        path = f"/{SERVICE}/{bomb.method}"
        if bomb.method == "StreamDetect":
            return self.channel.stream_stream(path)(iter([message]), timeout=30, compression=packing)
        return self.channel.unary_unary(path).future(message, timeout=30, compression=packing)


@pytest.fixture(scope="module")
def server(bundle_path: Path) -> Iterator[Server]:
    with serving(bundle_path, "--compression", "on") as (process, target, _):
        warm = grpc.insecure_channel(target)
        warm.unary_unary(f"/{SERVICE}/Detect")(GOOD)
        made = Server(target, process.pid)
        yield made
        made.channel.close()


class Seen(http.server.BaseHTTPRequestHandler):
    """Notes whoever fetches something."""

    paths: list[str] = []  # noqa: RUF012  # of all handlers

    def do_GET(self) -> None:  # the library's word
        self.paths.append(self.path)
        self.send_error(404)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An address that somebody listens at, and the path of an image that would do, by the name of the bomb."""
    path = tmp_path_factory.mktemp("images") / "good.png"
    buffer = io.BytesIO()
    Image.fromarray(tiny.images(1)[0][:, :, 0]).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Seen) as listener:
        threading.Thread(target=listener.serve_forever).start()
        address = f"http://127.0.0.1:{listener.server_port}/good.png"
        yield {"an address": address, "a path": str(path), "a path as an address": f"file://{path}"}
        listener.shutdown()


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.name)
def test_what_is_too_much_is_refused_and_costs_little(server: Server, places: dict[str, str], bomb: Bomb) -> None:
    message = bomb.message() if bomb.name not in places else detect(places[bomb.name].encode())
    before, since = server.peak_mib(), time.monotonic()
    call = server.send(bomb, message)
    assert call.code() is bomb.code, call.details()
    assert bomb.reason in dict(call.trailing_metadata()).get("x-advsentry-reason", "")
    assert time.monotonic() - since < 10
    assert server.peak_mib() - before < 64
    assert server.channel.unary_unary(f"/{SERVICE}/Detect")(GOOD, timeout=30)
    assert Seen.paths == []


def test_whoever_fetches_would_be_seen(places: dict[str, str]) -> None:
    import urllib.error
    import urllib.request

    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(places["an address"])
    assert Seen.paths == ["/good.png"]
    Seen.paths.clear()
