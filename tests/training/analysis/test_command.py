"""The command from end to end, on two tiny runs of the digits."""

import dataclasses
import json
import math
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.results import FIELDS
from service.errors import SetupError
from training.__main__ import main
from training.analysis.command import Options, run_analysis
from training.analysis.page import page
from training.analysis.results import Analysis
from training.checkpoint import read_checkpoint, write_checkpoint

TINY = (
    *("train.epochs=2", "data.train=100", "model.width=4", "train.batch_size=50"),
    *("attack.steps=1", "tla.pool=16", "train.threads=1"),
)


class Reader(HTMLParser):
    """Fails on a tag that is closed out of turn; gathers addresses, and figures without a description."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.undescribed: list[str] = []
        self.described: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "link", "iframe", "object", "embed"}
        names = dict(attrs)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "xlink:href"}]
        if tag in {"img", "svg"} and names.get("aria-hidden") != "true":
            description = names.get("alt") or names.get("aria-label")
            (self.described if description else self.undescribed).append(description or str(names))
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass


def fit(out: Path, *more: str) -> Path:
    assert main(["fit", "digits", "--out", str(out), *TINY, *more]) == 0
    return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return fit(folder / "robust"), fit(folder / "ordinary", "attack.name=none", "tla.weight=0")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def analysis(runs: tuple[Path, Path], out: Path) -> Analysis:
    return run_analysis(Options(runs=runs, out=out, images=60, heat_map_images=8))


def test_the_page_needs_nothing_from_anywhere_and_every_figure_is_described(analysis: Analysis, out: Path) -> None:
    html = (out / "index.html").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    assert reader.undescribed == []
    assert len(reader.described) > 2 * 30
    assert all(address.startswith("data:image/png;base64,") for address in reader.addresses)
    assert not re.search(r"url\(|@import|https?:", html)
    for letter in "ABCDEFGH":
        assert f"<h2>{letter}. " in html
    for name in ("robust", "ordinary"):
        assert f"{name}: error under each Fourier basis image" in reader.described
    assert html.count("−b/2 to b/2") == 1


def test_the_json_holds_every_number_and_no_nan(analysis: Analysis, out: Path) -> None:
    text = (out / "analysis.json").read_text(encoding="utf-8")
    assert not re.search("NaN|Infinity", text)
    read = json.loads(text)
    assert (read["format"], read["data"]["images"]) == (1, 60)
    assert [run["name"] for run in read["runs"]] == ["robust", "ordinary"]
    robust, ordinary = read["runs"]
    assert robust["recipe"] == "small_cnn 4/2, trained on pgd linf 0.15 with TLA"
    assert ordinary["recipe"] == "small_cnn 4/2, trained on clean images"
    assert {
        *("low_pass", "spectrum", "kernels", "curves", "heat_map", "embedding", "neighbours", "distances"),
    } <= robust.keys()
    assert robust["low_pass"]["clean"][0] == pytest.approx(robust["clean_accuracy"], abs=1e-5)
    assert robust["low_pass"]["attacked"][0] == pytest.approx(robust["attacked_accuracy"], abs=1e-5)
    assert robust["heat_map"]["frequencies"] == 34
    assert np.shape(robust["heat_map"]["errors"]) == (8, 8)
    assert len(robust["curves"]["accuracies"]["attacked_accuracy"]["epochs"]) == 2
    assert not {"clean", "attacked", "gallery"} & robust.keys()
    assert read["provenance"]["command"].endswith("--images 60 --heat-map-images 8 --low-pass published --seed 0")


def test_attacked_images_keep_the_budget(analysis: Analysis) -> None:
    for run in analysis.runs:
        change = run.attacked.images.astype(int) - run.clean.images.astype(int)
        assert 0 < np.abs(change).max() <= int(255 * 0.15)


def test_the_same_seed_gives_the_same_figures_and_symmetric_says_so(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["analyse", str(runs[0]), "--images", "40", "--heat-map-images", "4", "--low-pass", "symmetric", "--json"]
    read = []
    for name in ("one", "two"):
        assert main([*words, "--out", str(tmp_path / name)]) == 0
        read.append(json.loads((tmp_path / name / "analysis.json").read_text(encoding="utf-8"))["runs"])
    assert read[0] == read[1]
    assert "|k| &lt; b/2" in (tmp_path / "one" / "index.html").read_text(encoding="utf-8")
    printed = json.loads(capsys.readouterr().out.splitlines()[0])
    assert printed["page"] == str(tmp_path / "one" / "index.html")
    assert printed["runs"]["robust"].keys() >= {"clean_accuracy", "attacked_accuracy", "low_pass_loss", "energy_4"}


def test_the_small_file_has_one_number_for_each_analysis_and_run(analysis: Analysis, out: Path) -> None:
    small = json.loads(analysis.to_result("both"))
    assert small.keys() == {*FIELDS, "runs"}
    assert small["runs"]["ordinary"]["attack.name"] == "none"
    assert small["runs"]["robust"]["train.epochs"] == 2
    assert (small["name"], small["data"]["images"], small["recipe"]["low_pass"]) == ("both", 60, "published")
    full = {run["name"]: run for run in json.loads((out / "analysis.json").read_text(encoding="utf-8"))["runs"]}
    for name, run in full.items():
        filtered = run["low_pass"]["clean"]
        assert small["metrics"][f"{name}/low_pass_loss"] == pytest.approx(filtered[0] - filtered[-1], abs=1e-5)
        shares = dict(zip(run["spectrum"]["bands"], run["spectrum"]["energy_shares"], strict=True))
        assert small["metrics"][f"{name}/energy_4"] == shares[4]
        assert small["metrics"][f"{name}/kernel_roughness"] == run["kernels"]["roughness"]
        courses = run["curves"]["accuracies"]["attacked_accuracy"]["values"]
        assert small["metrics"][f"{name}/attacked_accuracy_lost"] == pytest.approx(max(courses) - courses[-1], abs=1e-5)


def test_the_small_file_is_written_where_it_is_asked_for(runs: tuple[Path, Path], tmp_path: Path) -> None:
    result = tmp_path / "results" / "one.json"
    words = ["analyse", str(runs[0]), "--images", "20", "--heat-map-images", "1", "--out", str(tmp_path / "page")]
    assert main([*words, "--result", str(result)]) == 0
    read = json.loads(result.read_text(encoding="utf-8"))
    assert read["name"] == "one"
    assert read["command"].endswith(f"--seed 0 --result {result}")


def test_a_result_that_is_no_json_file_is_refused(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyse", str(runs[0]), "--out", str(tmp_path), "--result", str(tmp_path / "x.txt")]) == 1
    assert "--result: expected a file NAME.json" in capsys.readouterr().err


def test_names_from_outside_are_escaped(analysis: Analysis) -> None:
    evil = dataclasses.replace(
        analysis,
        class_names=tuple(f"<script>{name}" for name in analysis.class_names),
        runs=tuple(dataclasses.replace(run, name="<script>alert(1)</script>") for run in analysis.runs),
    )
    assert "<script" not in page(evil)


def test_a_network_without_convolutions_and_without_figures_has_a_page(analysis: Analysis) -> None:
    run = analysis.runs[0]
    heat_map = dataclasses.replace(run.heat_map, correlation=None, errors=np.zeros((8, 8)))
    bare = dataclasses.replace(analysis, runs=(dataclasses.replace(run, kernels=None, heat_map=heat_map),))
    html = page(bare)
    assert "no convolution" in html
    assert '<span class="none">none</span>' in html


def test_runs_of_one_name_are_told_apart_by_their_paths(runs: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "robust"
    shutil.copytree(runs[0], copy)
    analysis = run_analysis(Options(runs=(runs[0], copy), out=tmp_path / "out", images=20, heat_map_images=1))
    assert [run.name for run in analysis.runs] == [str(runs[0]), str(copy)]


def altered(run: Path, to: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    shutil.copytree(run, to)
    content = read_checkpoint(to)
    change(content)
    write_checkpoint(to, content)
    return to


def test_a_run_that_is_not_finished_is_refused(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = altered(runs[0], tmp_path / "half", lambda content: content.update(is_finished=False))
    assert main(["analyse", str(half), "--out", str(tmp_path / "out")]) == 1
    assert "expected a finished run, got 2 of 2 epochs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_that_diverged_is_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    def diverge(content: dict[str, Any]) -> None:
        content["loop"]["model"]["projection.1.weight"].fill_(math.nan)

    run = altered(runs[0], tmp_path / "diverged", diverge)
    with pytest.raises(SetupError, match="expected finite embeddings, got NaN; its training diverged"):
        run_analysis(Options(runs=(run,), out=tmp_path / "out"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs that do not belong to the first one."""
    folder = tmp_path_factory.mktemp("others")
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (160, 8, 8, 1), dtype=np.uint8), np.arange(160) % 10
    data = folder / "data.npz"
    np.savez(data, train_images=images, train_labels=labels, test_images=images[:10], test_labels=labels[:10])
    parts = ("data.fit=20", "data.calibration=10", "data.fusion=10", "export.default_alpha=0.1")
    return {
        "split": fit(folder / "split", "data.seed=1"),
        "eps": fit(folder / "eps", "attack.eps=0.1"),
        "norm": fit(folder / "norm", "attack.norm=l2"),
        "npz": fit(folder / "npz", "--data", str(data), "data.set=npz", *parts),
        "data": data,
    }


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("split", "expected the test images of .*robust, got others; a set without a test split of its own needs"),
        (
            "eps",
            "expected runs trained for one budget, got robust linf 0.15; eps linf 0.1; name one for all with --eps",
        ),
        ("norm", "expected runs trained for one norm, got robust linf 0.15; norm l2 0.15; analyse them apart"),
        ("npz", "npz: expected the data set digits as in .*robust, got npz; look at them apart"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(
    runs: tuple[Path, Path], others: dict[str, Path], tmp_path: Path, other: str, message: str
) -> None:
    with pytest.raises(SetupError, match=message):
        run_analysis(Options(runs=(runs[0], others[other]), out=tmp_path))


def test_runs_of_different_budgets_may_share_a_third(
    runs: tuple[Path, Path], others: dict[str, Path], tmp_path: Path
) -> None:
    options = Options(runs=(runs[0], others["eps"]), out=tmp_path, eps=0.05, images=20, heat_map_images=1)
    analysis = run_analysis(options)
    assert analysis.settings.eps == 0.05
    assert "--eps 0.05" in options.command()


def test_too_few_test_images_are_refused(others: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="expected at least 20 test images, got 10"):
        run_analysis(Options(runs=(others["npz"],), out=tmp_path, data=others["data"]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "19"], "--images: expected 20 to 4000, got 19"),
        (["--heat-map-images", "0"], "--heat-map-images: expected at least 1, got 0"),
        (["--eps", "0"], "--eps: expected a number above 0, got 0"),
        (["--seed", "-1"], "--seed: expected 0 or more, got -1"),
        (["--out", "{file}"], "cannot be made a folder: File exists"),
        (["{run}"], "expected different run directories, got one of them twice"),
        (["nowhere"], "nowhere: expected a run directory"),
    ],
    ids=["images", "heat-map-images", "eps", "seed", "out", "twice", "run"],
)
def test_a_mistake_is_one_clear_line(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder", encoding="utf-8")
    given = [word.format(file=file, run=runs[0]) for word in words]
    positional = [] if given[0].startswith("--") else given
    options = given if not positional else []
    assert main(["analyse", str(runs[0]), *positional, "--out", str(tmp_path / "out"), *options]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("words", [["--eps", "eight"], ["--low-pass", "sharp"]], ids=["eps", "low-pass"])
def test_wrong_usage_exits_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["analyse", "run", "--out", "out", *words])
    assert leaving.value.code == 2
