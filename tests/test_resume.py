"""A training that was stopped goes on as if it had not been."""

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cetpick import cli, training
from cetpick.config import TrainSettings
from cetpick.dataset import Example
from cetpick.errors import CetpickError, CetpickWarning, InputError
from cetpick.interrupts import held_signals
from cetpick.io.coordinates import read_coordinates
from cetpick.io.lock import alone_in
from cetpick.io.tomograms import read_tomogram
from cetpick.mixture import Mixture
from cetpick.modes import default
from cetpick.preprocess import prepare
from cetpick.resume import Checkpoint
from cetpick.training import TrainedModel, train
from tests.conftest import Run, TinySet

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:--count-hint", "ignore:`paper` mode")
"""After a few steps scores tell anything."""

SMALL: dict[str, Any] = {"steps": 15, "crops": 4, "crop": (6, 32, 32), "count_hint": 12}


class StoppedError(Exception):
    pass


def run(tiny: TinySet, settings: TrainSettings, **how: Any) -> TrainedModel:
    tomogram = read_tomogram(tiny.path("one"))
    labels = read_coordinates(tiny.labels, tomograms=[tomogram.info])[0]
    return train([(tomogram, labels)], settings, device=CPU, **how)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings whose length is not asked for are of 20 steps, and cut short to 9: after 6, 3 more."""
    monkeypatch.setitem(default.STEPS, "pretrained", 20)
    monkeypatch.setattr(default, "ENDING", 3)
    monkeypatch.setattr(training, "fit", lambda _, prior: Mixture(count=prior, knots=(), apart=0.6))


def checkpoint(path: Path, **changes: Any) -> Checkpoint:
    known = {"identity": {"steps": "500", "labels": 30 * "a"}, "environment": "here", "every": 0.0}
    return Checkpoint(path, **(known | changes))


@pytest.mark.filterwarnings("ignore:only 8 labels", "ignore:.* labels were not found again", "ignore:labels lie beside")
@pytest.mark.parametrize(
    ("changes", "part", "step"),
    [
        ({}, "scout 1 of 2", 2),
        ({}, "scout 1 of 2", 3),
        ({}, "scout 2 of 2", 1),
        ({}, "training", 1),
        ({}, "training", 8),
        ({"steps": None}, "training", 6),
        ({"steps": None}, "training", 7),
        ({"steps": None}, "training", 9),
        ({"hidden": "nnpu"}, "training", 4),
        ({"mode": "paper", "steps": 3}, "training", 2),
    ],
)
@pytest.mark.usefixtures("short")
def test_a_resumed_training_ends_with_the_very_same_model(
    tiny: TinySet, tmp_path: Path, changes: dict[str, Any], part: str, step: int
) -> None:
    settings = TrainSettings(diameter=tiny.diameter, **(SMALL | changes))
    told: list[tuple[str, int]] = []

    def stop(what: str, number: int, *_: object) -> None:
        told.append((what, number))
        if (what, number) == (part, step):
            raise StoppedError

    path = tmp_path / "c"
    with pytest.raises(StoppedError):
        run(tiny, settings, progress=stop, checkpoint=checkpoint(path))
    before = len(told)
    second = checkpoint(path)
    second.load()
    assert second.resumed[part] == step
    resumed = run(tiny, settings, progress=lambda what, number, *_: told.append((what, number)), checkpoint=second)
    steps: list[tuple[str, int]] = []
    undisturbed = run(tiny, settings, progress=lambda what, number, *_: steps.append((what, number)))
    assert told == steps  # nothing was done twice
    assert 0 < before < len(told)
    for a, b in zip(resumed.network.state_dict().values(), undisturbed.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert resumed.settings == undisturbed.settings
    assert resumed.log == undisturbed.log
    assert resumed.recipe == undisturbed.recipe


@pytest.mark.filterwarnings("ignore:only 8 labels", "ignore:.* labels were not found again", "ignore:labels lie beside")
@pytest.mark.parametrize(
    ("apart", "asked", "steps"), [(0.5, None, 9), (0.7, None, 20), (0.5, 15, 15)], ids=["apart", "not", "asked"]
)
@pytest.mark.usefixtures("short")
def test_a_training_whose_scores_lie_apart_is_cut_short(
    tiny: TinySet, monkeypatch: pytest.MonkeyPatch, apart: float, asked: int | None, steps: int
) -> None:
    monkeypatch.setattr(training, "APART", apart)
    told: dict[str, list[int]] = {}
    trained = run(
        tiny,
        TrainSettings(diameter=tiny.diameter, **(SMALL | {"steps": asked})),
        progress=lambda what, step, of, _: told.setdefault(what, []).append(of - step),
    )
    assert told["training"][-1] == 0
    assert len(told["training"]) == steps
    assert len(told["refinement"]) == round(training.SECOND * (asked or 20))  # as long as ever
    assert len(trained.log) == steps + len(told["refinement"])
    assert trained.recipe["cut_short"] == (steps == 9)


def test_the_learning_rate_falls_to_zero_where_a_training_is_cut_short(tiny: TinySet) -> None:
    tomogram = read_tomogram(tiny.path("one"))
    settings = TrainSettings(diameter=tiny.diameter, crops=2, crop=(6, 32, 32))
    model = training.model_settings(settings, [tomogram])
    example = Example(tomogram=tomogram, labels=tiny.truth["one"], prepared=prepare(tomogram, model))
    recipe = default.DefaultRecipe([example], settings=settings, model=model, count=12.0, device=CPU)
    optimizer, schedule = recipe.optimizer()
    rates = []
    while len(rates) < recipe.steps:
        if len(rates) == 200:
            recipe.cut_short(200)
        rates.append(optimizer.param_groups[1]["lr"])
        optimizer.step()
        schedule.step()
    assert len(rates) == 200 + default.ENDING
    assert (np.diff(rates[default.WARM_UP :]) < 0).all()
    assert 0.6 < rates[200] / max(rates) < 0.7
    assert np.abs(np.diff(rates[190:])).max() < 0.04 * rates[200]  # without a jump
    assert rates[-1] < 0.01 * rates[200]


def test_a_checkpoint_goes_on_with_its_own_training_only(tmp_path: Path) -> None:
    path = tmp_path / "c"
    first = checkpoint(path)
    first.load()  # nothing there: from the start
    assert first.state("training") is None
    first.save("training", {"log": [{"loss": 1.0}]})
    other = checkpoint(path, identity={"steps": "300", "labels": 30 * "b", "slab": "[1, 2]"})
    with pytest.raises(InputError, match="of another training") as caught:
        other.load()
    assert caught.value.found == "steps 300, then 500; other labels; slab [1, 2], then none"
    elsewhere = checkpoint(path, environment="there")
    with pytest.warns(CetpickWarning, match="made on here, and now it goes on on there"):
        elsewhere.load()
    assert elsewhere.resumed == {"training": 1}
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="no usable checkpoint"):
        checkpoint(path).load()
    elsewhere.remove()
    assert not path.exists()


def test_a_disk_that_is_full_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CetpickError, match="No space left"):
        checkpoint(tmp_path / "m.checkpoint").save("training", {"log": [1]})
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    torch.save({"format": 1, "identity": "a", "environment": Path("x"), "parts": {}}, tmp_path / "c")
    with pytest.raises(InputError, match="no usable checkpoint"):
        checkpoint(tmp_path / "c").load()


SIGNALS = [(signal.SIGINT, [1]), (signal.SIGTERM, [1, 2]), (signal.SIGHUP, [1, 2])]


@pytest.mark.parametrize(("number", "waited"), SIGNALS)
def test_a_signal_waits_for_the_end_and_a_second_ctrl_c_does_not(number: signal.Signals, waited: list[int]) -> None:
    def end(*_: object) -> None:
        raise StoppedError

    before = signal.signal(number, end)
    done: list[int] = []

    def body(signals: int) -> None:
        with held_signals() as came:
            for _ in range(signals):
                signal.raise_signal(number)
            assert came == [number] * signals
            done.append(signals)

    try:
        for signals in (1, 2):
            with pytest.raises(StoppedError):
                body(signals)
        assert signal.getsignal(number) is end
    finally:
        signal.signal(number, before)
    assert done == waited


def test_a_signal_that_waited_is_heard_though_the_body_fails() -> None:
    """Who goes on after the failure of one tomogram has to stop all the same."""

    def end(*_: object) -> None:
        raise StoppedError

    def body() -> None:
        with held_signals():
            signal.raise_signal(signal.SIGTERM)
            raise OSError

    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(StoppedError):
            body()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_sigterm_saves_and_resume_gives_the_undisturbed_model(tiny: TinySet, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from cetpick.cli import main; main()", "train", str(tiny.path("one"))]
    command += ["--labels", str(tiny.labels), "-d", "160", "--count-hint", "12", "--steps", "10", "--threads", "1"]
    model, saved = tmp_path / "m.safetensors", tmp_path / "m.checkpoint"
    with subprocess.Popen([*command, "-o", str(model)], stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if line.startswith("scout 2 of 2: step 2"):
                break
        running.send_signal(signal.SIGTERM)
        said = running.stderr.read()
    assert running.returncode == 143
    assert "with --resume goes on" in said
    assert said.endswith("terminated\n")
    assert [path.name for path in tmp_path.iterdir()] == [saved.name]

    def again(*more: str, output: Path = model) -> subprocess.CompletedProcess[str]:
        line = [*command, "-q", "-o", str(output), *more]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    refused = again()
    assert refused.returncode == 2
    assert "--resume to go on with it" in refused.stderr
    other = again("--resume", "--seed", "4")
    assert other.returncode == 2
    assert "of another training" in other.stderr
    assert again("--resume").returncode == 0
    record = json.loads((tmp_path / "m.run.json").read_text())
    assert record["training"]["resumed"]["scout 2 of 2"] == 2
    assert not saved.exists()
    assert again(output=tmp_path / "undisturbed.safetensors").returncode == 0
    assert model.read_bytes() == (tmp_path / "undisturbed.safetensors").read_bytes()


def test_two_trainings_of_one_model_at_once_are_refused(tiny: TinySet, tmp_path: Path, cetpick: Run) -> None:
    model = tmp_path / "m.safetensors"
    for left in ("m.checkpoint", "other.safetensors"):
        (tmp_path / left).write_text("another's")
    with alone_in(tmp_path, model.name):
        code, _, err = cetpick(
            "train", tiny.path("one"), "--labels", tiny.labels, "-d", 160, "-o", model, "--overwrite"
        )
        assert code == 2
        assert "another cetpick is at work in this folder" in err
        assert (tmp_path / "m.checkpoint").read_text() == "another's"
    assert {path.name for path in tmp_path.iterdir()} == {"m.checkpoint", "other.safetensors"}


@pytest.mark.parametrize(("ended", "code"), [(SystemExit(143), 143), (KeyboardInterrupt(), 130)])
def test_a_signal_while_a_compiled_module_is_loaded(
    ended: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load() -> None:
        raise ImportError("initialization failed") from ended

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(cli, "app", load)
    try:
        with pytest.raises(SystemExit) as left:
            cli.main()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert left.value.code == code
    assert capsys.readouterr().err in ("terminated\n", "stopped\n")
