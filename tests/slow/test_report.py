"""The report in a real browser: it renders, the slider works, nothing is logged, nothing leaves the page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy.special import logit

from cetpick.checkpoint import save_model
from cetpick.config import ModelSettings, ParticleClass
from cetpick.io.table import read_table
from cetpick.networks.build import build_network
from tests.slow.browser import Browser, started
from tests.slow.conftest import Run, missing

pytestmark = pytest.mark.slow

SET_SLIDER = """(() => {{
    const slider = document.getElementById('{name}');
    slider.value = {value};
    slider.dispatchEvent(new Event('input'));
}})()"""


ROWS = "[...document.querySelectorAll('tr[data-row]')].map(row => [1, 2, 3, 4].map(i => row.cells[i].textContent))"
DRAWN = """[...document.querySelectorAll('canvas.slice')].map(canvas => {
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', {willReadFrequently: true});
    copy.drawImage(canvas, 0, 0);
    const pixels = copy.getImageData(0, 0, canvas.width, canvas.height).data;
    const greys = new Set(); let coloured = 0;
    for (let i = 0; i < pixels.length; i += 4) {
        greys.add(pixels[i]);
        if (Math.abs(pixels[i] - pixels[i + 2]) > 60) coloured++;
    }
    return [greys.size, coloured, Number(canvas.dataset.near), canvas.clientWidth];
})"""
"""Of each slice: grey levels, pixels in colour, marks that are counted, width."""
NAMELESS = """[...document.querySelectorAll('button, input, select, canvas, img, svg')].filter(element =>
    !(element.textContent.trim() || element.labels?.length || element.alt || element.getAttribute('aria-label')
      || element.getAttribute('aria-hidden'))
).map(element => element.outerHTML)"""
"""What a screen reader has no name for."""
STRIPS = """[...document.querySelectorAll('#gallery figure')].map(figure => [
    figure.querySelector('figcaption').textContent,
    [...figure.querySelectorAll('canvas')].map(canvas => canvas.getAttribute('aria-label')),
])"""
"""Of each strip of the gallery: its heading, and what stands for each picture."""
CUT_OFF = """[...document.querySelectorAll('pre, .scroll')].filter(box =>
    box.scrollWidth > box.clientWidth && !(box.className === 'scroll' && box.nextElementSibling.offsetHeight)
).map(box => box.outerHTML)"""
"""Commands that are wider than their box, and tables that are without saying so."""
TURN_ALL = """document.querySelectorAll('#slices input').forEach(slider => {{
    slider.value = {number};
    slider.dispatchEvent(new Event('input'));
}})"""
HATCHED = "[...document.querySelectorAll('canvas.slice')].map(canvas => Number(canvas.dataset.out))"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if not shutil.which("chromium"):
        missing("Chromium is not installed")
    with started(tmp_path) as browser:
        yield browser


@pytest.fixture
def results(cetpick: Run, tmp_path: Path) -> Path:
    """Picks of three tomograms, one with a name that is HTML; of one the pictures are lost."""
    cetpick("simulate", "-o", "sim", "-n", 3, "--shape", 160, 140, 48, "--difficulty", "easy")
    (tmp_path / "sim/sim_001.mrc").rename(tmp_path / "sim/<b>&quot.mrc")
    settings = ModelSettings(classes=(ParticleClass(diameter=210.0),), voxel_size=(26.0, 13.0, 13.0))
    network, model = build_network(settings, seed=0), tmp_path / "m.safetensors"
    save_model(model, network, settings)
    tomograms = ["sim/sim_000.mrc", "sim/<b>&quot.mrc", "sim/sim_002.mrc"]
    pick = ("pick", "-m", "m.safetensors", "--device", "cpu", "--threads", 1, "-o")
    # a network that was not trained scores all alike: a calibration spreads its scores
    cetpick(*pick, "raw", tomograms[0], "--no-report")
    low, high = logit(read_table(tmp_path / "raw/candidates/sim_000.csv").table["score"].quantile([0.02, 0.98]))
    save_model(model, network, replace(settings, calibration=((float(low), -4.0), (float(high), 4.0))))
    cetpick(*pick, "out", *tomograms)
    (tmp_path / "out/views/sim_002.json").unlink()
    cetpick("collect", "out")
    return tmp_path / "out"


def text(browser: Browser, name: str) -> str:
    return str(browser.js(f"document.getElementById('{name}').textContent"))


def set_slider(browser: Browser, name: str, value: int) -> None:
    browser.js(SET_SLIDER.format(name=name, value=value))
    browser.settle()


def test_report_in_a_browser(browser: Browser, results: Path, cetpick: Run) -> None:
    page = results / "report.html"
    record = json.loads((results / "run.json").read_text())["tomograms"]
    moved = results.parent / "elsewhere.html"  # it is one file
    shutil.move(page, moved)
    link = "#%3Cb%3E%26quot"
    browser.open(moved, width=1400, at=link)
    assert text(browser, "viewed") == "<b>&quot"
    browser.open(moved, width=1400)

    picks = sum(note["picks"] for note in record.values())
    assert text(browser, "picks") == str(picks)
    assert text(browser, "chosen") == "as picked"
    rows = browser.js("[...document.querySelectorAll('table.tomograms tbody tr')].map(row => row.cells[1].textContent)")
    assert rows == [str(note["picks"]) for note in record.values()]
    names = browser.js("[...document.querySelectorAll('table.tomograms tbody th')].map(cell => cell.innerText.trim())")
    assert names == list(record) == ["sim_000", "<b>&quot", "sim_002"]
    assert text(browser, "viewed") == "sim_000"

    # the slices are drawn: grey values of the tomogram, and circles in colour on them
    before = browser.js(DRAWN)
    assert len(before) == 3
    for greys, coloured, near, wide in before:
        assert greys > 50
        assert not near or coloured > 20
        assert 50 < wide <= 1400
    assert sum(near for _, _, near, _ in before) > 0
    scores = read_table(results / "candidates/sim_000.csv").table["score"]
    cut = record["sim_000"]["picks"]

    def told(ranks: range) -> list[str]:
        return [f"Candidate {rank + 1}, score {round(scores[rank] * 255) / 255:.2f}" for rank in ranks]

    best, _, last, others = browser.js(STRIPS)
    assert best == ["The best", told(range(8))]
    assert last == ["Borderline: the last picks", told(range(cut - 8, cut))]
    assert others == ["Below the cut: the next candidates", told(range(cut, cut + 8))]
    assert browser.js("[...document.querySelectorAll('#mean img')].every(image => image.naturalWidth > 20)")
    bars = "document.querySelectorAll('#scores rect').length"
    assert browser.js(bars) > 1

    # a slice slider scrolls through the tomogram
    caption = "document.querySelector('#slices figcaption').textContent"
    first = browser.js(caption)
    browser.js("document.querySelector('#slices input').id = 'xy'")
    set_slider(browser, "xy", 0)
    assert browser.js(caption) != first

    # the threshold's slider: at 1 nothing is left, at 0 everything, between the two what `repick` gives
    set_slider(browser, "threshold", 100)
    assert text(browser, "picks") == "0"
    assert browser.js(STRIPS)[2:] == [
        ["Borderline: the last picks", []],
        ["Below the cut: the next candidates", told(range(8))],
    ]
    assert all(near == 0 for _, _, near, _ in browser.js(DRAWN))
    set_slider(browser, "threshold", 0)
    assert text(browser, "picks") == str(sum(note["candidates"] for note in record.values()))
    # each in one slice of each plane that is thicker than a particle: none is lost between two, or at a face
    at_each = []
    for number in range(6):
        browser.js(TURN_ALL.format(number=number))
        browser.settle()
        at_each.append([near for _, _, near, _ in browser.js(DRAWN)])
    assert [sum(near) for near in zip(*at_each, strict=True)][1:] == [len(scores)] * 2
    everything = sum(at_each[2])
    assert everything > sum(near for _, _, near, _ in before)
    set_slider(browser, "threshold", 72)
    assert 0 < int(text(browser, "picks")) < picks
    cut = int((scores >= 0.72).sum())
    for (_, labels), before in zip(browser.js(STRIPS)[2:], (True, False), strict=True):  # they follow the slider
        ranks = [int(label.split()[1].rstrip(",")) for label in labels]
        assert len(ranks) == 8
        assert ranks == sorted(ranks)
        assert all((rank <= cut) == before for rank in ranks)
    command = text(browser, "command").split()
    assert command == ["cetpick", "repick", "out", "--threshold", "0.72"]
    cetpick(*command[1:])
    repicked = json.loads((results / "run.json").read_text())["tomograms"]
    rows = browser.js("[...document.querySelectorAll('table.tomograms tbody tr')].map(row => row.cells[1].textContent)")
    assert rows == [str(note["picks"]) for note in repicked.values()]
    assert text(browser, "picks") == str(sum(note["picks"] for note in repicked.values()))
    browser.js("document.getElementById('reset').click()")
    assert text(browser, "picks") == str(picks)

    # commands are broken into lines where they are shown, not where they are copied
    browser.js("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    selected = browser.js(
        "[...document.querySelectorAll('details pre')].map(box => { "
        "getSelection().selectAllChildren(box); return [box.textContent, getSelection().toString()]; })"
    )
    steps = json.loads(cetpick("report", "out", "--json", "--quiet"))["next"]
    assert selected == [["\n".join(step["commands"])] * 2 for step in steps]

    # other tomograms: one by its row, one without pictures by the arrow
    browser.js("document.querySelectorAll('table.tomograms [data-open]')[1].click()")
    assert text(browser, "viewed") == "<b>&quot"
    browser.js("document.getElementById('next').click()")
    browser.settle()
    assert text(browser, "viewed") == "sim_002"
    assert browser.js("getComputedStyle(document.getElementById('blank')).display") != "none"
    assert browser.js("getComputedStyle(document.getElementById('slices')).display") == "none"
    assert browser.js(bars) > 1

    # a tomogram that was chosen is in the address, and such a link opens it
    assert browser.js("location.hash") == "#sim_002"
    browser.js("document.getElementById('previous').click()")
    assert browser.js("location.hash") == link
    browser.js("location.hash = 'sim_002'")
    browser.settle()
    assert text(browser, "viewed") == "sim_002"
    browser.js("location.hash = 'threshold'")  # no tomogram
    browser.settle()
    assert text(browser, "viewed") == "sim_002"

    require_readable(browser, moved)


def require_readable(browser: Browser, page: Path) -> None:
    """Everything has a name, nothing sticks out on a desk or a phone, slices are drawn, nothing is logged."""
    assert browser.js(NAMELESS) == []
    for width, dark in ((1400, False), (390, True)):
        browser.open(page, width=width, dark=dark)
        assert browser.js("document.documentElement.scrollWidth") <= width
        browser.js("document.querySelectorAll('details').forEach(part => { part.open = true; })")
        assert browser.js(CUT_OFF) == []
        assert (browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") != dark
        slices = browser.js(DRAWN)
        assert len(slices) == 3
        assert all(greys > 50 and wide <= width for greys, _, _, wide in slices)
    assert browser.problems == []
    assert {url for url in browser.requests if not url.startswith("data:")} == {page.as_uri()}


def test_evaluation_in_a_browser(browser: Browser, results: Path, cetpick: Run, tmp_path: Path) -> None:
    (tmp_path / "sim/truth/sim_001.csv").rename(tmp_path / "sim/truth/<b>&quot.csv")
    page = tmp_path / "evaluation.html"
    arguments = ("evaluate", "out", "--truth", "sim/truth", "--radius", 4, "--radius", 8)
    summary = json.loads(cetpick(*arguments, "--report", page, "--json"))
    browser.open(page, width=1400)

    def require(result: dict[str, Any]) -> None:
        of = result["at_threshold"]
        assert text(browser, "picks") == str(of["picks"])
        assert text(browser, "f1") == f"{of['f1']:.3f}"
        rows = browser.js(ROWS)
        assert [sum(int(cells[column]) for cells in rows) for column in (0, 1, 3)] == [
            of["picks"], of["matched"], of["truths"] - of["matched"],
        ]  # fmt: skip

    require(summary["results"][0])
    assert browser.js("document.querySelectorAll('#pooled circle').length") == 2
    slices = browser.js(DRAWN)
    assert all(coloured > 20 for _, coloured, near, _ in slices if near)
    assert sum(near for _, _, near, _ in slices) > 0
    browser.js("document.getElementById('radius').value = 1")
    browser.js("document.getElementById('radius').dispatchEvent(new Event('change'))")
    require(summary["results"][1])
    set_slider(browser, "threshold", 83)
    assert text(browser, "chosen") == "0.83"
    at = json.loads(cetpick(*arguments, "--threshold", 0.83, "--json"))
    require(at["results"][1])
    # without picks every reference point is missed
    set_slider(browser, "threshold", 100)
    captions = browser.js("[...document.querySelectorAll('#slices figcaption')].map(caption => caption.textContent)")
    assert all(": 0 hits, 0 false picks, " in caption for caption in captions)
    browser.js("document.getElementById('reset').click()")
    assert text(browser, "chosen") == "as picked"
    require_readable(browser, page)


def test_training_in_a_browser(browser: Browser, cetpick: Run, tmp_path: Path) -> None:
    cetpick("simulate", "-o", "sim", "--shape", 160, 140, 48, "--difficulty", "easy")
    train = ("train", "sim/sim_000.mrc", "-l", "sim/labels/sim_000.mod", "-d", 210, "--mode", "paper", "--steps", 2)
    cetpick(*train, "--slab", 100, 400, "-o", "m.safetensors", "--device", "cpu", "--threads", 1)
    page = tmp_path / "m.report.html"
    labels = json.loads((tmp_path / "m.run.json").read_text())["training"]["labels"]["sim_000"]
    browser.open(page, width=1400)
    assert browser.js(HATCHED) == [0, 1, 1]  # of the slab the middle is left
    assert "outside of the slab" in text(browser, "excluded")
    slices = browser.js(DRAWN)
    assert all(coloured > 20 for _, coloured, near, _ in slices if near)
    assert 0 < max(near for _, _, near, _ in slices) <= labels
    assert browser.js("document.querySelectorAll('#curves svg').length") > 3
    require_readable(browser, page)
