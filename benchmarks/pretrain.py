"""Learn the weights that every training starts with, from the scenes that pretrain_scenes.py made.

Each species of about the nominal diameter is a class of its own, told from everything else in its scene, so that the
features have to hold what tells one protein from another, whichever they are.

python benchmarks/pretrain.py SCENES OUT.safetensors --crops 32 --workers 12 --steps 30000 --minutes 2    # on a GPU

With --start it goes on from the weights of an earlier run, on other scenes perhaps.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pretrain_scenes import DIAMETER
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from cetpick.augment import draw_pose, looks, vary_grey
from cetpick.config import TrainSettings
from cetpick.dataset import FAR, Example, gaussian_targets, to_cells
from cetpick.devices import autocast
from cetpick.io.tomograms import read_info, read_tomogram
from cetpick.losses import leave_out_focal_loss
from cetpick.modes.default import SIGMA, TURNED
from cetpick.networks.default import DefaultNetwork
from cetpick.networks.pretrained import HEAD, load_pretrained
from cetpick.optimisation import WeightAverage
from cetpick.preprocess import prepare
from cetpick.training import model_settings

KINDS = 6
CROP = (12, 64, 64)


def load_scene(table: Path):
    """Voxels on the working grid, centres x, y, z in them, and their kinds, -1 for what is none; and the grid."""
    torch.set_num_threads(1)
    tomogram = read_tomogram(read_info(table.with_suffix(".mrc")))
    model = model_settings(TrainSettings(diameter=DIAMETER), [tomogram])
    prepared = prepare(tomogram, model)
    truth = pd.read_csv(table)
    example = Example(tomogram=tomogram, labels=np.empty((0, 3)), prepared=prepared)
    points = example.on_working_grid(truth[["x", "y", "z"]].to_numpy())
    kind = truth["species"].map({f"kind-{n}": n for n in range(KINDS)}).fillna(-1).to_numpy()
    return prepared.volume, points, kind, model


def load(folder: Path, processes: int):
    with multiprocessing.Pool(processes) as pool:
        loaded = pool.map(load_scene, sorted(folder.glob("*.csv")), chunksize=4)
    scenes = [(torch.from_numpy(volume), points.astype(np.float32), kind) for volume, points, kind, _ in loaded]
    return scenes, loaded[0][3]


class Draws(IterableDataset):
    """Batches without end: poses of crops, centres of each kind in them (B, KINDS, N, 3), and their scenes' numbers."""

    def __init__(self, scenes, crops):
        self.shapes = [volume.shape for volume, _, _ in scenes]
        self.points = [(points, kind, points[kind >= 0]) for _, points, kind in scenes]
        self.crops = crops

    def __iter__(self):
        worker = get_worker_info()
        generator = torch.Generator().manual_seed(worker.id if worker else 0)
        while True:
            drawn = [self.draw(generator) for _ in range(self.crops)]
            flat = [torch.from_numpy(centres) for _, of_kinds, _ in drawn for centres in of_kinds]
            padded = nn.utils.rnn.pad_sequence(flat, batch_first=True, padding_value=FAR)
            poses, _, chosen = zip(*drawn, strict=True)
            yield poses, padded.view(self.crops, KINDS, -1, 3), torch.tensor(chosen)

    def draw(self, generator):
        size = np.array(CROP)
        number = int(torch.randint(len(self.shapes), (1,), generator=generator))
        points, kind, known = self.points[number]
        at = known[int(torch.randint(len(known), (1,), generator=generator))]
        start = at[::-1] - size / 2 + (2 * torch.rand(3, generator=generator).numpy() - 1) * 0.35 * size
        start = np.rint(start).clip(0, np.array(self.shapes[number]) - size).astype(int)
        pose = draw_pose(tuple(start.tolist()), CROP, generator, turned=TURNED)
        moved = pose.place(points)
        near = ((moved > -20) & (moved < size[::-1] + 20)).all(axis=1)
        far = np.full((1, 3), FAR, np.float32)
        return pose, [np.concatenate([moved[(kind == k) & near], far]) for k in range(KINDS)], number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--crops", type=int, default=8, help="a step")
    parser.add_argument("--workers", type=int, default=0, help="processes that load scenes and choose crops")
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate of the weights")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scenes, model = load(arguments.scenes, max(1, arguments.workers))
    draws = Draws(scenes, arguments.crops)
    voxels = [volume.to(device) for volume, _, _ in scenes]
    print(len(scenes), "scenes", flush=True)
    network = DefaultNetwork()
    if arguments.start:
        load_pretrained(network, arguments.start)
    network = network.to(device)
    heads = nn.Parameter(torch.randn(len(scenes), KINDS, 32, device=device) * 0.01)
    bias = nn.Parameter(torch.full((len(scenes), KINDS), -4.6, device=device))
    groups = [{"params": network.parameters()}, {"params": [heads, bias]}]
    optimizer = torch.optim.AdamW(groups, lr=arguments.rate, weight_decay=1e-4)
    cell = [size * s for size, s in zip(model.voxel_size, network.stride, strict=True)]
    sigma = tuple(SIGMA * model.diameter / c for c in cell)
    average = WeightAverage(network, decay=0.998)
    batches = iter(DataLoader(draws, batch_size=None, num_workers=arguments.workers))
    network.train()
    begin, seen = time.monotonic(), []
    for step in range(arguments.steps):
        done = (time.monotonic() - begin) / 60 / arguments.minutes
        if done >= 1:
            break
        done = max(done, step / arguments.steps)
        for group, rate in zip(optimizer.param_groups, (arguments.rate, 1e-2), strict=True):
            group["lr"] = rate * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * min(1, done)))
        poses, centres, chosen = next(batches)
        volumes = [voxels[number] for number in chosen.tolist()]
        at = looks(poses, volumes)
        crops = torch.stack([pose.cut(*of) for pose, *of in zip(poses, volumes, at, strict=True)])[:, None]
        crops = vary_grey(crops, generator, contrast=0.2, shift=0.1, noise=0.5)
        chosen = chosen.to(device)
        points = to_cells(centres.to(device), network.stride).flatten(0, 1)
        with autocast(device):
            features = network.features(crops)
        features = features.float()
        logits = torch.einsum("bcdhw,bkc->bkdhw", features, heads[chosen]) + bias[chosen][:, :, None, None, None]
        flat = logits.flatten(0, 1)[:, None]
        target = gaussian_targets(points, tuple(flat.shape[2:]), sigma)
        loss = leave_out_focal_loss(flat, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        average.update()
        seen.append(loss.detach())
        if step % 100 == 99:
            print(step + 1, f"{torch.stack(seen).mean():.3f}", f"{time.monotonic() - begin:.0f} s", flush=True)
            seen = []
    weights = {
        name: value.cpu().contiguous()
        for name, value in average.network().state_dict().items()
        if not name.startswith(HEAD)
    }
    save_file(weights, arguments.output)


if __name__ == "__main__":
    main()
