"""The handlers' cost is measured in every way of calling."""

import json
import subprocess
import sys
from pathlib import Path

from tests import tiny

ROOT = Path(__file__).parent.parent.parent


def test_every_way_of_calling_is_measured(tmp_path: Path) -> None:
    bundle, result = tiny.write(tmp_path / "tiny"), tmp_path / "handlers.json"
    command = [sys.executable, "-m", "deploy.bench_handlers", "--images", "128"]
    command += ["--bundle", str(bundle), "--result", str(result)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(result.read_text(encoding="utf-8"))["metrics"]
    assert metrics.keys() == {f"tiny_{way}_us" for way in ("detect_32", "detect_1", "batch", "stream")}
    assert all(value > 0 for value in metrics.values())
