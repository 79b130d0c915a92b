"""`demo`: simulate, learn from 24 labels, pick another tomogram, and only then look at its truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cetpick.baselines import difference_of_gaussians
from cetpick.checkpoint import load_model
from cetpick.config import TrainSettings
from cetpick.devices import resolve_device
from cetpick.inference import find_candidates
from cetpick.io.coordinates import read_coordinates
from cetpick.io.tomograms import read_info, read_tomogram
from cetpick.metrics import Result, Scene, evaluate
from cetpick.networks.build import build_network
from cetpick.optimisation import Progress
from cetpick.preprocess import prepare
from cetpick.simulate import demo_settings
from cetpick.workflows.pick import PickSummary, Training, run_pick
from cetpick.workflows.simulate import SimulatedTomogram, run_simulate

LABELS = 24
STEPS = 300
"""Enough for the small tomograms of the demo; a run of one's own takes more."""


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo shows.

    Attributes:
        scenes: the training tomogram and the one that was picked.
        picks: the summary of picking it.
        cetpick: evaluation of the picks; `at_threshold` is at the tool's own cut.
        blobs: of a difference-of-Gaussians picker that knows the true diameter.
        untrained: of the same network before training.
    """

    scenes: tuple[SimulatedTomogram, SimulatedTomogram]
    picks: PickSummary
    cetpick: Result
    blobs: Result
    untrained: Result


def run_demo(
    output: Path,
    *,
    seed: int = 0,
    steps: int = STEPS,
    device: str = "auto",
    threads: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DemoResult:
    """Run the main job end to end on simulated data in the folder `output`; `steps` are those of the training.

    Raises:
        InputError: earlier results are in the way.
    """
    resolve_device(device)  # a wrong device is said before anything is simulated
    settings = [demo_settings(2 * seed), demo_settings(2 * seed + 1)]
    train, test = run_simulate(
        list(zip(("train", "test"), settings, strict=True)), output=output, labels=LABELS, overwrite=overwrite
    )
    assert train.labels is not None
    diameter = settings[0].diameter
    training = Training(
        tomograms=[train.tomogram],
        labels=[train.labels],
        settings=TrainSettings(diameter=diameter, steps=steps, seed=seed),
    )
    picks = run_pick(
        [test.tomogram],
        output=output / "picks",
        training=training,
        device=device,
        threads=threads,
        overwrite=overwrite,
        progress=progress,
    )
    # the picks are on the disk; from here on the truth is read
    info = read_info(test.tomogram)
    truth = read_coordinates(test.truth, tomograms=[info])[0].xyz
    radius = diameter / 2 / info.grid.voxel_size

    def score(xyz: np.ndarray, scores: np.ndarray, threshold: float | None = None) -> Result:
        scene = Scene(name=info.name, picks=xyz, scores=scores, truth=truth, threshold=threshold)
        return evaluate([scene], radius)

    found = pd.read_csv(output / "picks" / "candidates" / f"{info.name}.csv")
    tomogram = read_tomogram(info)
    blobs = difference_of_gaussians(tomogram.data.astype(np.float32), diameter=2 * radius)
    _, model = load_model(picks.model, torch.device("cpu"))
    network = build_network(model, seed=seed).eval()
    guesses = find_candidates(network, prepare(tomogram, model), info.grid, model)
    return DemoResult(
        scenes=(train, test),
        picks=picks,
        cetpick=score(found[["x", "y", "z"]].to_numpy(), found["score"].to_numpy(), picks.threshold),
        blobs=score(*blobs),
        untrained=score(guesses[["x", "y", "z"]].to_numpy(), guesses["score"].to_numpy()),
    )
