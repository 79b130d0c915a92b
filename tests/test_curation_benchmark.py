"""benchmarks/curation.py: what the simulated person says, and the table."""

import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from benchmarks import accuracy, curation
from benchmarks.curation import Known, Run, answered, checked, drawn, errors
from cetpick.io.mrc import write_mrc
from cetpick.io.table import write_table


def on_line(*x: float) -> np.ndarray:
    return np.array([[value, 0.0, 0.0] for value in x]).reshape(-1, 3)


def xs(points: np.ndarray) -> list[float]:
    return points[:, 0].tolist()


def test_errors_are_missed_particles_and_picks_of_nothing() -> None:
    found = errors(on_line(1, 20, 55, 70), truth=on_line(0, 20, 40, 60), labels=on_line(60), radius=4)
    assert (xs(found.labels), xs(found.rejected)) == ([40], [55, 70])


def test_corrections_are_drawn_from_both_kinds() -> None:
    everything = Known(labels=on_line(*range(30)), rejected=on_line(*range(100, 130)))
    few = drawn(everything, 20, np.random.default_rng(0))
    assert len(few.labels) + len(few.rejected) == 20
    assert min(len(few.labels), len(few.rejected)) >= 5
    assert set(xs(few.labels)) < set(range(30))
    assert set(xs(few.rejected)) < set(range(100, 130))
    whole = drawn(everything, 100, np.random.default_rng(0))
    assert (len(whole.labels), len(whole.rejected)) == (30, 30)


def test_of_checked_picks_all_that_are_not_rejected_are_labels() -> None:
    found = checked(on_line(1, 20, 55, 70), Known(labels=on_line(40), rejected=on_line(70)))
    assert (xs(found.labels), xs(found.rejected)) == ([40, 1, 20, 55], [70])


def test_suggested_places_are_answered_by_the_truth() -> None:
    # two places on one particle: the nearer one is kept, the other one is neither
    suggested = pd.DataFrame(on_line(1, 2, 30, 42), columns=["x", "y", "z"])
    considered = pd.DataFrame({"score": [0.5] * 40})
    found = answered(suggested.assign(score=0.5, labels=3), considered, truth=on_line(0, 40), radius=4)
    assert found.count == pytest.approx(20 + 3, abs=0.5)  # two of four are particles
    assert (xs(found.labels), xs(found.rejected)) == ([1, 42], [30])


def result(arm: str, seed: int, precision: float) -> dict[str, object]:
    figures = dict.fromkeys(curation.FIGURES, 0.5) | {"average_precision": precision}
    run = Run(set="s", labels="n10", arm=arm, seed=seed, corrections=20)
    return {**vars(run), "added": 8, "rejected": 12, "figures": figures}


def test_the_table_compares_with_the_base_of_the_same_seed() -> None:
    results = [result("base", 0, 0.5), result("base", 1, 0.9), result("random", 0, 0.6), result("random", 1, 0.96)]
    headings, _, base, random = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in curation.table(results).splitlines()
    )
    of_base, of_random = (dict(zip(headings, row, strict=True)) for row in (base, random))
    assert (of_base["arm"], of_base["AP gained"]) == ("base", "")
    assert of_random["AP"] == "0.780 ± 0.255"
    assert of_random["AP gained"] == "0.080 ± 0.028"
    assert (of_random["seeds"], of_random["corrections"], of_random["rejected"]) == ("0, 1", "20", "12 ± 0")


