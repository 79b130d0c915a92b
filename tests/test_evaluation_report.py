"""The report of `evaluate`: its numbers are those of the metrics, at any threshold; its slices are of the tomogram."""

from __future__ import annotations

import base64
import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cetpick.io.mrc import write_mrc
from cetpick.metrics import Scene, evaluate, match_scene
from cetpick.report import views
from cetpick.report.evaluation import Judged, Page, Section, _thresholds, curve_points, render
from cetpick.report.plots import plot_precision_recall
from tests.conftest import Run, read_page

SIZE = (64, 48, 32)
NAMES = ("t1", "t2")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of `pick` in two tomograms of noise, cut at .5 and .6: true places with errors, and false ones; truth."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out/candidates").mkdir(parents=True)
    (tmp_path / "truth").mkdir()
    entries = {}
    for seed, name in enumerate(NAMES):
        rng = np.random.default_rng(seed)
        truth = rng.uniform(0, 1, (20, 3)) * SIZE - 0.5
        picks = np.vstack([truth[:15] + rng.normal(0, 1, (15, 3)), rng.uniform(0, 1, (25, 3)) * SIZE - 0.5])
        scores = np.round(np.concatenate([rng.beta(3, 1, 15), rng.beta(1, 3, 25)]), 2)  # some are steps of the slider
        np.savetxt(f"truth/{name}.csv", truth, delimiter=",", header="x,y,z", comments="")
        table = np.column_stack([picks, scores])
        np.savetxt(f"out/candidates/{name}.csv", table, delimiter=",", header="x,y,z,score", comments="")
        write_mrc(Path(f"{name}.mrc"), rng.normal(size=SIZE[::-1]).astype(np.float32), voxel_size=10.0)
        entries[name] = {"file": f"{name}.mrc", "voxel_size": 10.0, "size": SIZE, "threshold": 0.5 + seed / 10}
    record = {"threshold": 0.5, "model": {"classes": [{"diameter": 80.0}]}, "tomograms": entries}
    Path("out/run.json").write_text(json.dumps(record))
    return tmp_path


def summary_of(cetpick: Run, *arguments: object) -> dict[str, Any]:
    code, out, err = cetpick("evaluate", *arguments, "--json")
    assert code == 0, err
    values: dict[str, Any] = json.loads(out)
    return values


def total(values: dict[str, Any], radius: int, what: str, step: int | None) -> int:
    of = [tomogram["radii"][radius] for tomogram in values["tomograms"]]
    return sum(one["own"][what] if step is None else one[{"picks": "counts"}.get(what, what)][step] for one in of)


@pytest.mark.parametrize("more", [(), ("--margin", "6,6,0")])
def test_the_slider_tells_what_evaluate_gives(cetpick: Run, data: Path, more: tuple[str, ...]) -> None:
    arguments = ("out", "--truth", "truth", "--radius", 2, "--radius", 4, *more)
    summary = summary_of(cetpick, *arguments, "--report", "e.html")
    assert summary["report"] == "e.html"
    text, values = read_page(Path("e.html"))
    for radius, result in enumerate(summary["results"]):
        own = result["at_threshold"]
        assert total(values, radius, "picks", None) == own["picks"]
        assert total(values, radius, "matched", None) == own["matched"]
        assert sum(tomogram["radii"][radius]["truths"] for tomogram in values["tomograms"]) == own["truths"]
        pooled = values["pooled"][radius]
        assert pooled["average_precision"] == pytest.approx(result["average_precision"])
        assert pooled["best"] == {key: result["best"][key] for key in ("picks", "matched")}
        assert pooled["own"] == {key: own[key] for key in ("picks", "matched")}
        assert f"<td>{own['precision']:.4f}</td><td>{own['recall']:.4f}</td><td>{own['f1']:.4f}</td>" in text
    for step in (0, 20, 57, 100):
        at = summary_of(cetpick, *arguments, "--threshold", step / 100)["results"]
        for radius, result in enumerate(at):
            assert total(values, radius, "picks", step) == result["at_threshold"]["picks"]
            assert total(values, radius, "matched", step) == result["at_threshold"]["matched"]
    for tomogram in values["tomograms"]:
        for of in tomogram["radii"]:
            assert len(of["outcome"]) == 40
            assert of["outcome"].count("h") == of["matched"][0]
            assert ("i" in of["outcome"]) == bool(more)
            found = np.delete(np.frombuffer(base64.b64decode(of["found"]), np.uint8), of["ignored"])
            for step in (0, 20, 57, 100):
                assert ((found & 127) > step).sum() == of["matched"][step]
            assert (found >= 128).sum() == of["own"]["matched"]
    assert values["thresholds"] == [step / 100 for step in range(101)]
    assert [tomogram["accepted"] for tomogram in values["tomograms"]] == [
        sum(np.loadtxt(f"out/candidates/{name}.csv", delimiter=",", skiprows=1)[:, 3] >= cut)
        for name, cut in zip(NAMES, (0.5, 0.6), strict=True)
    ]
    # nothing is fetched
    assert "default-src 'none'; img-src data:;" in text


