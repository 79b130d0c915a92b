"""The same from Python: train and pick, then read the result into numpy."""

import sys
from pathlib import Path

import pandas as pd

import cetpick
from cetpick.config import TrainSettings
from cetpick.workflows.pick import Training

folder = Path(sys.argv[1])
steps = int(sys.argv[2]) if len(sys.argv) > 2 else None

if __name__ == "__main__":
    settings = TrainSettings(diameter=210, steps=steps)
    training = Training(tomograms=[folder / "train.mrc"], labels=[folder / "labels" / "train.mod"], settings=settings)
    summary = cetpick.pick([folder / "test.mrc"], output=folder / "notebook", training=training)
    picks = pd.read_csv(folder / "notebook" / "test.csv")
    print(f"{len(picks)} picks above {summary.threshold:.2f}")

    tomogram = cetpick.read_tomogram(folder / "test.mrc")
    best = picks[["z", "y", "x"]].iloc[0].round().astype(int)
    print("grey value at the best pick:", tomogram.data[tuple(best)])
