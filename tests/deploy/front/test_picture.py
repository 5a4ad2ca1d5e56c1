"""The README's picture is made of the committed reports, and can be read on light and on dark pages."""

import re
from xml.etree import ElementTree

import pytest

from deploy.front.picture import PICTURE, picture
from deploy.front.sweeps import Sweep, shipped_sweeps

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def sweeps() -> list[Sweep]:
    return shipped_sweeps()


def test_the_committed_picture_is_what_the_script_makes(sweeps: list[Sweep]) -> None:
    assert PICTURE.read_text(encoding="utf-8") == picture(sweeps)


def test_it_has_a_chart_of_each_bundle_with_every_measured_size(sweeps: list[Sweep]) -> None:
    root = ElementTree.fromstring(picture(sweeps))
    charts = root.findall(f"{SVG}svg")
    assert [chart.attrib["aria-label"].partition(",")[0] for chart in charts] == [sweep.bundle for sweep in sweeps]
    for chart, sweep in zip(charts, sweeps, strict=True):
        alone = next(group for group in chart.iter(f"{SVG}g") if group.findtext(f"{SVG}title") == "classifier alone")
        heights = [float(mark.attrib["cy"]) for mark in alone.iter(f"{SVG}circle")]
        assert len(heights) == len(sweep.points)
        assert heights == sorted(heights)  # larger changes leave no more right


def test_every_colour_is_written_out_in_light_and_dark(sweeps: list[Sweep]) -> None:
    text = picture(sweeps)
    assert "--" not in text  # variables are black where nobody knows them
    style = text.partition("<style>")[2].partition("</style>")[0]
    light, dark = (re.findall(r"^(\S[^{]*) \{(.*?)\}$", part, re.MULTILINE) for part in style.split("@media"))
    coloured = {name: rule for name, rule in light if "#" in rule}
    assert len(coloured) >= 8
    assert coloured.keys() == dict(dark).keys()
    assert all(rule != dict(dark)[name] for name, rule in coloured.items())
    drawn = {name for kind in re.findall(r'class="([^"]+)"', text) for name in kind.split() if re.match(r"s\d", name)}
    assert drawn == {name[1:] for name in coloured if re.match(r"\.s\d", name)}


def test_it_loads_nothing_and_stays_small(sweeps: list[Sweep]) -> None:
    text = picture(sweeps)
    assert len(text.encode()) < 16_000
    assert not re.search(r"href|url\(|<script|<image", text)