def test_rounds_are_run_once_and_the_second_begins_with_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a picker that finds what it was told, and one thing that is none."""
    truth = np.array([[x, y, 10.0] for x in (20, 50, 80) for y in (20, 50, 80)])
    folder = tmp_path / "data" / "balls"
    for name in ("train", "val"):
        write_mrc(folder / f"{name}.mrc", np.zeros((20, 100, 100), np.float32), voxel_size=10.0)
        write_table(folder / f"{name}_truth.csv", pd.DataFrame(truth, columns=["x", "y", "z"]))
    (folder / "dataset.json").write_text(json.dumps({"diameter": 80}))
    commands = []

    def tool(arguments: list[object], log: Path, threads: int | None) -> dict[str, float]:
        words = [str(word) for word in arguments]
        commands.append(words)
        given = SimpleNamespace(**{w[2:]: v for w, v in itertools.pairwise(words) if w.startswith("--")})
        if words[0] == "suggest":
            places = Path(words[1]) / "suggest" / "suggested.csv"
            rows = pd.DataFrame([truth[4] + 1, [5, 95, 3]], columns=["x", "y", "z"])
            write_table(places, rows.assign(score=0.5, labels=3))
            write_table(places.with_name("candidates.csv"), pd.DataFrame({"score": [0.5] * 4}))
            return {}
        output = Path(given.output)
        labels = [Path(v) for w, v in itertools.pairwise(words) if w == "--labels"]
        found = np.vstack([[[5.0, 5, 5]], *(accuracy.points(path / "train.csv") for path in labels)])
        table = pd.DataFrame(found, columns=["x", "y", "z"]).assign(score=np.linspace(0.9, 0.6, len(found)))
        for name in ("train", "val"):
            write_table(output / f"{name}.csv", table)
            write_table(output / "candidates" / f"{name}.csv", table)
        (output / "run.json").write_text(
            json.dumps({"threshold": 0.5, "model": {"count": 9}, "device": "cpu", "cetpick": "0"})
        )
        return {"seconds": 1.0, "cpu_seconds": 1.0, "peak_mib": 1.0}

    monkeypatch.setattr(curation, "tool", tool)
    options = ["run", tmp_path / "out", "--data", folder.parent, "--sets", "balls", "--labels", "n03", "--seeds", "0"]
    monkeypatch.setattr(sys, "argv", ["curation.py", *map(str, options), "--corrections", "5"])
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            curation.main()
        assert ended.value.code == 0
    assert [words[0] for words in commands] == ["pick", "pick", "pick", "suggest", "pick", "pick", "pick"]
    assert capsys.readouterr().out.count("there already") == 5
    results = {r["arm"]: r for r in (json.loads(f.read_text()) for f in (tmp_path / "out" / "runs").iterdir())}
    assert {arm: r["added"] + r["rejected"] for arm, r in results.items()} == {
        "base": 0, "corrected": 5, "suggested": 2, "random": 5, "checked": 6,
    }  # fmt: skip
    assert results["random"]["rejected"] == 0
    assert {arm: r["count_hint"] is not None for arm, r in results.items() if r["count_hint"]} == {"suggested": True}
    assert sum("--count-hint" in words for words in commands) == 1
    assert results["random"]["figures"]["average_precision"] > results["base"]["figures"]["average_precision"]
    monkeypatch.setattr(sys, "argv", ["curation.py", "table", str(tmp_path / "out")])
    curation.main()
    assert "| balls | n03 | exact |  | suggested | 5 | 1 | 1 | 0 |" in capsys.readouterr().out


def test_contrasted_labels_are_followed_by_contrasted_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = np.arange(30.0)[:, None] * [1, 0, 0]
    write_table(tmp_path / "train_truth.csv", pd.DataFrame(truth, columns=["x", "y", "z"]))
    write_mrc(tmp_path / "train.mrc", np.zeros((4, 4, 40), np.float32), voxel_size=10.0)
    monkeypatch.setattr(accuracy, "most_contrasted", lambda dataset, truth: truth[:10])
    (tmp_path / "dataset.json").write_text(json.dumps({"diameter": 80}))
    dataset = accuracy.open_set(tmp_path.name, tmp_path.parent, tmp_path / "out", {})
    run = Run(set="s", labels="n03", arm="random", seed=0, corrections=20, style="contrasted")
    said = curation.corrections(run, dataset, tmp_path, tmp_path, truth[:3])
    assert xs(said.labels) == [3, 4, 5, 6, 7, 8, 9]
    assert run.key == "s__n03__contrasted__random__20corrections__seed0"
