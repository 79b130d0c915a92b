"""benchmarks/accuracy.py: its label styles, its figures and its table."""

import json
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.spatial import cKDTree

from benchmarks import accuracy
from benchmarks.pickers import METHODS, TRAINED_BY_STEPS
from cetpick.io.mrc import write_mrc
from cetpick.io.table import write_table
from cetpick.metrics import Scene, evaluate
from tests.conftest import TinySet

SHAPE = (48, 120, 120)
FAINT = 20
"""Of the 60 particles of the set, how many are dark enough to be seen."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> accuracy.DataSet:
    """60 balls of diameter 8 on a grid, the first 20 five times as dark as the others."""
    folder = tmp_path_factory.mktemp("data") / "balls"
    rng = np.random.default_rng(0)
    places = np.stack(np.meshgrid([20, 45, 70, 95], [20, 45, 70, 95, 110], [8, 24, 40]), -1).reshape(-1, 3)
    truth = rng.permutation(places + rng.uniform(-2, 2, places.shape)).round(2)
    z, y, x = np.indices(SHAPE)
    volume = rng.normal(0, 0.05, SHAPE)
    for number, centre in enumerate(truth):
        inside = np.hypot(np.hypot(x - centre[0], y - centre[1]), z - centre[2]) < 4
        volume[inside] -= 5 if number < FAINT else 1
    for name in ("train", "val"):
        write_mrc(folder / f"{name}.mrc", volume.astype(np.float32), voxel_size=10.0)
        write_table(folder / f"{name}_truth.csv", pd.DataFrame(truth, columns=["x", "y", "z"]))
    write_table(folder / "train_gold.csv", pd.DataFrame([[5.0, 5, 5], [115, 5, 40]], columns=["x", "y", "z"]))
    (folder / "dataset.json").write_text(json.dumps({"diameter": 80}))
    return accuracy.open_set("balls", folder.parent, folder.parent / "out", {})


def truth_of(dataset: accuracy.DataSet) -> np.ndarray:
    return accuracy.points(dataset.folder / "train_truth.csv")


def nearest(xyz: np.ndarray, others: np.ndarray) -> np.ndarray:
    return cKDTree(others).query(xyz)[0]


def test_settings_of_a_set_and_what_goes_before_them(dataset: accuracy.DataSet) -> None:
    assert (dataset.diameter, dataset.radius, dataset.margin) == (80, 4, (0, 0, 0))
    given = {"radius": 2.0, "margin": (1.0, 2.0, 3.0)}
    other = accuracy.open_set("balls", dataset.folder.parent, dataset.folder, given)
    assert (other.diameter, other.radius, other.margin) == (80, 2, (1, 2, 3))


def test_exact_labels_are_particles_and_each_seed_draws_others(dataset: accuracy.DataSet) -> None:
    draws = [accuracy.draw_labels(dataset, "30pct", "exact", seed).given for seed in (0, 0, 1)]
    assert [len(draw) for draw in draws] == [18, 18, 18]
    assert nearest(draws[0], truth_of(dataset)).max() == 0
    assert np.array_equal(draws[0], draws[1])
    assert nearest(draws[2], draws[0]).max() > 0
    assert len(accuracy.draw_labels(dataset, "n05", "exact", 0).given) == 5


def test_prepared_draws_go_before_random_ones(dataset: accuracy.DataSet) -> None:
    prepared = truth_of(dataset)[[7, 9]]
    file = dataset.folder / "labels" / "50pct_draw0.csv"
    write_table(file, pd.DataFrame(prepared, columns=["x", "y", "z"]))
    drawn = accuracy.draw_labels(dataset, "50pct", "exact", 0).given
    file.unlink()
    assert sorted(map(tuple, drawn)) == sorted(map(tuple, prepared))
    assert len(accuracy.draw_labels(dataset, "50pct", "exact", 0).given) == 30


def test_jittered_labels_spread_as_said(dataset: accuracy.DataSet) -> None:
    draws = [accuracy.draw_labels(dataset, "100pct", "jittered", seed) for seed in range(20)]
    moved = np.concatenate([draw.given - draw.labelled for draw in draws])
    assert moved.std(axis=0) == pytest.approx([1.5, 1.5, 2.5], rel=0.1)
    assert dataset.grid.contains(np.concatenate([draw.given for draw in draws])).all()


@pytest.mark.parametrize("style", ["wrong", "lookalike"])
def test_a_tenth_of_the_labels_is_wrong(dataset: accuracy.DataSet, style: str) -> None:
    drawn = accuracy.draw_labels(dataset, "n20", style, 3)
    off = nearest(drawn.given, truth_of(dataset))
    assert len(drawn.given) == 20
    assert (off > 0).sum() == 2
    assert off.max() >= 4  # half a diameter
    assert len(drawn.labelled) == 18
    gold = accuracy.points(dataset.folder / "train_gold.csv")
    assert (nearest(drawn.given, gold) == 0).sum() == (2 if style == "lookalike" else 0)


def test_contrasted_labels_are_on_the_darkest_third(dataset: accuracy.DataSet) -> None:
    dark = truth_of(dataset)[:FAINT]
    assert nearest(accuracy.draw_labels(dataset, "n10", "contrasted", 0).given, dark).max() == 0
    # no more than there are
    assert len(accuracy.draw_labels(dataset, "50pct", "contrasted", 0).given) == FAINT


def test_labels_of_a_slab(dataset: accuracy.DataSet) -> None:
    heights = [accuracy.draw_labels(dataset, "n10", "slab", seed).given[:, 2] for seed in range(8)]
    assert all(np.ptp(z) < 10 for z in heights)
    assert len({round(z.mean() / 16) for z in heights}) > 1


def on_line(*x: float) -> np.ndarray:
    return np.array([[value, 0.0, 0.0] for value in x])


def test_judging_by_the_unlabelled_particles_leaves_labelled_ones_out() -> None:
    scene = Scene(name="t", picks=on_line(0.5, 10.5, 50), scores=[0.9, 0.8, 0.7], truth=on_line(0, 10, 20))
    left = accuracy.unlabelled_scene(scene, on_line(0), 3)
    assert left.truth[:, 0].tolist() == [10, 20]
    assert left.scores.tolist() == [0.8, 0.7]


def test_calibration_error_of_known_bins() -> None:
    # bin .9: three picks of .95, two right; bin .1: one pick of .15, wrong; .01 does not count
    picks, scores = on_line(0, 10, 50, 60, 70), [0.95, 0.95, 0.95, 0.15, 0.01]
    result = evaluate([Scene(name="t", picks=picks, scores=scores, truth=on_line(0, 10))], 1)
    assert accuracy.calibration_error(result) == pytest.approx((abs(3 * 0.95 - 2) + 0.15) / 4)
    faint = evaluate([Scene(name="t", picks=picks, scores=[0.01] * 5, truth=on_line(0, 10))], 1)
    assert accuracy.calibration_error(faint) is None
    assert accuracy.calibration_by_chance(faint) is None


def test_calibration_error_by_chance_falls_with_the_number_of_picks() -> None:
    def by_chance(number: int) -> float | None:
        scene = Scene(name="t", picks=on_line(*range(number)), scores=[0.5] * number, truth=on_line(-9))
        return accuracy.calibration_by_chance(evaluate([scene], 0.1))

    # one bin of n picks of .5 each: a binomial's mean deviation, 1/2 for one pick, about .4 / root of n for many
    assert by_chance(1) == pytest.approx(0.5)
    assert by_chance(400) == pytest.approx(0.5 * np.sqrt(2 / np.pi / 400), rel=0.2)


def test_figures_of_a_run() -> None:
    # the pick of the lowest score matches too, far off, but lies below the best cut
    scene = Scene(
        name="t",
        picks=on_line(0.6, 10.8, 50, 60, 70, 23),
        scores=[0.9, 0.8, 0.3, 0.3, 0.3, 0.2],
        truth=on_line(0, 10, 20),
        shape=(10, 10, 100),
        threshold=0.3,
    )
    figures = accuracy.judge([scene], radius=4, margin=(0, 0, 0), count=4.5, particles=3)
    assert figures["best_f1"] == pytest.approx(4 / 5)
    assert figures["f1_at_cut"] == pytest.approx(4 / 8)
    assert figures["localisation_error"] == pytest.approx(np.sqrt((0.36 + 0.64) / 2))
    assert figures["count_error"] == pytest.approx(0.5)
    without = accuracy.judge([scene], radius=4, margin=(0, 0, 0), count=None, particles=3, probabilities=False)
    assert without["count_error"] is None
    assert without["calibration_error"] is None


def result(seed: int, **figures: float | None) -> dict[str, object]:
    run = accuracy.Run(set="s", labels="n05", style="exact", method="default", seed=seed, judge="val")
    known = dict.fromkeys(accuracy.COLUMNS) | figures
    return {**vars(run), "radius": 5.0, "margin": [21, 21, 0], "given_labels": 5, "figures": known}


def test_table_has_mean_and_spread_of_each_case() -> None:
    results = [
        result(0, average_precision=0.8, count_error=0.1),
        result(1, average_precision=0.9),
        result(2) | {"set": "r"},
    ]
    headings, _, first, second = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in accuracy.table(results).splitlines()
    )
    of_r, of_s = (dict(zip(headings, row, strict=True)) for row in (first, second))
    assert (of_r["set"], of_r["seeds"], of_r["AP"]) == ("r", "2", "-")
    assert (of_s["set"], of_s["seeds"], of_s["margin"], of_s["n labels"]) == ("s", "0, 1", "21,21,0", "5")
    assert of_s["AP"] == "0.850 ± 0.071"
    assert of_s["count error, %"] == "10 (1 of 2)"


def test_runs_leave_figures_and_are_not_done_twice(
    dataset: accuracy.DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "run",
        tmp_path,
        "--data",
        dataset.folder.parent,
        "--sets",
        "balls",
        "--seeds",
        "0",
        "--methods",
        "blobs",
    ]
    monkeypatch.setattr(sys, "argv", ["accuracy.py", *map(str, command), "--threads", "1", "--judge", "train"])
    told = []
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            accuracy.main()
        assert ended.value.code == 0
        told.append(capsys.readouterr().out)
    assert "AP" in told[0]
    assert "there already" in told[1]
    (file,) = (tmp_path / "runs").iterdir()
    figures = json.loads(file.read_text())["figures"]
    assert figures["average_precision"] > 0.9
    assert figures["truths"] == 54
    assert figures["localisation_error"] < 1
    assert figures["calibration_error"] is None
    assert figures["seconds"] > 0
    assert figures["peak_mib"] > 30


def test_runs_go_side_by_side() -> None:
    both = threading.Barrier(2)

    def run() -> int:
        both.wait(timeout=20)  # broken if the other one never comes
        return 1

    assert accuracy.at_a_time(2, [run, run, run, run]) == 4


@pytest.mark.parametrize(
    ("method", "setting"),
    [
        ("paper", {"unlabelled": "pu", "contrastive_weight": 0.1}),
        ("paper-no-pu", {"unlabelled": "negative", "contrastive_weight": 0.1}),
        ("paper-no-contrastive", {"unlabelled": "pu", "contrastive_weight": 0.0}),
    ],
)
def test_ablations_train_with_their_setting(
    tiny: TinySet, tmp_path: Path, method: str, setting: dict[str, object]
) -> None:
    options = ["--train", tiny.path("one"), "--labels", tiny.labels, "--diameter", tiny.diameter, "--output", tmp_path]
    command = [sys.executable, accuracy.PICKERS, method, tiny.path("two"), *options, "--steps", 2, "--threads", 1]
    accuracy.measured(list(map(str, command)), tmp_path / "log.txt", threads=1)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["training"]["recipe"] | {"steps": 2, **setting} == record["training"]["recipe"]
    assert record["threshold"] == 0.25
    assert (tmp_path / "candidates" / "two.csv").exists()


def test_a_failed_run_tells_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such thing')"]
    with pytest.raises(RuntimeError, match="no such thing"):
        accuracy.measured(command, tmp_path / "log.txt", threads=None)


def test_methods_are_those_of_the_pickers() -> None:
    assert set(accuracy.METHODS) == set(METHODS)
    assert accuracy.WITH_STEPS == TRAINED_BY_STEPS
