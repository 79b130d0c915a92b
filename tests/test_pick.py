"""`train` and `pick` from the command line, on a tiny set."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest

from cetpick import scratch
from cetpick.cli import main
from cetpick.io.coordinates import read_coordinates, write_coordinates
from cetpick.io.imod import read_mod
from cetpick.io.model import read_settings
from cetpick.io.mrc import write_mrc
from cetpick.io.star import read_star, write_star
from cetpick.io.tomograms import read_info
from tests.conftest import Run, TinySet

FAST = ["--steps", "30", "--count-hint", "12", "--quiet", "--threads", "1"]


def cetpick(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command line in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["cetpick", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def results(tiny: TinySet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Picks of tomogram `two` after training on `one`."""
    output = tmp_path_factory.mktemp("pick") / "my picks"
    command = [sys.executable, "-c", "from cetpick.cli import main; main()", "pick", str(tiny.path("two"))]
    command += ["--train", str(tiny.path("one")), "--labels", str(tiny.labels), "--diameter", str(tiny.diameter)]
    run = subprocess.run([*command, "-o", str(output), *FAST], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "two: " in run.stdout
    assert str(output / "run.json") in run.stdout
    assert run.stdout.endswith(f"`cetpick report '{output}'` tells the commands\n")
    return output


def test_outputs_agree_with_each_other(results: Path, tiny: TinySet) -> None:
    assert sorted(p.name for p in results.iterdir()) == [
        "candidates",
        "expected_precision.csv",
        "model.report.html",
        "model.run.json",
        "model.safetensors",
        "particles.star",
        "records",
        "report.html",
        "run.json",
        "two.csv",
        "two.mod",
        "views",
    ]
    table = pd.read_csv(results / "two.csv")
    assert list(table.columns)[:4] == ["x", "y", "z", "score"]
    candidates = pd.read_csv(results / "candidates" / "two.csv")
    record = json.loads((results / "run.json").read_text())
    assert len(table) == record["tomograms"]["two"]["picks"] > 0
    assert (candidates["score"] >= record["threshold"]).sum() == len(table)
    xyz = table[["x", "y", "z"]].to_numpy()
    star = read_star(results / "particles.star")
    (block,) = (b for b in star.values() if "rlnCoordinateX" in b)
    np.testing.assert_allclose(block[[f"rlnCoordinate{a}" for a in "XYZ"]].astype(float), xyz, atol=1e-5)
    assert set(block["rlnMicrographName"]) == {str(tiny.path("two"))}
    (contour,) = read_mod(results / "two.mod").objects[0].contours
    np.testing.assert_allclose(contour.points, xyz + np.array([0.5, 0.5, 0]), atol=1e-3)
    np.testing.assert_allclose(contour.scores, table["score"], atol=1e-6)
    with pytest.MonkeyPatch.context() as patch:
        assert cetpick(patch, "info", results / "two.mod", results / "model.safetensors") == 0


def test_the_blobs_are_found(results: Path, tiny: TinySet) -> None:
    candidates = pd.read_csv(results / "candidates" / "two.csv")
    truth = tiny.truth["two"]
    best = candidates[["x", "y", "z"]].to_numpy()[: len(truth)]
    distance = np.linalg.norm(truth[:, None] - best[None], axis=2).min(axis=1)
    assert (distance < 5).mean() > 0.9


def test_run_record_tells_how_the_picks_were_made(results: Path, tiny: TinySet) -> None:
    record = json.loads((results / "run.json").read_text())
    assert record["settings"]["train"]["diameter"] == tiny.diameter
    assert record["settings"]["train"]["steps"] == 30
    assert record["device"].startswith(("cpu", "cuda"))
    assert set(record["inputs"]) == {str(tiny.path("one")), str(tiny.path("two")), str(tiny.labels)}
    assert all(len(entry["sha256"]) == 64 for entry in record["inputs"].values())
    assert record["seconds"]["training"] > 0
    assert record["training"]["labels"] == {"one": 8}
    assert any("only 8 labels" in warning for warning in record["warnings"])


def test_same_seed_same_picks_and_a_stored_model_needs_no_flags(
    results: Path, tiny: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", tiny.path("one"), "--labels", tiny.labels, "-d", tiny.diameter, *FAST]
    assert cetpick(monkeypatch, *command, "-o", tmp_path / "m.safetensors") == 0
    assert (tmp_path / "m.run.json").exists()
    capsys.readouterr()
    model = tmp_path / "m.safetensors"
    assert cetpick(monkeypatch, "pick", tiny.path("two"), "--model", model, "-o", tmp_path / "a", "--json", "-q") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["picks"]["two"] > 0
    for name in ("two.csv", "candidates/two.csv"):
        assert (tmp_path / "a" / name).read_text() == (results / name).read_text()


def test_threshold_and_top(results: Path, tiny: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common = ["pick", tiny.path("two"), "--model", results / "model.safetensors", "-q"]
    assert cetpick(monkeypatch, *common, "-o", tmp_path / "top", "--top", 3, "--threshold", 0) == 0
    assert len(pd.read_csv(tmp_path / "top" / "two.csv")) == 3
    assert cetpick(monkeypatch, *common, "-o", tmp_path / "none", "--threshold", 1) == 0
    assert len(pd.read_csv(tmp_path / "none" / "two.csv")) == 0
    assert len(read_coordinates(tmp_path / "none" / "two.mod")[0]) == 0
    assert cetpick(monkeypatch, "info", tmp_path / "none" / "two.csv") == 0


@pytest.mark.parametrize("voxel_size", [5.0, 13.48])
def test_another_voxel_size_gives_the_same_places(
    results: Path, tiny: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, voxel_size: float
) -> None:
    """The scene of `two` resampled: the picks move with it."""
    from scipy import ndimage

    with mrcfile.open(tiny.path("two")) as file:
        data = ndimage.gaussian_filter(file.data.astype(np.float32), 1.0)
    write_mrc(tmp_path / "two.mrc", data, voxel_size=10.0)
    size = [round(n * 10 / voxel_size) for n in data.shape]
    places = np.meshgrid(*[(np.arange(n) + 0.5) * voxel_size / 10 - 0.5 for n in size], indexing="ij")
    write_mrc(
        tmp_path / "other.mrc", ndimage.map_coordinates(data, places, order=3, mode="nearest"), voxel_size=voxel_size
    )
    command = ["pick", tmp_path / "two.mrc", tmp_path / "other.mrc", "--model", results / "model.safetensors"]
    assert cetpick(monkeypatch, *command, "-o", tmp_path / "out", "-q", "--threshold", 0, "--top", 10) == 0
    a, b = (
        (pd.read_csv(tmp_path / "out" / f"{name}.csv")[["x", "y", "z"]].to_numpy() + 0.5) * voxel
        for name, voxel in (("two", 10.0), ("other", voxel_size))
    )
    assert len(a) == len(b) == 10
    working = tiny.diameter / 16
    nearest = np.linalg.norm(a[:, None] - b[None], axis=2).min(axis=1)
    assert np.median(nearest) < working / 2


def test_one_broken_tomogram_fails_alone(
    results: Path, tiny: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, constant = tmp_path / "broken.mrc", tmp_path / "constant.mrc"
    broken.write_bytes(tiny.path("two").read_bytes()[:5000])
    write_mrc(constant, np.zeros((24, 64, 64), np.float32), voxel_size=10.0)
    command = ["pick", broken, tiny.path("two"), constant, "--model", results / "model.safetensors"]
    assert cetpick(monkeypatch, *command, "-o", tmp_path / "out", "-q") == 1
    err = capsys.readouterr().err
    assert f"failed: {broken}" in err
    assert f"failed: {constant}" in err
    assert (tmp_path / "out" / "two.csv").read_text() == (results / "two.csv").read_text()
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert len(record["failures"]) == 2
    assert not (tmp_path / "out" / "constant.mod").exists()


def test_no_usable_tomogram_at_all_writes_nothing(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mrc(tmp_path / "constant.mrc", np.zeros((24, 64, 64), np.float32), voxel_size=10.0)
    command = ["pick", tmp_path / "constant.mrc", "--model", results / "model.safetensors", "-o", tmp_path / "out"]
    assert cetpick(monkeypatch, *command, "-q") == 2
    assert "constant.mrc: all voxels are equal" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_inputs_are_never_overwritten(
    tiny: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels are often called as the results are: <tomogram>.mod."""
    for name in ("one.mrc", "one.mod"):
        shutil.copy(tiny.folder / name, tmp_path)
    clicked = (tmp_path / "one.mod").read_bytes()
    command = ["pick", tmp_path / "one.mrc", "--labels", tmp_path / "one.mod", "-d", 160, "-o", tmp_path, "--overwrite"]
    assert cetpick(monkeypatch, *command, *FAST) == 2
    assert "an input would be overwritten" in capsys.readouterr().err
    assert (tmp_path / "one.mod").read_bytes() == clicked


def test_labels_find_their_tomogram_among_those_to_pick(
    tiny: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels"
    labels.mkdir()
    shutil.copy(tiny.labels, labels / "one.mod")
    (tmp_path / "broken.mrc").write_bytes(b"no tomogram")
    command = ["pick", tiny.path("one"), tiny.path("two"), tmp_path / "broken.mrc", "--labels", labels, "-d", 160]
    assert cetpick(monkeypatch, *command, "-o", tmp_path / "out", "--steps", 3, "--count-hint", 12, "-q") == 1
    out = capsys.readouterr().out
    assert "(also trained on)" in next(line for line in out.splitlines() if line.startswith("one: "))
    assert "(also trained on)" not in next(line for line in out.splitlines() if line.startswith("two: "))
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["training"]["labels"] == {"one": 8}
    assert len(record["failures"]) == 1


def test_an_output_that_cannot_be_written_is_said_before_training(
    tiny: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    command = ["train", tiny.path("one"), "--labels", tiny.labels, "-d", 160]
    assert cetpick(monkeypatch, *command, "-o", tmp_path / "file" / "m.safetensors") == 2
    assert "a file is where the output folder should be" in capsys.readouterr().err


TRAIN = ["two.mrc", "--train", "one.mrc"]
GOOD = [*TRAIN, "--labels", "one.mod", "-d", "160"]
BAD_USAGE = {
    "no model, no labels": ["two.mrc"],
    "no diameter": GOOD[:-2],
    "diameter in nanometre": [*GOOD[:-1], "2.5"],
    "diameter of two voxels": [*GOOD[:-1], "25"],
    "model and labels": [*GOOD, "--model", "m.safetensors"],
    "missing tomogram": ["nowhere.mrc", *GOOD[1:]],
    "missing labels": [*TRAIN, "--labels", "nowhere.mod", "-d", "160"],
    "labels are no labels": [*TRAIN, "--labels", "two.mrc", "-d", "160"],
    "a model that is none": ["two.mrc", "--model", "one.mod"],
    "no such device": [*GOOD, "--device", "cuda:99"],
    "odd device": [*GOOD, "--device", "gpu"],
    "relion5 without tomograms.star": [*GOOD, "--star", "relion5"],
    "the same tomogram twice": ["two.mrc", *GOOD],
    "labels outside": [*TRAIN, "--labels", "far.csv", "-d", "160"],
    "two labels": [*TRAIN, "--labels", "few.csv", "-d", "160"],
    "truncated training tomogram": ["two.mrc", "--train", "cut.mrc", "--labels", "one.mod", "-d", "160"],
    "threshold of 5": [*GOOD, "--threshold", "5"],
}


@pytest.mark.parametrize("arguments", BAD_USAGE.values(), ids=BAD_USAGE.keys())
def test_unusable_input_ends_at_once_with_one_message_and_writes_nothing(
    arguments: list[str],
    tiny: TinySet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("one.mrc", "two.mrc", "one.mod"):
        shutil.copy(tiny.folder / name, tmp_path)
    (tmp_path / "far.csv").write_text("x,y,z\n" + "".join(f"{5000 + i},10,10\n" for i in range(8)))
    (tmp_path / "few.csv").write_text("x,y,z\n20,20,10\n60,60,10\n")
    (tmp_path / "cut.mrc").write_bytes((tmp_path / "one.mrc").read_bytes()[:9000])
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert cetpick(monkeypatch, "pick", *arguments, "-o", "out") == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") or "\nerror: " in captured.err
    assert captured.err.count("error: ") == 1
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_earlier_results_are_kept_unless_told(results: Path, tiny: TinySet, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    command = ["pick", tiny.path("one"), "--model", results / "model.safetensors", "-o", results]
    assert cetpick(monkeypatch, *command) == 2  # particles.star would lose tomogram two
    assert {path: path.read_bytes() for path in results.rglob("*") if path.is_file()} == before


def test_inverted_contrast_and_another_scale_are_said(
    results: Path, tiny: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with mrcfile.open(tiny.path("two")) as file:
        write_mrc(tmp_path / "bright.mrc", -file.data, voxel_size=25.0)
    command = ["pick", tmp_path / "bright.mrc", "--model", results / "model.safetensors", "-o", tmp_path / "out", "-q"]
    assert cetpick(monkeypatch, *command) == 0
    err = capsys.readouterr().err
    assert "protein seems bright here but was dark in training" in err
    assert "25 angstrom a voxel, but the model was trained at 10" in err
    with mrcfile.open(tiny.path("two")) as file:
        write_mrc(tmp_path / "thin.mrc", file.data[:12], voxel_size=10.0)
    command = ["pick", tmp_path / "thin.mrc", "--model", results / "model.safetensors", "-o", tmp_path / "thin", "-q"]
    assert cetpick(monkeypatch, *command) == 0
    assert "its shortest side, 120 angstrom, is less than the particle's diameter of 160" in capsys.readouterr().err


def test_paper_mode_runs_through(
    tiny: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["pick", tiny.path("two"), "--train", tiny.path("one"), "--labels", tiny.labels, "-d", tiny.diameter]
    assert cetpick(monkeypatch, *command, "--mode", "paper", "--steps", 3, "-o", tmp_path / "out", "-q") == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["model"]["mode"] == "paper"
    assert record["model"]["voxel_size"] == [20.0, 10.0, 10.0]
    assert record["training"]["clamped_share"] is not None
    assert len(read_coordinates(tmp_path / "out" / "candidates" / "two.csv")[0]) > 0


def test_swapped_labels_are_said_and_used_all_the_same(
    tiny: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flipped = tiny.truth["one"][:8] * [1, -1, 1] + [0, tiny.shape[1] - 1, 0]
    labels = tmp_path / "one.csv"
    pd.DataFrame(flipped, columns=["x", "y", "z"]).to_csv(labels, index=False)
    command = ["train", tiny.path("one"), "--labels", labels, "-d", tiny.diameter, *FAST, "--steps", 10]
    assert cetpick(monkeypatch, *command, "-o", tmp_path / "m.safetensors") == 0
    said = f"{labels} on {tiny.path('one')}: these look swapped: y flipped fits better ("
    assert said in capsys.readouterr().err
    record = json.loads((tmp_path / "m.run.json").read_text())
    assert any(warning.startswith(said) for warning in record["warnings"])
    assert record["seconds"]["checking labels"] < 5


def test_labels_named_after_another_of_the_tomograms_are_said_and_used(
    tiny: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "two.mod"
    shutil.copy(tiny.labels, labels)
    command = ["pick", tiny.path("two"), "--train", tiny.path("one"), "--labels", labels, "-d", tiny.diameter]
    assert cetpick(monkeypatch, *command, *FAST, "--steps", 2, "--threshold", 0, "-o", tmp_path / "out") == 0
    out, err = capsys.readouterr()
    said = f"{labels}: taken as labels of tomogram one, as given, though it is named after two ({tiny.path('two')})"
    assert f"warning: {said}" in err
    assert said in json.loads((tmp_path / "out" / "run.json").read_text())["warnings"]
    # what the training found is told although its tomogram is not picked
    assert out.startswith(f"{tmp_path / 'out' / 'model.safetensors'}: about ")


def test_labels_that_would_be_lost_end_at_once(
    tiny: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the first round they were taken by order, in the second there are more files than they."""
    clicks, broken = tmp_path / "clicks_1.mod", tmp_path / "clicks_1.mrc"
    shutil.copy(tiny.labels, clicks)
    points = pd.DataFrame(tiny.truth["two"][:5], columns=["x", "y", "z"])
    command = ["pick", tiny.path("one"), tiny.path("two"), "-d", tiny.diameter, "-o", tmp_path / "out", "-l", clicks]
    assert cetpick(monkeypatch, *command) == 2
    assert "cure: name its tomogram alone: `--train TOMOGRAM`; or rename it" in capsys.readouterr().err
    write_coordinates(tmp_path / "a.star", [(read_info(tiny.path("two")), points)])
    assert cetpick(monkeypatch, *command, "-l", tmp_path / "a.star") == 2
    err = capsys.readouterr().err
    assert f"error: {clicks}: these labels belong to none of the tomograms\n" in err
    assert "cure: rename it after its tomogram (`cp " in err
    # that the tomogram is there but cannot be used is part of the answer
    broken.write_bytes(b"no tomogram")
    assert cetpick(monkeypatch, *command, broken, "-l", tmp_path / "a.star") == 2
    assert f"\n{broken}: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_is_trained_when_there_is_nothing_to_pick(
    tiny: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mrc(tmp_path / "constant.mrc", np.zeros((24, 64, 64), np.float32), voxel_size=10.0)
    command = ["pick", tmp_path / "constant.mrc", "--train", tiny.path("one"), "--labels", tiny.labels, "-d", 160]
    assert cetpick(monkeypatch, *command, "-q", "-o", tmp_path / "out") == 2
    assert "constant.mrc: all voxels are equal" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_ctrl_c_in_training_is_no_traceback_and_writes_nothing(
    tiny: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cetpick.scouting.optimise", interrupted)
    command = ["pick", tiny.path("two"), "--train", tiny.path("one"), "--labels", tiny.labels, "-d", 160, "-q"]
    assert cetpick(monkeypatch, *command, "-o", tmp_path / "out") == 130
    told = "stopped: the same command does the rest; with --resume it goes on with a training, too\n"
    assert capsys.readouterr().err.endswith(told)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def project(tiny: TinySet, tmp_path: Path) -> Path:
    """A RELION 5 project folder with two tomograms.star of one tomogram each."""
    folder = tmp_path / "project"
    for job, name in (("job007", "one"), ("job008", "two")):
        tomograms = folder / "Tomograms" / job / "tomograms"
        tomograms.mkdir(parents=True)
        shutil.copy(tiny.path(name), tomograms / f"rec_{name}.mrc")
        z, y, x = tiny.shape
        row = [name, 2.5, 4.0, 4 * x, 4 * y, 4 * z, f"Tomograms/{job}/tomograms/rec_{name}.mrc"]
        columns = ["Name", "TiltSeriesPixelSize", "TomogramBinning", "SizeX", "SizeY", "SizeZ", "ReconstructedTomogram"]
        table = pd.DataFrame([row], columns=[f"rlnTomo{column}" for column in columns])
        write_star(tomograms.parent / "tomograms.star", {"global": table}, version="50001")
    return folder


def test_an_optimisation_set_names_files_as_relion_finds_them(
    project: Path,
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    star = Path("Tomograms", "job008", "tomograms.star")
    model = ["--model", results / "model.safetensors", "-q"]
    elsewhere = tmp_path / "elsewhere"
    for cwd, tomograms, output, particles in (
        (project, star, Path("Cetpick"), "Cetpick/particles.star"),
        (tmp_path, "project" / star, Path("project", "Other"), "Other/particles.star"),
        (tmp_path, project / star, elsewhere, str(elsewhere.resolve() / "particles.star")),
    ):
        monkeypatch.chdir(cwd)
        assert cetpick(monkeypatch, "pick", tomograms, "-o", output, *model) == 0
        block = read_star(output / "optimisation_set.star")["optimisation_set"]
        assert block["rlnTomoParticlesFile"].tolist() == [particles]
        assert block["rlnTomoTomogramsFile"].tolist() == [str(star)]
    # a copy is not to send RELION back to the particles of the first
    shutil.copytree(project / "Cetpick", project / "Copy")
    monkeypatch.chdir(project)
    assert cetpick(monkeypatch, "repick", "Copy", "--top", "3", "-q") == 0
    block = read_star("Copy/optimisation_set.star")["optimisation_set"]
    assert block["rlnTomoParticlesFile"].tolist() == ["Copy/particles.star"]
    capsys.readouterr()
    assert cetpick(monkeypatch, "report", "Copy") == 0
    assert "relion_tomo_subtomo --i Copy/optimisation_set.star" in capsys.readouterr().out


def test_two_tomograms_stars_make_no_optimisation_set_which_is_said(
    project: Path, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    stars = [f"Tomograms/{job}/tomograms.star" for job in ("job007", "job008")]
    assert cetpick(monkeypatch, "pick", *stars, "-o", "out", "--model", results / "model.safetensors", "-q") == 0
    assert "no optimisation_set.star" in capsys.readouterr().err
    assert not Path("out", "optimisation_set.star").exists()


def test_info_tells_how_a_folder_was_made(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cetpick(monkeypatch, "info", results, results / "run.json", "--json") == 0
    folder, record = json.loads(capsys.readouterr().out)
    assert folder == record
    assert record["kind"] == "record of a run"
    assert record["command"].startswith("cetpick pick ")
    assert record["picks"] == {"two": len(pd.read_csv(results / "two.csv"))}


def test_an_unreadable_tomogram_fails_alone(
    results: Path, tiny: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = tmp_path / "closed.mrc"
    shutil.copy(tiny.path("one"), closed)
    closed.chmod(0)
    if os.access(closed, os.R_OK):
        pytest.skip("root reads what is closed")
    command = ["pick", closed, tiny.path("two"), "--model", results / "model.safetensors", "-o", tmp_path / "out"]
    assert cetpick(monkeypatch, *command, "-q") == 1
    assert f"failed: {closed}: cannot be read" in capsys.readouterr().err


def test_a_run_that_is_stopped_leaves_no_record_of_an_earlier_one(
    results: Path, tiny: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    shutil.copytree(results, output)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cetpick.workflows.batch.write_tomogram", interrupted)
    command = ["pick", tiny.path("two"), "--model", results / "model.safetensors", "-o", output, "--overwrite", "-q"]
    assert cetpick(monkeypatch, *command) == 130
    assert not (output / "run.json").exists()
    assert not (output / "particles.star").exists()


def test_a_mask_and_a_slab_limit_the_picks_and_a_rerun_knows_them(
    results: Path, tiny: TinySet, tmp_path: Path, cetpick: Run
) -> None:
    half = np.zeros((12, 48, 52), np.int8)  # binned by 2
    half[:, :24] = 1
    (tmp_path / "masks").mkdir()
    write_mrc(tmp_path / "masks" / "two_mask.mrc", half, voxel_size=1.0)  # a voxel size that nobody set
    command = ["pick", tiny.path("two"), "--model", results / "model.safetensors", "-o", tmp_path / "out", "--quiet"]

    def picked(*options: object, code: int = 0) -> pd.DataFrame:
        assert cetpick(*command, *options)[0] == code
        return pd.read_csv(tmp_path / "out" / "candidates" / "two.csv")

    everywhere = picked()
    assert everywhere["y"].max() > 60
    masked = picked("--mask", tmp_path / "masks")
    assert 5 < len(masked) < len(everywhere)
    assert masked["y"].max() < 48
    whole = json.loads((tmp_path / "out" / "run.json").read_text())
    assert str(tmp_path / "masks" / "two_mask.mrc") in whole["inputs"]
    record = whole["tomograms"]["two"]
    assert record["excluded_voxels"]["masked"] == np.prod(tiny.shape) / 2
    again = json.loads((tmp_path / "out" / "records" / "two.json").read_text())["picked"]
    picked("--mask", tmp_path / "masks")
    assert json.loads((tmp_path / "out" / "records" / "two.json").read_text())["picked"] == again
    both = picked("--mask", tmp_path / "masks", "--slab", "0", "110")
    assert 0 < len(both) < len(masked)
    assert both["z"].max() < 11
    write_mrc(tmp_path / "masks" / "two_mask.mrc", half[:, ::-1], voxel_size=1.0)
    assert picked("--mask", tmp_path / "masks")["y"].min() > 46


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--mask", "empty"], "not one mask of tomogram two"),
        (["--mask", "other.mrc"], "is no mask of tomogram two"),
        (["--mask", "zeros.mrc"], "nothing of the tomogram is left to look at"),
        (["--slab", "500", "900"], "from 0 to 240 angstrom\n  found: none within slab 500 to 900 angstrom\n"),
    ],
)
def test_masks_that_cannot_be_used_are_said(
    results: Path,
    tiny: TinySet,
    tmp_path: Path,
    cetpick: Run,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    match: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    write_mrc("other.mrc", np.zeros((24, 96, 60), np.int8), voxel_size=10.0)
    write_mrc("zeros.mrc", np.zeros(tiny.shape, np.int8), voxel_size=10.0)
    code, _, err = cetpick(
        "pick", tiny.path("two"), "--model", results / "model.safetensors", "-o", "out", "--quiet", *options
    )
    assert code == 2
    assert match in err
    assert "Traceback" not in err
    assert not Path("out", "particles.star").exists()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--mask", "none.mrc"], "none.mrc: no such mask"),
        (["--slab", "50", "20"], "unusable --slab"),
        (["--voxel-size", "0.001"], "unusable --voxel-size"),
    ],
)
def test_what_is_wrong_with_an_option_is_said_once(
    results: Path, tiny: TinySet, tmp_path: Path, cetpick: Run, options: list[str], match: str
) -> None:
    names, model = [tiny.path("one"), tiny.path("two")], results / "model.safetensors"
    code, _, err = cetpick("pick", *names, "--model", model, "-o", tmp_path / "out", *options)
    assert (code, err.count(match), "usable tomogram" in err) == (2, 1, False)
    assert not (tmp_path / "out").exists()


def test_labels_outside_of_the_mask_teach_nothing(tiny: TinySet, tmp_path: Path, cetpick: Run) -> None:
    inside = np.ones(tiny.shape, np.int8)
    labels = read_mod(tiny.labels).objects[0].contours[0].points
    inside[:, :, : int(np.sort(labels[:, 0])[3])] = 0
    write_mrc(tmp_path / "mask.mrc", inside, voxel_size=10.0)
    (tmp_path / "masks").mkdir()  # none for the other tomogram, of which there is no label
    (tmp_path / "mask.mrc").rename(tmp_path / "masks" / "one_mask.mrc")
    code, out, err = cetpick(
        "train", tiny.path("one"), tiny.path("two"), "--labels", tiny.labels, "-d", tiny.diameter,
        "-o", tmp_path / "m.safetensors", "--steps", "3", "--count-hint", "12", "--quiet", "--mask", tmp_path / "masks",
    )  # fmt: skip
    assert code == 0, err
    assert "of 8 labels lie in padding, gold or carbon, or outside of the mask or slab" in " ".join(err.split())
    assert "trained on 5 labels" in out
    assert sum(read_settings(tmp_path / "m.safetensors").provenance["labels"].values()) == 5


def test_large_tomograms_are_picked_from_files_alike(
    results: Path, tiny: TinySet, tmp_path: Path, cetpick: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "LARGE", 1)
    monkeypatch.setattr(scratch, "SLAB", 1)
    output = tmp_path / "new" / "out"
    code, _, err = cetpick(
        "pick", tiny.path("two"), "--model", results / "model.safetensors", "-o", output, "--memory", "0.02", "-q"
    )
    assert code == 0, err
    found, same = (pd.read_csv(folder / "candidates" / "two.csv") for folder in (output, results))
    assert len(found) == len(same)
    np.testing.assert_allclose(found[["x", "y", "z"]], same[["x", "y", "z"]], atol=0.3)
    np.testing.assert_allclose(found["score"], same["score"], atol=0.02)
