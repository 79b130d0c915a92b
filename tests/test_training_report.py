"""The report that a training leaves: labels as they were used, curves, the scouts' numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cetpick.config import ModelSettings, ParticleClass
from cetpick.io.mrc import write_mrc
from cetpick.io.table import write_table
from cetpick.records import Coordinates, Grid
from cetpick.report.frame import curve_values
from cetpick.report.training import TrainedOn, facts_of
from tests.conftest import Run, TinySet, read_page, read_picture


@pytest.fixture(scope="module")
def folder(tiny: TinySet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mask that is empty where y is low, and a rejected place where it is high."""
    folder = tmp_path_factory.mktemp("training")
    mask = np.ones(tiny.shape, np.int8)
    mask[:, :30] = 0
    write_mrc(folder / "mask.mrc", mask, voxel_size=10.0)
    high = [place for place in tiny.truth["one"][8:] if place[1] > 40]
    write_table(folder / "rejected.csv", Coordinates.from_points(high[:1]).table)
    return folder


def test_a_training_leaves_a_report(cetpick: Run, tiny: TinySet, folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    command = ["train", tiny.path("one"), "-l", tiny.labels, "-d", tiny.diameter, "--steps", 2, "-q", "-o", model]
    command += ["--mask", folder / "mask.mrc", "--reject", folder / "rejected.csv", "--threads", 2]
    code, out, err = cetpick(*command)
    assert code == 0, err
    page = tmp_path / "m.report.html"
    assert out.splitlines()[-1] == f"report: {page}"
    text, values = read_page(page)
    record = json.loads((tmp_path / "m.run.json").read_text())
    assert record["outputs"] == [str(model), str(page)]
    (tomogram,) = values["tomograms"]
    kept = [label for label in tiny.truth["one"][:8] if label[1] > 29.5]
    assert 0 < len(kept) < 8
    np.testing.assert_allclose(tomogram["given"] or tomogram["labels"], kept, atol=0.2)
    assert len(tomogram["labels"]) == len(kept)
    assert len(tomogram["rejected"]) == 1
    assert tomogram["excluded"] == "Left out of the volume, hatched: 31.2% outside of the mask."
    assert all(plane["left_out"] for plane in tomogram["view"]["planes"].values())
    assert f"<td>{8 - len(kept)}</td>" in text
    assert read_picture(tomogram["view"]["planes"]["xy"]["slices"][0]).format == "JPEG"
    assert [(curve["name"], len(curve["lines"])) for curve in values["curves"]] == [("Final training", 1)]
    losses = [entry["loss"] for entry in record["training"]["curve"]]
    assert [loss for _, loss in values["curves"][0]["lines"][0]] == losses
    scouts = record["training"]["scouts"]
    assert sum(scout["hidden"] for scout in scouts) == len(kept)
    assert [len(scout["ranks"]) for scout in scouts] == [scout["hidden"] for scout in scouts]
    assert f"they found {sum(scout['found'] for scout in scouts)} of {len(kept)} labels again" in text
    assert any(text.count(word) for word in record["warnings"][0].split(";"))
    assert len(text) < 15e6 / 50
    # the same again is nothing to do, and nothing is told of a report that was not made now
    assert "report: " not in cetpick(*command)[1]


def test_a_label_that_is_probably_no_particle_is_said_and_drawn_and_not_learned_from(
    cetpick: Run, tiny: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cetpick.scouting._blank", lambda example, _: np.ones(len(example.labels), bool))
    monkeypatch.setattr("cetpick.scouting.stray_labels", lambda ranks, _: np.arange(len(ranks)) == len(ranks) - 1)
    model = tmp_path / "m.safetensors"
    command = ["train", tiny.path("one"), "-l", tiny.labels, "-d", tiny.diameter, "--steps", 2, "-o", model]
    code, _, err = cetpick(*command, "--threads", 2)
    assert code == 0
    _, values = read_page(tmp_path / "m.report.html")
    (tomogram,) = values["tomograms"]
    x, y, z = tiny.truth["one"][7]
    assert "1 of 8 labels is probably no particle, and not learned from: " in err
    assert f"one at {x:.0f}, {y:.0f}, {z:.0f} (voxels)" in err
    np.testing.assert_allclose(tomogram["stray"], [[x, y, z]], atol=0.1)
    assert len(tomogram["labels"]) == 7
    assert tomogram["given"] == []
    record = json.loads((tmp_path / "m.run.json").read_text())["training"]
    np.testing.assert_allclose(record["stray_labels"]["one"], [[x, y, z]], atol=0.01)
    assert record["labels"] == {"one": 7}


def test_a_report_that_fails_loses_no_model(
    cetpick: Run, tiny: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("drawing went wrong")

    monkeypatch.setattr("cetpick.workflows.report_training.make_planes", fail)
    command = ["train", tiny.path("one"), "-l", tiny.labels, "-d", tiny.diameter, "--mode", "paper", "--steps", 1, "-q"]
    (tmp_path / "m.report.html").touch()
    assert cetpick(*command, "-o", tmp_path / "m.safetensors")[0] == 2  # there is an earlier one
    code, out, err = cetpick(*command, "-o", tmp_path / "m.safetensors", "--overwrite")
    assert code == 0
    assert "not made, the model is complete: RuntimeError: drawing went wrong" in err
    assert "report: " not in out
    assert (tmp_path / "m.safetensors").exists()
    assert not (tmp_path / "m.report.html").exists()
    record = json.loads((tmp_path / "m.run.json").read_text())
    assert record["outputs"] == [str(tmp_path / "m.safetensors")]
    assert "not made" not in cetpick(*command, "-o", tmp_path / "n.safetensors", "--no-report")[2]
    assert not (tmp_path / "n.report.html").exists()
    assert any("drawing went wrong" in text for text in record["warnings"])


def test_labels_that_were_moved() -> None:
    given = np.array([[10.0, 10, 10], [50, 50, 10]])
    of = TrainedOn(
        name="t", grid=Grid(shape=(20, 60, 60), voxel_size=10.0), diameter=100.0, given=given,
        labels=np.add(given, [[0.05, 0, 0], [2, 0, 0]]), left_out=1, stray=given[:1] + 9,
        doubtful=np.empty((0, 3)), rejected=np.empty((0, 3)), excluded_voxels={"total": 9}, planes=None,
    )  # fmt: skip
    assert of.moved().tolist() == [[50, 50, 10]]
    assert of.row(0)[1:] == ["2", "1", "1", "1", "0", "0"]
    assert of.values()["given"] == [[50, 50, 10]]
    assert of.values()["stray"] == [[19, 19, 19]]
    assert of.values()["excluded"] == ""


def test_curves_of_both_modes_and_of_records_without_scouts() -> None:
    log = [{"step": 1, "loss": 2.0, "heatmap": 1.5, "clamped": 1.0}, {"step": 2, "loss": None, "heatmap": 1.0}]
    assert [(c["value"], c["lines"]) for c in curve_values({"curve": log})] == [("heatmap", [[[1, 1.5], [2, 1.0]]])]
    assert curve_values({}) == []
    scout = {"hidden": 2, "found": 1, "curve": [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 1.0}]}
    curves = curve_values({"curve": log, "scouts": [scout, scout]})
    assert [(c["name"], len(c["lines"])) for c in curves] == [("Final training", 1), ("Scouts", 2)]
    facts = facts_of({"steps": 2, "scouts": [scout, scout]}, ModelSettings(
        classes=(ParticleClass(diameter=100),), voxel_size=(20, 10, 10), threshold=0.4
    ))  # fmt: skip
    assert facts["Scouts"].endswith("they found 2 of 4 labels again that they were not shown")
    assert facts["Threshold"] == "0.400"
    assert facts["Steps"] == "2"
    recipe = {"doubtful_places": 134, "label_scatter": 0.025, "cut_short": True}
    facts = facts_of({"steps": 2, "recipe": recipe}, ModelSettings(
        classes=(ParticleClass(diameter=100),), voxel_size=(20, 10, 10)
    ))  # fmt: skip
    assert facts["Steps"].startswith("2, fewer than usual")
    assert facts["Unlabelled places that may be particles"] == "134, which count less as background"
    facts = facts_of({"steps": 2, "recipe": recipe | {"doubtful_weight": 0.0107}}, ModelSettings(
        classes=(ParticleClass(diameter=100),), voxel_size=(20, 10, 10)
    ))  # fmt: skip
    assert facts["Unlabelled places that may be particles"] == "134, which count 1.1% as background"
    assert facts["Labels off centre"] == "typically 2.5% of the diameter, as the scouts see them"
