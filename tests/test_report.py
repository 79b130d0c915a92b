"""The report: its numbers are those of the records and of `repick`, its pictures are of the tomogram."""

import base64
import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

import cetpick.workflows.batch as batch_workflow
import cetpick.workflows.plots as plots_workflow
import cetpick.workflows.report as workflow
from cetpick.checkpoint import save_model
from cetpick.config import ModelSettings, ParticleClass
from cetpick.io.mrc import write_mrc
from cetpick.networks.build import build_network
from cetpick.preprocess import Exclusions, Prepared
from cetpick.records import Grid, RelionTomogram, TomogramInfo
from cetpick.report import overlay, plots, views
from cetpick.report.handover import box_side, next_steps
from cetpick.report.page import Candidates, Page, Section, render
from cetpick.workflows.results import PLOT_KINDS
from cetpick.workflows.runs import complete_record, read_run
from tests.conftest import Run, read_page, read_picture

NAMES = ("a", "b", "c")
DIAMETER = 60.0
SHAPE = (20, 48, 52)
CURVE = [{"step": step, "loss": 1 / step} for step in (1, 2, 3)]


def found(seed: int, count: int = 120) -> pd.DataFrame:
    """Candidates of any scores, by falling score."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.uniform(0, 1, (count, 3)) * SHAPE[::-1] - 0.5, columns=["x", "y", "z"])
    table["score"] = np.sort(rng.beta(0.4, 0.6, count))[::-1]
    table["class"] = "particle"
    return table


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tomograms of noise, and a model whose scores are taken for probabilities."""
    folder = tmp_path_factory.mktemp("source")
    for seed, name in enumerate(NAMES):
        data = np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)
        write_mrc(folder / f"{name}.mrc", data, voxel_size=10.0)
    settings = ModelSettings(
        classes=(ParticleClass(diameter=DIAMETER),), voxel_size=(20, 10, 10), calibration=((-1.0, -1.0), (1.0, 1.0))
    )
    save_model(folder / "m.safetensors", build_network(settings, seed=0), settings)
    return folder


