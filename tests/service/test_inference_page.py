"""docs/inference_protocol.md: its tables are those of the code, its example runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from protos import inference as pb
from service.detection.bundle import SHIPPED
from service.detection.engine import Engine
from service.rpc.inference_inputs import INPUT
from service.rpc.inference_outputs import OUTPUTS
from tests import tiny
from tests.service.running import running

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "inference_protocol.md").read_text(encoding="utf-8")


def test_every_call_is_there() -> None:
    rows = "".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `"))
    for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
        assert f"`{method.name}`" in rows


def test_every_tensor_is_there_with_its_datatype_in_order() -> None:
    found = re.findall(r"^\| `(\w+)`(?: \(in\))? \| (UINT8|BYTES|BOOL|FP32|FP64) ", PAGE, flags=re.MULTILINE)
    expected = [(name, output.datatype) for name, output in OUTPUTS.items()]
    assert found == [(INPUT, "UINT8"), (INPUT, "BYTES"), *expected]
    shapes = re.findall(r"`\[n(?:, (classes|detectors))?\]`", PAGE)[1:]
    sizes = {"": (), "classes": (len(tiny.CLASSES),), "detectors": (2,)}
    assert [sizes[shape] for shape in shapes] == [output.width(tiny.manifest({})) for output in OUTPUTS.values()]


@pytest.mark.parametrize("name", ["digits", "gtsrb"])  # one takes its own size only, one any
def test_the_example_runs(name: str) -> None:
    found = re.search(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert found is not None
    with running(Engine.load(SHIPPED / name, threads=1), canary_s=100.0) as server:
        program = found[1].replace("127.0.0.1:50051", server.ports.grpc)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"(\S.* (clean|adversarial)\n){2}", done.stdout)


def test_its_links_lead_somewhere() -> None:
    for target, anchor in re.findall(r"\]\((?!http)([^)#]+)(?:#([^)]+))?\)", PAGE):
        page = (ROOT / "docs" / target).read_text(encoding="utf-8")
        titles = [title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.*)$", page, flags=re.MULTILINE)]
        assert not anchor or anchor in titles
