"""docs/architecture.md: who may import whom, and that serving needs no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("protos", "service", "training")
OPEN = "*"  # a package without a list of third parties may import any

# package -> (our own packages it may import, third-party packages it may import)
ALLOWED: dict[str, tuple[set[str], set[str]]] = {
    "protos": (set(), {"google", "grpc"}),
    "service.errors": (set(), set()),
    "service.metrics": (set(), {"prometheus_client"}),
    "service.detection": ({"service.errors", "service.history"}, {"numpy", "onnxruntime", "PIL"}),
    "service.history": ({"service.errors"}, {"numpy", "redis"}),
    "service.rpc": (
        {"protos", "service.detection", "service.errors", "service.metrics"},
        {"numpy", "grpc", "grpc_health", "grpc_reflection", "google"},
    ),
    "service.scoring": (
        {"service.detection", "service.engines", "service.errors", "service.files", "service.settings"},
        {"numpy", "pyarrow"},
    ),
    "service.scoring.cluster": ({"service.errors", "service.scoring"}, {"numpy", "ray"}),
    "service.tracing": ({"service.rpc.call"}, {"grpc", "opentelemetry"}),
    "service": ({"protos", "service"}, {"numpy", "grpc", "grpc_health", "google", "prometheus_client", "uvloop"}),
    "training": ({"service.detection", "service.errors", "service.history"}, {OPEN}),
}
NEVER = {"training": {"grpc", "prometheus_client", "grpc_health", "grpc_reflection"}}


def home(module: str) -> str:
    """The most specific row of the table that covers a module."""
    return max((row for row in ALLOWED if module == row or module.startswith(row + ".")), key=len)


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def forbidden(module: str, names: set[str]) -> set[str]:
    row = home(module)
    ours, theirs = ALLOWED[row]
    bad = set()
    for name in names:
        top = name.split(".")[0]
        if top in OURS:
            allowed = any(name == own or name.startswith(own + ".") for own in {row, *ours})
        else:
            allowed = top in sys.stdlib_module_names or top in theirs or OPEN in theirs
            allowed = allowed and top not in NEVER.get(row, set())
        if not allowed:
            bad.add(name)
    return bad


def sources() -> list[Path]:
    return [path for top in OURS for path in sorted((ROOT / top).rglob("*.py"))]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_each_module_imports_only_what_the_design_allows(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    bad = forbidden(module, imported(path))
    assert not bad, f"{module} must not import {sorted(bad)}"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("service.detection.verdict", "service.app"),
        ("service.detection.verdict", "torch"),
        ("service.rpc.convert", "service.batching"),
        ("service.app", "training.fit"),
        ("training.fit", "protos.detection_pb2"),
        ("training.fit", "grpc"),
        ("protos.detection_pb2", "service.errors"),
    ],
)
def test_the_check_refuses_a_forbidden_arrow(module: str, name: str) -> None:
    assert forbidden(module, {name}) == {name}


def test_every_test_folder_is_a_package() -> None:
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)


def test_the_service_starts_without_torch() -> None:
    code = "import sys, service.app, service.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