@pytest.fixture
def data(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy as the current folder, in which picking finds what `found` says."""
    shutil.copytree(source, tmp_path / "data")
    monkeypatch.chdir(tmp_path / "data")
    seeds = iter(range(100))
    monkeypatch.setattr(batch_workflow, "find_candidates", lambda *_, **__: found(next(seeds)))
    return tmp_path / "data"


@pytest.fixture
def pick(cetpick: Run, data: Path) -> Run:
    def pick(*more: object, tomograms: tuple[str, ...] = tuple(f"{name}.mrc" for name in NAMES)) -> Any:
        code, out, err = cetpick("pick", *tomograms, "-m", "m.safetensors", "-o", "out", *more)
        assert code == 0, err
        return code, out, err

    return pick


def page() -> tuple[str, dict[str, Any]]:
    """The report, and what its script reads."""
    return read_page(Path("out/report.html"))


def run_json() -> dict[str, Any]:
    values: dict[str, Any] = json.loads(Path("out/run.json").read_text())
    return values


def peak(image: np.ndarray) -> np.ndarray:
    """Row and column of the brightest place; single pixels are cut off at white."""
    smooth = ndimage.gaussian_filter(image.astype(float), 4)
    return np.array(np.unravel_index(smooth.argmax(), smooth.shape))


def picture(uri: str) -> np.ndarray:
    """The pixels of a data URI."""
    return np.asarray(read_picture(uri))


def test_one_file_tells_what_the_records_tell(pick: Run) -> None:
    _, out, _ = pick()
    assert out.splitlines()[-2] == "results: out/particles.star, out/run.json, out/report.html"
    text, values = page()
    record = run_json()
    assert "out/report.html" in record["outputs"]
    assert [tomogram["name"] for tomogram in values["tomograms"]] == list(NAMES)
    for tomogram in values["tomograms"]:
        note = record["tomograms"][tomogram["name"]]
        told = {key: note[key] for key in ("size", "picks", "candidates")}
        assert {key: tomogram[key] for key in told} == told
        assert (tomogram["lowest"], tomogram["voxel"]) == (note["threshold"], note["voxel_size"])
        assert tomogram["everything"] == note["expected_particles"]
        assert tomogram["particles"] / tomogram["picks"] == pytest.approx(note["expected_precision"], abs=1e-3)
        assert sum(tomogram["histogram"]) == note["candidates"]
        assert f"<td>{note['picks']}</td>" in text
        assert f"<td>{note['expected_recall']:.0%}</td>" in text
        assert tomogram["view"]["planes"].keys() == {"xy", "xz", "yz"}
    # nothing is fetched: pictures are in it, styles and script too, and the browser is told to load nothing else
    assert "default-src 'none'; img-src data:;" in text
    assert not re.findall("<link|<iframe|<script src|<img|@import|url[(]", text)
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}
    assert len(text) < 15e6 / 50 * len(NAMES)


@pytest.mark.parametrize("options", [(), ("--top", 40), ("--separation", 1.5, "--top", 30)])
def test_the_slider_tells_what_repick_gives(pick: Run, cetpick: Run, options: tuple[object, ...]) -> None:
    pick()
    if options:
        assert cetpick("repick", "out", *options)[0] == 0
    _, values = page()
    command, kept = values["repick"]
    assert command == "cetpick repick out"
    assert set(kept.split()) == set(map(str, options))
    for step in (0, 13, 50, 77, 100):
        assert cetpick("repick", "out", "--threshold", f"{step / 100:.2f}", *kept.split(), "--no-report")[0] == 0
        notes = run_json()["tomograms"]
        for tomogram in values["tomograms"]:
            note = notes[tomogram["name"]]
            assert tomogram["counts"][step] == note["picks"]
            if note["picks"]:
                precision = tomogram["sums"][step] / tomogram["counts"][step]
                assert precision == pytest.approx(note["expected_precision"], abs=1e-3)
    assert not Path("out/report.html").exists()


def test_what_lies_too_close_is_missed(pick: Run, cetpick: Run) -> None:
    """A separation leaves out candidates, not the particles that these are expected to be."""
    pick()
    expected, before = run_json()["expected_particles"], pd.read_csv("out/expected_precision.csv")
    assert cetpick("repick", "out", "--separation", 1.5)[0] == 0
    assert run_json()["expected_particles"] == pytest.approx(expected)
    after = pd.read_csv("out/expected_precision.csv")
    assert (after["recall"] < before["recall"]).all()
    assert after["recall"].max() < 0.5
    np.testing.assert_allclose(after["recall"], after["particles"] / expected, atol=1e-3)
    assert all(tomogram["everything"] > 1.2 * tomogram["sums"][0] for tomogram in page()[1]["tomograms"])


def test_points_of_the_page_are_the_candidates(pick: Run) -> None:
    pick(tomograms=("b.mrc",))
    _, values = page()
    (tomogram,) = values["tomograms"]
    packed = base64.b64decode(tomogram["view"]["points"])
    count = len(packed) // 7
    xyz = np.frombuffer(packed[: 6 * count], "<u2").reshape(-1, 3) / 65535 * tomogram["size"] - 0.5
    scores = np.frombuffer(packed[6 * count :], np.uint8) / 255
    expected = found(0)
    np.testing.assert_allclose(xyz, expected[["x", "y", "z"]], atol=1e-3)
    np.testing.assert_allclose(scores, expected["score"], atol=1 / 500)
    held = tomogram["view"]["thumbs"]["of"]
    assert held == sorted(set(held))
    cut = tomogram["picks"]
    assert {*range(8), cut // 2, *range(cut - 8, cut + 8)} <= set(held)  # the best, the last picks, the next ones


def test_names_from_files_are_no_html(pick: Run) -> None:
    name = "<svg&onload=alert(1)>"
    Path("a.mrc").rename(f"{name}.mrc")
    pick(tomograms=(f"{name}.mrc",))
    text, values = page()
    assert values["tomograms"][0]["name"] == name
    assert name not in text
    assert "&lt;svg&amp;onload=alert(1)&gt;" in text


def test_pictures_are_kept_and_drawn_again(pick: Run, cetpick: Run) -> None:
    pick()
    before = page()[1]
    for name in NAMES:
        Path(f"{name}.mrc").rename(f"{name}.away")
    assert cetpick("repick", "out", "--threshold", 0.3)[0] == 0  # needs no tomogram
    after = page()[1]
    assert after["threshold"] == 0.3
    assert [t["view"]["planes"] for t in after["tomograms"]] == [t["view"]["planes"] for t in before["tomograms"]]
    shutil.rmtree("out/views")
    assert cetpick("repick", "out", "--threshold", 0.5)[0] == 0
    assert [tomogram["view"] for tomogram in page()[1]["tomograms"]] == [None] * 3
    assert "Pictures of 0 of 3 tomograms; the others have none. `cetpick report out` draws" in page()[0]
    Path("b.away").rename("b.mrc")
    write_mrc(Path("c.mrc"), np.ones(SHAPE, np.float32), voxel_size=10.0)  # another one of this name
    code, out, err = cetpick("report", "out")
    assert code == 0
    assert "drew b" in err
    assert "no pictures of a: " in err
    assert "no pictures of c: " in err
    assert out.splitlines()[-1] == "results: out/report.html: 3 tomograms, pictures of 1"
    redrawn = page()[1]["tomograms"]
    assert [tomogram["view"] is not None for tomogram in redrawn] == [False, True, False]
    assert redrawn[1]["view"]["planes"] == before["tomograms"][1]["view"]["planes"]
    assert [tomogram["counts"] for tomogram in redrawn] == [tomogram["counts"] for tomogram in before["tomograms"]]


def test_pictures_of_other_candidates_are_not_used(pick: Run, cetpick: Run) -> None:
    pick()
    kept = Path("out/views/a.json")
    right = json.loads(kept.read_text())
    kept.write_text(json.dumps(right | {"candidates": "0" * 64}))
    assert cetpick("collect", "out")[0] == 0
    assert [tomogram["view"] is not None for tomogram in page()[1]["tomograms"]] == [False, True, True]
    pick()
    assert all(tomogram["view"] for tomogram in page()[1]["tomograms"])
    assert json.loads(kept.read_text()) == right


def test_no_report(pick: Run, cetpick: Run) -> None:
    pick("--no-report")
    assert not Path("out/report.html").exists()
    assert not Path("out/views").exists()
    assert cetpick("report", "out")[0] == 0
    assert all(tomogram["view"] for tomogram in page()[1]["tomograms"])
    assert cetpick("collect", "out", "--no-report")[0] == 0
    assert not Path("out/report.html").exists()  # an old one would tell of other results


def test_shards_contribute(pick: Run, cetpick: Run) -> None:
    pick("--shard", "1/2")
    pick("--shard", "2/2")
    assert cetpick("report", "out")[0] == 2
    code, out, _ = cetpick("collect", "out")
    assert (code, out.splitlines()[-1]) == (0, "results: out/particles.star, out/run.json, out/report.html")
    assert all(tomogram["view"] for tomogram in page()[1]["tomograms"])


@pytest.mark.parametrize("broken", ["make_view", "render"])
def test_a_report_that_fails_loses_no_picks(pick: Run, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("drawing went wrong")

    monkeypatch.setattr(workflow, broken, fail)
    _, _, err = pick()
    assert "not made, the picks are complete: RuntimeError: drawing went wrong" in err
    record = run_json()
    assert len(record["tomograms"]) == 3
    assert any("drawing went wrong" in text for text in record["warnings"])
    assert Path("out/report.html").exists() == (broken == "make_view")
    assert ("out/report.html" in record["outputs"]) == (broken == "make_view")


def test_report_of_no_results_is_an_error(cetpick: Run, tmp_path: Path) -> None:
    cases = {tmp_path: "holds no complete results of cetpick pick", tmp_path / "none": "no such folder"}
    for folder, message in cases.items():
        code, _, err = cetpick("report", folder)
        assert code == 2
        assert f"{folder}: {message}" in err


def prepared(volume: np.ndarray, voxel_size: tuple[float, float, float] = (10.0, 10.0, 10.0)) -> Prepared:
    exclusions = Exclusions(not_finite=0, padding=0, total=volume.size)
    return Prepared(volume=volume.astype(np.float32), valid=None, voxel_size=voxel_size, exclusions=exclusions)


@pytest.mark.parametrize("sign", [1, -1])
def test_slices_average_and_contrast(sign: int) -> None:
    """A ball on noise at x, y, z = 70, 17, 9 of a volume that was stored in voxels of 5 and is worked on in 10 A."""
    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[:24, :60, :100]
    ball = (x - 70) ** 2 + (y - 17) ** 2 + (z - 9) ** 2 < 9
    volume = rng.normal(0, 0.3, ball.shape) + 6 * sign * ball
    grid = Grid(shape=(48, 120, 200), voxel_size=5.0)
    point = (np.array([[70.0, 17.0, 9.0]]) + 0.5) * 2 - 0.5
    view = views.make_view(prepared(volume), point, np.array([0.9]), grid, diameter=60.0, picks=1)
    plane = view["planes"]["xy"]
    best = int(np.abs(np.array(plane["at"]) - point[0, 2]).argmin())
    image = picture(plane["slices"][best]).astype(float) * sign
    height, width = image.shape
    assert width <= views.SIDE
    assert height == pytest.approx(0.6 * width, abs=1)
    row, column = peak(image)
    assert column == pytest.approx(70.5 / 100 * width, abs=6)
    assert row == pytest.approx(height * (1 - 17.5 / 60), abs=6)  # y points upwards
    plane = view["planes"]["xz"]
    best = int(np.abs(np.array(plane["at"]) - point[0, 1]).argmin())
    image = picture(plane["slices"][best]).astype(float) * sign
    row, _ = peak(image)
    assert row == pytest.approx(image.shape[0] * (1 - 9.5 / 24), abs=8)
    assert view["contrast"] * sign == pytest.approx(6, abs=0.6)
    profile = np.array(view["average"]["profile"])
    assert profile[0, 1] * sign > 5
    assert np.abs(profile[profile[:, 0] > 45, 1]).max() < 0.3
    for uri in view["average"]["pictures"]:
        average = picture(uri).astype(float) * sign
        assert np.abs(peak(average) - 19.5).max() <= 2
    assert picture(view["thumbs"]["picture"]).shape == (views.THUMB, views.THUMB * views.ROW)


def test_slices_of_noise_keep_to_their_size() -> None:
    volume = np.random.default_rng(0).normal(size=(60, 300, 300))
    grid = Grid(shape=volume.shape, voxel_size=10.0)
    none = np.zeros((0, 3))
    view = views.make_view(prepared(volume), none, np.zeros(0), grid, diameter=30.0, picks=0)
    assert sum(len(uri) for plane in view["planes"].values() for uri in plane["slices"]) <= views.MOST_BYTES
    assert [len(plane["slices"]) for plane in view["planes"].values()] == [*views.SLICES.values()]
    assert (view["thumbs"], view["average"], view["contrast"]) == (None, None, None)


@pytest.mark.parametrize("shape", [(7, 48, 52), (60, 300, 401), (2, 100, 31)])
def test_slices_are_the_middles_of_equal_parts(shape: tuple[int, int, int]) -> None:
    """So that no voxel, those at the faces among them, is far from a slice."""
    made = prepared(np.random.default_rng(0).normal(size=shape), voxel_size=(20.0, 10.0, 10.0))
    grid = Grid(shape=(2 * shape[0], *shape[1:]), voxel_size=10.0)
    for name, plane in views.make_planes(made, grid, diameter=60.0).items():
        (axis,) = set("xyz") - set(name)
        length, count = grid.size["xyz".index(axis)], len(plane["at"])
        voxels = np.arange(length)
        nearest = np.abs(voxels[:, None] - np.array(plane["at"])).min(axis=1)
        assert nearest.max() <= length / count / 2 + (2 if axis == "z" else 1)


def test_what_does_not_count_is_black_in_pictures_of_its_own() -> None:
    """Left of x = 40 nothing counts, of voxels of 10 A that were stored in 5 A; and below z = 10."""
    volume = np.random.default_rng(0).normal(size=(40, 200, 100))
    valid = np.ones(volume.shape, bool)
    valid[:, :, :40] = False
    valid[:10] = False
    made = replace(prepared(volume), valid=valid)
    planes = views.make_planes(made, Grid(shape=(80, 400, 200), voxel_size=5.0), diameter=60.0)
    for name, plane in planes.items():
        for at, uri in zip(plane["at"], plane["left_out"], strict=True):
            image = np.asarray(read_picture(uri).convert("RGBA"))
            assert not image[..., :3][image[..., 3] > 0].any()  # black
            shown = image[..., 3] == 0
            height, width = shown.shape
            cut = round(0.75 * height)  # z points upwards
            if name == "xy":
                assert shown.any() == (at > 19)
                expected = np.broadcast_to(np.arange(width) >= 0.4 * width, shown.shape) & (at > 19)
            elif name == "xz":
                expected = (np.arange(width) >= 0.4 * width) & (np.arange(height)[:, None] < cut)
            else:
                expected = np.broadcast_to(np.arange(height)[:, None] < cut, shown.shape) & (at > 80)
            assert (shown != expected).mean() < 0.03
    written = [uri for plane in planes.values() for uri in (*plane["slices"], *plane["left_out"])]
    assert sum(map(len, written)) <= views.MOST_BYTES
    plain = views.make_planes(prepared(volume), Grid(shape=(80, 400, 200), voxel_size=5.0), diameter=60.0)
    assert {uri for plane in plain.values() for uri in plane["left_out"]} == {None}


def test_what_was_left_out_is_told_and_shown(pick: Run, cetpick: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def some(*_: object, **__: object) -> pd.DataFrame:
        table = found(0)
        table.attrs["excluded"] = 7
        return table

    monkeypatch.setattr(batch_workflow, "find_candidates", some)
    mask = np.zeros(SHAPE, np.int8)
    mask[:, :, :26] = 1
    write_mrc(Path("m.mrc"), mask, voxel_size=10.0)
    place = found(0).iloc[[0]][["x", "y", "z"]]
    place.to_csv("no.csv", index=False)
    pick("--mask", "m.mrc", "--slab", 0, 150, "--reject", "no.csv", tomograms=("a.mrc",))
    _, values = page()
    (tomogram,) = values["tomograms"]
    assert tomogram["excluded"] == (
        "Left out of the volume, hatched: 25.0% outside of the slab, 37.5% outside of the mask; 7 candidates there, "
        "good enough for the model's threshold, do not count."
    )
    np.testing.assert_allclose(tomogram["rejected"], place, atol=0.06)
    assert all(plane["left_out"][-1] for plane in tomogram["view"]["planes"].values())
    note = run_json()["tomograms"]["a"]
    assert (note["excluded_picks"], note["rejected_candidates"]) == (7, 120 - note["candidates"])
    pick(tomograms=("a.mrc", "b.mrc"))
    assert [tomogram["excluded"] for tomogram in page()[1]["tomograms"]] == ["", ""]


def test_plots(pick: Run, cetpick: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (plots_workflow, plots):
        monkeypatch.setattr(module, "DPI", 40)
    pick("--slab", 0, 150, tomograms=("a.mrc",))
    code, out, err = cetpick("report", "out", "--plots", "svg")
    assert (code, "plots: 3 files in out/plots" in out) == (0, True), err
    files = sorted(Path("out/plots").iterdir())
    assert [file.name for file in files] == ["a_average.svg", "a_slices.svg", "scores.svg"]
    picks = run_json()["tomograms"]["a"]["picks"]
    text = files[2].read_text()  # text stays text
    assert f"picks ({picks})" in text
    assert f"other candidates ({120 - picks})" in text
    assert "cut at 0.5" in text
    assert f"a: {picks} picks" in files[1].read_text()
    assert "Left out of the volume, hatched: 25.0% outside of the slab." in files[1].read_text()
    scores = files[2].read_bytes()
    Path("a.mrc").rename("a.away")
    files[1].unlink()
    _, _, err = cetpick("report", "out", "--plots", "svg")
    assert "no plots of a: " in err
    assert files[2].read_bytes() == scores
    assert not files[1].exists()


def test_pictures_go_with_the_picks_that_they_are_of(pick: Run, cetpick: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (plots_workflow, plots):
        monkeypatch.setattr(module, "DPI", 40)
    pick(tomograms=("a.mrc", "b.mrc"))
    assert cetpick("report", "out", "--plots", "png")[0] == 0
    own = Path("out/plots/figure_1.png")
    own.write_bytes(b"of the user")
    kept = {path.name: path.read_bytes() for path in Path("out/plots").iterdir() if path.name != "scores.png"}
    pick(tomograms=("a.mrc", "b.mrc"))  # nothing is done
    assert {path.name: path.read_bytes() for path in Path("out/plots").iterdir()} == kept
    assert cetpick("repick", "out", "--threshold", 0.7)[0] == 0
    assert [*Path("out/plots").iterdir()] == [own]


def test_a_tomogram_without_candidates_is_shown(pick: Run, cetpick: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = iter([found(0), found(1)[:0]])
    monkeypatch.setattr(batch_workflow, "find_candidates", lambda *_, **__: next(tables))
    pick(tomograms=("a.mrc", "b.mrc"))
    text, values = page()
    assert [tomogram["candidates"] for tomogram in values["tomograms"]] == [120, 0]
    assert all(tomogram["view"]["planes"] for tomogram in values["tomograms"])
    assert "Pictures of" not in text


def test_what_comes_next_leads_to_the_files_from_any_folder(
    pick: Run, cetpick: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pick(tomograms=("a.mrc",))
    assert "3dmod a.mrc out/a.mod" in cetpick("report", "out")[1]
    here = Path.cwd().resolve()
    assert f"Paths are as seen from <code>{here}</code>" in page()[0]
    assert f"<dt>Folder it was given in</dt><dd>{Path.cwd()}</dd>" in page()[0]
    # the record of a training beside the model, which this run named from here
    beside = {
        "cetpick": "1",
        "command": "train",
        "started": "",
        "training": {"identity": "same", "steps": 3, "curve": CURVE},
    }
    Path("m.run.json").write_text(json.dumps(beside))
    run = run_json()
    run["model"]["provenance"]["training"] = "same"
    Path("out/run.json").write_text(json.dumps(run))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    code, out, _ = cetpick("report", here / "out")
    assert code == 0
    assert f"3dmod {here}/a.mrc {here}/out/a.mod" in out
    assert f"--tomogram {here}/a.mrc" in out
    assert read_page(here / "out/report.html")[1]["curves"]
    # all of it is moved: what is left of the old names leads nowhere
    monkeypatch.chdir(here.parent)
    here.rename("moved")
    monkeypatch.chdir("moved")
    code, out, _ = cetpick("report", "out")
    assert (code, "3dmod a.mrc out/a.mod" in out) == (0, True)
    assert page()[1]["curves"]
    # a copy of the folder that holds the model, too
    shutil.copytree("out", "copy")
    for name in ("m.safetensors", "m.run.json"):
        shutil.move(name, f"copy/{name}")
    assert cetpick("report", "copy")[0] == 0
    assert read_page(Path("copy/report.html"))[1]["curves"]


def test_the_next_steps_are_told_where_no_report_can_be_written(pick: Run, cetpick: Run) -> None:
    pick(tomograms=("a.mrc",))
    Path("out/report.html").unlink()
    Path("out/report.html").mkdir()
    code, out, err = cetpick("report", "out")
    assert code == 2
    assert "out/report.html: a folder is where the file should be written" in err
    assert "3dmod a.mrc out/a.mod" in out
    assert "results: " not in out
    code, out, _ = cetpick("report", "out", "--json")
    assert (code, "a folder is where" in json.loads(out)["error"]) == (2, True)
    Path("out/plots").touch()
    code, out, err = cetpick("report", "out", "--plots", "png")
    assert (code, "3dmod a.mrc out/a.mod" in out) == (2, True)
    assert "out/report.html: a folder is where the file should be written" in err


def test_files_for_other_programs_that_are_older_than_the_picks_are_said(pick: Run, cetpick: Run) -> None:
    pick(tomograms=("a.mrc",))
    for words in (("out/particles.star", "out/dynamo.tbl"), ("out/a.csv", "out/a.coords")):
        assert cetpick("convert", *words, "--tomogram", "a.mrc")[0] == 0
    older = "older than the picks"
    assert older not in pick(tomograms=("a.mrc",))[2]  # nothing is done
    _, _, err = cetpick("repick", "out", "--threshold", 0.7)
    assert f"out: dynamo.tbl, dynamo.doc, a.coords: {older}" in err
    assert any(older in text for text in run_json()["warnings"])
    for words in (("out/particles.star", "out/dynamo.tbl"), ("out/a.csv", "out/a.coords")):
        assert cetpick("convert", *words, "--tomogram", "a.mrc", "--overwrite")[0] == 0
    assert older not in cetpick("collect", "out")[2]


def test_a_file_where_a_folder_of_pictures_might_be_is_left_alone(pick: Run, cetpick: Run) -> None:
    Path("out").mkdir()
    Path("out/plots").write_text("mine")
    pick(tomograms=("a.mrc",))
    assert cetpick("repick", "out", "--threshold", 0.7)[0] == 0
    assert Path("out/plots").read_text() == "mine"


def test_the_commands_of_the_report_can_be_run_twice(pick: Run, cetpick: Run) -> None:
    pick()
    steps = json.loads(cetpick("report", "out", "--json", "--quiet")[1])["next"]
    lines = [command for step in steps for command in step["commands"] if command.startswith("cetpick ")]
    assert len(lines) == 4
    for line in lines:
        words = shlex.split(line)[1:]
        if "TOMOGRAMS.star" in words:  # RELION's
            assert "--overwrite" in words
            continue
        for _ in range(2):
            code, _, err = cetpick(*words)
            assert code == 0, err


def test_what_does_not_count_is_hatched_in_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left of x = 40 nothing counts, of voxels that were twice as fine when stored."""
    data = np.random.default_rng(0).normal(size=(16, 60, 100)).astype(np.float32)
    valid = np.ones((8, 30, 50), bool)
    valid[:, :, :20] = False
    drawn: list[Figure] = []
    monkeypatch.setattr(overlay, "save", lambda figure, *_, **__: drawn.append(figure))
    middle = np.array([[70.0, 30.0, 8.0]])
    for counts in (valid, None, np.ones_like(valid)):
        grid = Grid(shape=data.shape, voxel_size=5.0)
        overlay.draw_labels(Path("a.png"), data, grid, middle, diameter=50.0, title="", valid=counts)
    hatched = [
        [[area.get_paths()[0].get_extents().x1 for area in panel.collections] for panel in figure.axes]
        for figure in drawn
    ]
    assert hatched[0][:5] == [[39.5]] * 5  # up to the edge of a voxel: xy, xz
    assert hatched[0][5:] == [[59], []]  # yz: left of it, and where the label is
    assert hatched[1:] == [[[]] * 7] * 2


def test_plots_for_slides_and_papers(tmp_path: Path) -> None:
    curves = [{"name": "Final training", "value": "loss", "lines": [[[1, 2.0], [2, 1.0]]]}]
    for kind in PLOT_KINDS:
        plots.plot_training(tmp_path / f"training.{kind}", curves)
    with Image.open(tmp_path / "training.png") as image:
        assert image.size == (plots.WIDTH * plots.DPI, plots.HEIGHT * plots.DPI)
    assert "Final training" in (tmp_path / "training.svg").read_text()
    assert (tmp_path / "training.pdf").read_bytes().startswith(b"%PDF")


def test_fifty_tomograms_of_noise_stay_below_15_mb() -> None:
    volume = np.random.default_rng(0).normal(size=(60, 300, 300))
    grid = Grid(shape=volume.shape, voxel_size=10.0)
    rng = np.random.default_rng(1)
    xyz, scores = rng.uniform(0, 1, (6000, 3)) * grid.size, np.sort(rng.uniform(0, 1, 6000))[::-1]
    section = Section(
        name="a" * 200,
        record={"size": grid.size, "voxel_size": 10.0, "threshold": 0.5, "candidates": 6000},
        picks=3000,
        particles=2000.0,
        everything=3000.0,
        flags=["high number of picks", "low contrast"],
        candidates=Candidates(xyz=xyz, scores=scores, stored=np.arange(6000)),
        view=views.make_view(prepared(volume), xyz, scores, grid, diameter=60.0, picks=3000),
    )
    made = Page(
        title="out",
        told="",
        calibrated=True,
        diameter=60.0,
        threshold=0.5,
        repick=("cetpick repick out", ""),
        version="0",
        facts={},
        training={},
        trained={},
        sections=[section] * 50,
        folder=Path("/work"),
    )
    assert len(render(made).encode()) < 15_000_000


def test_unlike_tomograms_are_flagged(pick: Run, cetpick: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of six tomograms one has few candidates, and one no pick."""
    tables = iter([found(0), found(1, 12), found(2), found(3).assign(score=0.1), found(4), found(5)])
    monkeypatch.setattr(batch_workflow, "find_candidates", lambda *_, **__: next(tables))
    for name in "def":
        shutil.copy("a.mrc", f"{name}.mrc")
    pick(tomograms=tuple(f"{name}.mrc" for name in "abcdef"))
    text, values = page()
    flags = {tomogram["name"]: tomogram["flags"] for tomogram in values["tomograms"]}
    assert "low number of picks" in flags["b"]
    assert {"low best score", "no picks"} <= set(flags["d"])
    assert not any("number" in flag or "score" in flag for name in "acef" for flag in flags[name])
    assert "<summary>Unlike the others: " in text
    _, out, _ = cetpick("report", "out")
    assert "unlike the others: b: low number of picks" in out


def test_outliers() -> None:
    values = {f"t{i}": 5.0 + 0.1 * i for i in range(9)} | {"few": 1.0, "many": 9.0, "none": float("nan")}
    assert workflow.outliers(values, least=0.1) == {"few": "low", "many": "high"}
    assert workflow.outliers({"a": 1, "b": 1, "c": 1, "d": 1, "e": 1.2}, least=0.1) == {}
    assert workflow.outliers({"a": 1, "b": 1, "c": 9}, least=0.1) == {}


def test_a_large_data_set_shows_some_of_its_tomograms(pick: Run) -> None:
    pick(tomograms=("a.mrc",))
    record = complete_record(Path("out"), "a", read_run(Path("out/run.json")).plan)  # type: ignore[union-attr]
    assert record is not None
    records = [
        replace(record, info=replace(record.info, name=f"t{i:03}"), picks=100, particles=float((i * 37) % 100))
        for i in range(400)
    ]
    chosen = workflow.chosen_tomograms(records, ["t123", "t321"], most=50)
    assert len(chosen) == 50
    assert chosen == sorted(chosen)
    assert {"t123", "t321", "t000", "t399"} <= set(chosen)
    assert {record.info.name for record in records if record.particles == 99} & set(chosen)
    assert workflow.chosen_tomograms(records[:50], [], most=50) == [f"t{i:03}" for i in range(50)]


def info(name: str, voxel_size: float, relion: RelionTomogram | None = None) -> TomogramInfo:
    return TomogramInfo(
        name=name, path=Path(f"tomos/{name}.mrc"), grid=Grid(shape=(9, 9, 9), voxel_size=voxel_size), relion=relion
    )


def test_next_steps_of_files() -> None:
    steps = {
        step.program: step for step in next_steps(Path("my out"), [info("t", 10.5)], star="relion31", diameter=250)
    }
    assert list(steps) == ["RELION 5", "Warp", "Dynamo", "IMOD", "ChimeraX with ArtiaX"]
    side = box_side(250, 10.5)
    assert side == 40  # 1.5 diameters are 35.7 voxels
    convert, extract = steps["RELION 5"].commands
    assert convert == (
        "cetpick convert 'my out/particles.star' 'my out/relion5.star' --format relion5 --tomogram tomos/t.mrc "
        "--to-tomogram TOMOGRAMS.star --overwrite"
    )
    assert f"--b {2 * side} --crop {side} --bin BIN" in extract
    assert (
        "job 'Extract subtomos', 'OR: use direct entries?' Yes, 'Input particle set' my out/relion5.star, "
        f"'Input tomogram set' TOMOGRAMS.star; binning factor BIN, box size {2 * side}, cropped box size {side}; BIN "
        "is the voxel size 10.5 A over"
    ) in steps["RELION 5"].text
    assert "--coords_angpix 10.5" in steps["Warp"].commands[1]
    assert f"--output_angpix 10.5 --box {side} --diameter 250" in steps["Warp"].commands[1]
    assert steps["Dynamo"].commands[1] == f"dtcrop 'my out/dynamo.doc' 'my out/dynamo.tbl' cetpickData {side}"
    dynamo = next_steps(Path("it's"), [info("t", 10.5)], star="relion31", diameter=250)[2]
    assert dynamo.commands[1].startswith("dtcrop 'it''s/dynamo.doc' 'it''s/dynamo.tbl' ")
    assert steps["IMOD"].commands == ("3dmod tomos/t.mrc 'my out/t.mod'",)
    assert "others" not in steps["IMOD"].text
    assert "artiax particles #1.2.1 originScaleFactor 10.5" in steps["ChimeraX with ArtiaX"].commands
    assert 'open "my out/t.coords" format coords' in steps["ChimeraX with ArtiaX"].commands


def test_next_steps_of_a_relion_project() -> None:
    relion = RelionTomogram(name="t", pixel_size=1.5, binning=8.1, size=(9, 9, 9), star=Path("T/job007/tomograms.star"))
    given = {"particles": "External/job009/particles.star", "tomograms": "T/job007/tomograms.star"}
    infos = [info("t", 12.15, relion), info("u", 12.15, relion)]
    step, warp, *_ = next_steps(Path("out"), infos, star="relion5", diameter=250, optimisation_set=given)
    side = box_side(250, 12)
    assert step.commands == (
        "relion_tomo_subtomo --i External/job009/optimisation_set.star --o Extract/cetpick/ "
        f"--b {2 * side} --crop {side} --bin 8 --stack2d",
    )
    assert "(12 A a pixel)" in step.text
    assert "job 'Extract subtomos', 'Input optimisation set' External/job009/optimisation_set.star; bin" in step.text
    two_sets, *_ = next_steps(Path("out"), infos, star="relion5", diameter=250)
    assert (
        "Yes, 'Input particle set' out/particles.star, 'Input tomogram set' T/job007/tomograms.star; " in two_sets.text
    )
    assert "--tomogram T/job007/tomograms.star" in warp.commands[0]
    assert "differ" not in warp.text
    elsewhere = replace(relion, star=Path("proj/T/job008/tomograms.star"), project=Path("proj"))
    of_two, *_ = next_steps(Path("out"), [info("t", 12, elsewhere), *infos], star="relion4", diameter=250)
    assert f"--p {Path('out/particles.star').absolute()} --t T/job008/tomograms.star" in of_two.commands[0]
    assert "This is for the tomograms of proj/T/job008/tomograms.star; pick those of each" in of_two.text
    many, warp, *_ = next_steps(Path("out"), [info(f"t{n}", 10) for n in range(9)], star="relion31", diameter=250)
    assert "relion5.star --format relion5 --voxel-size 10 --to-tomogram TOMOGRAMS.star" in many.commands[0]
    by_folder = [replace(info("a_t", 10), path=Path("a/t.mrc")), replace(info("b_t", 10), path=Path("b/t.mrc"))]
    assert all(
        "--names parent" in step.commands[0]
        for step in next_steps(Path("out"), by_folder, star="relion31", diameter=250)[:3]
    )
    mixed = next_steps(Path("out"), [info("t", 10), info("u", 12)], star="relion31", diameter=250)
    assert "Voxel sizes differ (10 to 12 A); the numbers are those of t." in mixed[1].text
    assert "The others alike: 3dmod TOMOGRAM out/NAME.mod" in mixed[3].text