def test_slices_are_those_of_pick_or_of_the_tomogram(cetpick: Run, data: Path) -> None:
    arguments = ("evaluate", "out", "--truth", "truth", "--report", "e.html")
    code, out, err = cetpick(*arguments)
    assert (code, out.splitlines()[-1]) == (0, "report: e.html")
    assert "no slices of t1: no pictures of it" in err
    values = read_page(Path("e.html"))[1]
    assert [tomogram["view"] for tomogram in values["tomograms"]] == [None, None]
    assert "name the tomogram with --tomogram" in err
    code, _, err = cetpick(*arguments)
    assert code == 2
    assert "name another output with --report, or add --overwrite" in err
    before = Path("truth/t1.csv").read_bytes()
    code, _, err = cetpick(*arguments[:-1], "truth/t1.csv", "--overwrite")
    assert (code, "the report is a page" in err) == (2, True)
    assert Path("truth/t1.csv").read_bytes() == before
    assert cetpick(*arguments, "--overwrite", "--tomogram", "t1.mrc", "--tomogram", "t2.mrc")[0] == 0
    drawn = read_page(Path("e.html"))[1]
    for tomogram in drawn["tomograms"]:
        assert tomogram["view"]["planes"].keys() == {"xy", "xz", "yz"}
        packed = np.frombuffer(base64.b64decode(tomogram["view"]["truths"]), "<u2").reshape(-1, 3)
        truth = np.loadtxt(f"truth/{tomogram['name']}.csv", delimiter=",", skiprows=1)
        np.testing.assert_allclose(packed / 65535 * SIZE - 0.5, truth, atol=1e-3)
    Path("out/views").mkdir()
    for tomogram in drawn["tomograms"]:
        view = {"format": views.FORMAT, "planes": tomogram["view"]["planes"]}
        Path(f"out/views/{tomogram['name']}.json").write_text(json.dumps(view))
    code, _, err = cetpick(*arguments, "--overwrite")
    assert "no slices" not in err
    kept = read_page(Path("e.html"))[1]
    planes = [[tomogram["view"]["planes"] for tomogram in values["tomograms"]] for values in (kept, drawn)]
    assert planes[0] == planes[1]


def test_picks_without_scores_and_tomograms_without_reference_points(cetpick: Run, data: Path) -> None:
    Path("picks").mkdir()
    for name in NAMES:
        table = np.loadtxt(f"out/candidates/{name}.csv", delimiter=",", skiprows=1)[:, :3]
        np.savetxt(f"picks/{name}.csv", table, delimiter=",", header="x,y,z", comments="")
    Path("truth/t2.csv").write_text("x,y,z\n")
    cetpick("evaluate", "picks", "--truth", "truth", "--report", "<b>&.html")
    text, values = read_page(Path("<b>&.html"))
    assert 'aria-label="Threshold" hidden>' in text
    assert values["cut"] is None
    assert values["pooled"][0]["curve"] == []
    first, second = (tomogram["radii"][0] for tomogram in values["tomograms"])
    assert first["own"] == {"picks": 40, "matched": first["outcome"].count("h")}
    assert (second["truths"], second["own"], second["outcome"]) == (0, {"picks": 40, "matched": 0}, "f" * 40)
    assert "<b>&.html" not in text


def test_plots(cetpick: Run, data: Path) -> None:
    arguments = ("evaluate", "out", "--truth", "truth", "--plots", "svg")
    code, _, err = cetpick(*arguments, "--no-report")
    assert (code, "--plots lie beside the report" in err) == (2, True)
    _, out, _ = cetpick(*arguments, "--report", "out/e.html")
    assert out.splitlines()[-1] == "report: out/e.html, plot: out/plots/precision_recall.svg"
    (result,) = summary_of(cetpick, "out", "--truth", "truth")["results"]
    text = Path("out/plots/precision_recall.svg").read_text()
    assert f"all: AP {result['average_precision']:.3f}" in text
    assert f"tool's cut: F1 {result['at_threshold']['f1']:.3f}" in text


def test_names_of_tomograms_are_no_mathematics(tmp_path: Path) -> None:
    """Nor hidden, as matplotlib hides what begins with _."""
    result = evaluate([scene(50)], 1.0)
    names = ["_hidden", "a$^{b$", "cost_$5"]
    plot_precision_recall(tmp_path / "p.svg", result, dict.fromkeys(names, result), cut="cut")
    text = (tmp_path / "p.svg").read_text()
    for name in names:
        assert f"{name}: AP " in text


