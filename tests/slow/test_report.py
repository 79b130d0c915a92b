"""The report in a real browser: it renders, the slider works, nothing is logged, nothing leaves the page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    settings = ModelSettings(
        classes=(ParticleClass(diameter=210.0),),
        voxel_size=(26.0, 13.0, 13.0),
        calibration=((-1.0, -1.0), (1.0, 1.0)),
        threshold=0.5,
    )
    save_model(tmp_path / "m.safetensors", build_network(settings, seed=0), settings)
    tomograms = ["sim/sim_000.mrc", "sim/<b>&quot.mrc", "sim/sim_002.mrc"]
    cetpick("pick", *tomograms, "-m", "m.safetensors", "-o", "out", "--device", "cpu", "--threads", 1)
    # a network that was not trained scores all alike: the cut is put in the middle of its scores, on the slider's grid
    scores = read_table(tmp_path / "out/candidates/sim_000.csv").table["score"]
    cetpick("repick", "out", "--threshold", scores.median())
    (tmp_path / "out/views/sim_002.json").unlink()
    cetpick("collect", "out")
    return tmp_path / "out"


def text(browser: Browser, name: str) -> str:
    return str(browser.js(f"document.getElementById('{name}').textContent"))


def set_slider(browser: Browser, name: str, value: int) -> None:
    browser.js(SET_SLIDER.format(name=name, value=value))
    browser.settle()


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (390, True)])
def test_report_in_a_browser(browser: Browser, results: Path, cetpick: Run, width: int, dark: bool) -> None:
    page = results / "report.html"
    record = json.loads((results / "run.json").read_text())["tomograms"]
    moved = results.parent / "elsewhere.html"  # it is one file
    shutil.move(page, moved)
    browser.open(moved, width=width, dark=dark)

    picks = sum(note["picks"] for note in record.values())
    assert text(browser, "picks") == str(picks)
    assert text(browser, "chosen") == "as picked"
    rows = browser.js("[...document.querySelectorAll('#table tbody tr')].map(row => row.cells[1].textContent)")
    assert rows == [str(note["picks"]) for note in record.values()]
    names = browser.js("[...document.querySelectorAll('#table tbody th')].map(cell => cell.innerText.trim())")
    assert names == list(record) == ["sim_000", "<b>&quot", "sim_002"]
    assert text(browser, "viewed") == "sim_000"

    # the slices are drawn: grey values of the tomogram, and circles in colour on them
    drawn = """[...document.querySelectorAll('canvas.slice')].map(canvas => {
        const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        const greys = new Set(); let coloured = 0;
        for (let i = 0; i < pixels.length; i += 4) {
            greys.add(pixels[i]);
            if (Math.abs(pixels[i] - pixels[i + 2]) > 60) coloured++;
        }
        return [greys.size, coloured, Number(canvas.dataset.near), canvas.clientWidth];
    })"""
    before = browser.js(drawn)
    assert len(before) == 3
    for greys, _, _, wide in before:
        assert greys > 50
        assert 50 < wide <= width
    assert sum(near for _, _, near, _ in before) > 0
    assert browser.js("document.querySelectorAll('#gallery canvas').length") >= 16
    assert browser.js("[...document.querySelectorAll('#mean img')].every(image => image.naturalWidth > 20)")
    bars = "document.querySelectorAll('#scores rect').length"
    assert browser.js(bars) > 1

    # a slice slider scrolls through the tomogram
    caption = "document.querySelector('#slices figcaption').textContent"
    first = browser.js(caption)
    browser.js(
        "(() => { const s = document.querySelector('#slices input');"
        " s.value = 0; s.dispatchEvent(new Event('input')); })()"
    )
    browser.settle()
    assert browser.js(caption) != first

    # the threshold's slider: at 1 nothing is left, at 0 everything, between the two what `repick` gives
    set_slider(browser, "threshold", 100)
    assert text(browser, "picks") == "0"
    assert all(near == 0 for _, _, near, _ in browser.js(drawn))
    set_slider(browser, "threshold", 0)
    assert text(browser, "picks") == str(sum(note["candidates"] for note in record.values()))
    everything = sum(near for _, _, near, _ in browser.js(drawn))
    assert everything > sum(near for _, _, near, _ in before)
    scores = read_table(results / "candidates/sim_000.csv").table["score"]
    step = round(scores.median() * 100)
    set_slider(browser, "threshold", step)
    command = text(browser, "command").split()
    assert command == ["cetpick", "repick", "out", "--threshold", f"{step / 100:.2f}"]
    cetpick(*command[1:])
    repicked = json.loads((results / "run.json").read_text())["tomograms"]
    rows = browser.js("[...document.querySelectorAll('#table tbody tr')].map(row => row.cells[1].textContent)")
    assert rows == [str(note["picks"]) for note in repicked.values()]
    assert text(browser, "picks") == str(sum(note["picks"] for note in repicked.values()))
    browser.js("document.getElementById('reset').click()")
    assert text(browser, "picks") == str(picks)

    # other tomograms: one by its row, one without pictures by the arrow
    browser.js("document.querySelectorAll('[data-open]')[1].click()")
    assert text(browser, "viewed") == "<b>&quot"
    browser.js("document.getElementById('next').click()")
    browser.settle()
    assert text(browser, "viewed") == "sim_002"
    assert browser.js("getComputedStyle(document.getElementById('blank')).display") != "none"
    assert browser.js("getComputedStyle(document.getElementById('slices')).display") == "none"
    assert browser.js(bars) > 1

    # readable: nothing sticks out at the side; every control has a name
    assert browser.js("document.documentElement.scrollWidth") <= width
    nameless = """[...document.querySelectorAll('button, input, select, canvas, img, svg')].filter(element =>
        !(element.textContent.trim() || element.labels?.length || element.alt || element.getAttribute('aria-label'))
    ).map(element => element.outerHTML)"""
    assert browser.js(nameless) == []
    colours = browser.js("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
    assert (colours == ["rgb(255, 255, 255)", "rgb(26, 29, 33)"]) != dark

    assert browser.problems == []
    outside = [url for url in browser.requests if not url.startswith("data:")]
    assert outside == [moved.as_uri()]
