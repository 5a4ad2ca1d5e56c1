"""Compiling changes how a run computes, not what it keeps; a machine that cannot compile says so first."""

import functools
from pathlib import Path

import pytest
import torch

from service.errors import SetupError
from tests.training.shared_step import recipe
from training.checkpoint import load_run, read_checkpoint
from training.fit import fit

CPU = torch.device("cpu")


@pytest.mark.filterwarnings("ignore")  # torch warns of itself while it compiles
def test_a_compiled_run_keeps_what_a_plain_one_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Traced and guarded as for any backend, but no code is made: that would take a minute.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    for name, compiles in (("plain", False), ("compiled", True)):
        fit(recipe(train={"compile": compiles}), None, tmp_path / name, device=CPU)
    plain, compiled = (read_checkpoint(tmp_path / name)["loop"]["model"] for name in ("plain", "compiled"))
    assert compiled.keys() == plain.keys()
    for name, expected in plain.items():
        torch.testing.assert_close(compiled[name], expected, rtol=1e-4, atol=1e-5)
    assert not load_run(tmp_path / "compiled").model.training


@pytest.mark.filterwarnings("ignore")
def test_a_machine_without_a_compiler_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", ("/nowhere/c++",))
    with pytest.raises(SetupError, match=r"train\.compile: expected a C\+\+ compiler .*/nowhere/c\+\+.*install it"):
        fit(recipe(train={"compile": True}), None, tmp_path / "run", device=CPU)
    assert not (tmp_path / "run").exists()