def test_a_folder_that_cannot_be_written_to_still_gives_figures(
    cetpick: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a read-only file system, where even what is not there cannot be removed."""

    def read_only(self: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", read_only)
        patched.setattr(Path, "unlink", read_only)
        code, out, err = cetpick("evaluate", "out", "--truth", "truth")
    assert code == 0
    assert out == cetpick("evaluate", "out", "--truth", "truth", "--no-report")[1]
    assert "no report: out/evaluation.html: cannot be written" in err
    assert "Read-only file system" in err


def test_a_diameter_is_twice_the_radius(cetpick: Run, data: Path) -> None:
    by_radius = summary_of(cetpick, "out/candidates", "--truth", "truth", "--radius", 3, "--voxel-size", 10)
    by_diameter = summary_of(cetpick, "out/candidates", "--truth", "truth", "--diameter", 60, "--voxel-size", 10)
    assert by_diameter["results"] == by_radius["results"]
    assert by_diameter["radius_is"] == "half the diameter of 60 angstrom"
    (result,) = summary_of(cetpick, "out", "--truth", "truth", "-d", 60)["results"]
    assert (result["radius"], result["radius_angstrom"]) == (3, 30)  # instead of that of the run, 80 A
    code, _, err = cetpick("evaluate", "out/candidates", "--truth", "truth", "--diameter", 60)
    assert (code, "--diameter needs the voxel size" in err) == (2, True)
    code, _, err = cetpick("evaluate", "out", "--truth", "truth", "--diameter", 60, "--radius", 3)
    assert (code, "the radius of a match is given twice" in err) == (2, True)
    assert cetpick("evaluate", "out", "--truth", "truth", "--diameter", 6)[0] == 2  # nanometres


def scene(count: int) -> Scene:
    rng = np.random.default_rng(count)
    truth = rng.uniform(0, 1, (4000, 3)) * SIZE
    picks = np.vstack([truth[: count // 2], rng.uniform(0, 1, (count - count // 2, 3)) * SIZE])
    return Scene(name="a" * 200, picks=picks, scores=rng.normal(size=count), truth=truth, shape=SIZE[::-1])


def test_curves_are_thinned_evenly_with_their_ends() -> None:
    result = evaluate([scene(3000)], 1.0)
    points = np.array(curve_points(result))
    assert len(points) <= 201
    assert np.diff(points[:, 0]).max() < 0.02
    assert points[-1].tolist() == pytest.approx([result.recall[-1], result.precision[-1]], abs=1e-4)
    assert len(curve_points(evaluate([scene(100)], 1.0))) == 100


def test_fifty_tomograms_stay_below_15_mb() -> None:
    one = scene(6000)
    result = evaluate([one], 1.0)
    slices = {"at": [1], "thickness": 1, "slices": ["x" * views.MOST_BYTES], "left_out": [None]}
    judged = [Judged(matches=match_scene(one, 1.0), result=result)] * 2
    section = Section(scene=one, judged=judged, voxel_size=10.0, excluded="", planes={"xy": slices})
    page = Page(
        title="out", sections=[section] * 50, results=[result, result], radii=["1", "2"], figures=(["radius"], [["1"]]),
        scored=True, cut=None, diameter=80.0, note=None, facts={}, warnings=[], version="0",
    )  # fmt: skip
    text = render(page)
    assert len(text.encode()) < 15_000_000


@pytest.mark.parametrize(
    ("low", "high"), [(-3.14159, 12.3456), (0.2, 1.00004), (-7.654321e-3, 0.0), (1e5, 3.3e6), (5.4321, 5.4321)]
)
def test_thresholds_of_the_slider_have_few_digits(low: float, high: float) -> None:
    """Those that are shown are those that count, so that `--threshold` gives what the page tells."""
    scores = np.random.default_rng(0).uniform(low, high, 100)
    scores[:2] = low, high
    steps = _thresholds([scores])
    assert len(steps) == 101
    assert (np.diff(steps) >= 0).all()
    assert steps[0] <= low
    assert (scores >= steps[0]).all()
    assert (scores >= steps[-1]).any()
    assert max(len(repr(step).lstrip("-").replace(".", "").strip("0")) for step in steps.tolist()) <= 6
    if high > low:
        assert np.abs(steps - np.linspace(low, high, 101)).max() <= (high - low) / 1000


def test_it_is_left_in_a_folder_of_picks(cetpick: Run, data: Path) -> None:
    left = Path("out/evaluation.html")
    assert summary_of(cetpick, "out", "--truth", "truth", "--no-report").get("report") is None
    assert not left.exists()
    assert summary_of(cetpick, "out", "--truth", "truth")["report"] == str(left)
    first = read_page(left)[1]["pooled"]
    # an earlier one is replaced
    assert summary_of(cetpick, "out", "--truth", "truth", "--radius", "1")["report"] == str(left)
    assert read_page(left)[1]["pooled"] != first
    # nowhere to leave it
    assert summary_of(cetpick, "out/candidates/t1.csv", "--truth", "truth/t1.csv").get("report") is None
    left.unlink()
    left.mkdir()
    code, out, err = cetpick("evaluate", "out", "--truth", "truth")
    assert code == 0
    assert "AP" in out
    assert "warning: no report:" in err
