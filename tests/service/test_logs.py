"""service/logs.py: what is logged of other libraries."""

import logging
import subprocess
import sys

import pytest

from service.logs import start_logging

SCRIPT = """
import io, logging
from PIL import Image
from service.logs import start_logging
start_logging("plain", "debug")
exif = Image.Exif()
exif[0x010E], exif[0x013B] = "SECRET ward 7", "Jane Patient"
file = io.BytesIO()
Image.new("RGB", (8, 8)).save(file, "JPEG", exif=exif)
dict(Image.open(io.BytesIO(file.getvalue())).getexif())
logging.getLogger("service.batching").debug("ours")
logging.getLogger("elsewhere").info("theirs")
"""


def test_no_tag_of_an_image_is_logged_at_any_level() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    assert "DEBUG   service.batching: ours" in done.stderr
    assert "INFO    elsewhere: theirs" in done.stderr
    assert "SECRET" not in done.stderr
    assert "Patient" not in done.stderr


def test_a_caller_who_left_while_his_status_was_sent_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    root, handlers = logging.getLogger(), logging.getLogger().handlers[:]
    grpc_log = logging.getLogger("grpc._cython.cygrpc")
    try:
        start_logging("plain", "info")
        grpc_log.error("ExecuteBatchError raised in core by servicer method [%s]", "/a/B")  # grpc 1.85, server.pyx.pxi
        grpc_log.error("Unexpected [%s] raised by servicer method [%s]", "KeyError", "/a/B")
    finally:
        root.handlers[:] = handlers
        grpc_log.filters.clear()
    assert "KeyError" in (said := capfd.readouterr().err)
    assert "ExecuteBatchError" not in said
