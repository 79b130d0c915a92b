"""The report in a real browser: it renders, the slider works, nothing is logged, nothing leaves the page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

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
    browser.open(moved, width=1400)

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
    before = browser.js(drawn)
    assert len(before) == 3
    for greys, coloured, near, wide in before:
        assert greys > 50
        assert not near or coloured > 20
        assert 50 < wide <= 1400
    assert sum(near for _, _, near, _ in before) > 0
    assert browser.js("document.querySelectorAll('#gallery canvas').length") >= 16
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
    assert all(near == 0 for _, _, near, _ in browser.js(drawn))
    set_slider(browser, "threshold", 0)
    assert text(browser, "picks") == str(sum(note["candidates"] for note in record.values()))
    everything = sum(near for _, _, near, _ in browser.js(drawn))
    assert everything > sum(near for _, _, near, _ in before)
    set_slider(browser, "threshold", 72)
    assert 0 < int(text(browser, "picks")) < picks
    command = text(browser, "command").split()
    assert command == ["cetpick", "repick", "out", "--threshold", "0.72"]
    cetpick(*command[1:])
    repicked = json.loads((results / "run.json").read_text())["tomograms"]
    rows = browser.js("[...document.querySelectorAll('#table tbody tr')].map(row => row.cells[1].textContent)")
    assert rows == [str(note["picks"]) for note in repicked.values()]
    assert text(browser, "picks") == str(sum(note["picks"] for note in repicked.values()))
    browser.js("document.getElementById('reset').click()")
    assert text(browser, "picks") == str(picks)

    # other tomograms: one by its row, one without pictures by the arrow
    browser.js("document.querySelectorAll('#table [data-open]')[1].click()")
    assert text(browser, "viewed") == "<b>&quot"
    browser.js("document.getElementById('next').click()")
    browser.settle()
    assert text(browser, "viewed") == "sim_002"
    assert browser.js("getComputedStyle(document.getElementById('blank')).display") != "none"
    assert browser.js("getComputedStyle(document.getElementById('slices')).display") == "none"
    assert browser.js(bars) > 1

    nameless = """[...document.querySelectorAll('button, input, select, canvas, img, svg')].filter(element =>
        !(element.textContent.trim() || element.labels?.length || element.alt || element.getAttribute('aria-label'))
    ).map(element => element.outerHTML)"""
    assert browser.js(nameless) == []
    for width, dark in ((1400, False), (390, True)):
        browser.open(moved, width=width, dark=dark)
        assert browser.js("document.documentElement.scrollWidth") <= width  # nothing sticks out at the side
        assert (browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") != dark
        assert all(greys > 50 and wide <= width for greys, _, _, wide in browser.js(drawn))

    assert browser.problems == []
    outside = [url for url in browser.requests if not url.startswith("data:")]
    assert set(outside) == {moved.as_uri()}
