"""Learn the weights that every training starts with, from the scenes that pretrain_scenes.py made.

Each species of about the nominal diameter is a class of its own, told from everything else in its scene, so that the
features have to hold what tells one protein from another, whichever they are.

python benchmarks/pretrain.py SCENES cetpick/networks/pretrained.safetensors --minutes 38

With --start it goes on from the weights of an earlier run, on other scenes perhaps.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pretrain_scenes import DIAMETER
from safetensors.torch import save_file
from torch import nn

from cetpick.augment import Pose, apply_symmetry, apply_symmetry_to_points, draw_symmetry, vary_grey
from cetpick.config import TrainSettings
from cetpick.dataset import FAR, Example, gaussian_targets, to_cells
from cetpick.devices import autocast
from cetpick.io.tomograms import read_info, read_tomogram
from cetpick.losses import leave_out_focal_loss
from cetpick.modes.default import SIGMA, TURNED
from cetpick.networks.default import DefaultNetwork
from cetpick.networks.pretrained import HEAD, load_pretrained
from cetpick.preprocess import prepare
from cetpick.training import model_settings

KINDS = 6
CROP = (12, 64, 64)


def load(folder: Path):
    scenes = []
    for table in sorted(folder.glob("*.csv")):
        tomogram = read_tomogram(read_info(table.with_suffix(".mrc")))
        model = model_settings(TrainSettings(diameter=DIAMETER), [tomogram])
        prepared = prepare(tomogram, model)
        truth = pd.read_csv(table)
        example = Example(tomogram=tomogram, labels=np.empty((0, 3)), prepared=prepared)
        points = example.on_working_grid(truth[["x", "y", "z"]].to_numpy())
        kind = truth["species"].map({f"kind-{n}": n for n in range(KINDS)}).fillna(-1).to_numpy()
        scenes.append(
            (torch.from_numpy(prepared.volume), torch.tensor(points, dtype=torch.float32), torch.tensor(kind))
        )
    return scenes, model


def draw(scenes, count, generator):
    crops, centres, chosen = [], [], []
    size = torch.tensor(CROP)
    for _ in range(count):
        number = int(torch.randint(len(scenes), (1,), generator=generator))
        volume, points, kind = scenes[number]
        known = (kind >= 0).nonzero().squeeze(1)
        at = points[known[int(torch.randint(len(known), (1,), generator=generator))]].flip(0)
        start = at - size / 2 + (2 * torch.rand(3, generator=generator) - 1) * 0.35 * size
        last = torch.tensor(volume.shape) - size
        start = torch.minimum(start.round().long().clamp(min=0), last)
        turn = float(torch.rand((), generator=generator)) < TURNED
        angle = 2 * math.pi * float(torch.rand((), generator=generator)) if turn else 0.0
        z, y, x = start.tolist()
        pose = Pose((z, y, x), CROP, angle)
        bits = draw_symmetry(generator)
        crops.append(apply_symmetry(pose.cut(volume), bits))
        moved = apply_symmetry_to_points(pose.place(points), bits, CROP)
        far = torch.full((1, 3), FAR)
        near = ((moved > -20) & (moved < size.flip(0) + 20)).all(dim=1)
        centres.append([torch.cat([moved[(kind == k) & near], far]) for k in range(KINDS)])
        chosen.append(number)
    flat = [c for item in centres for c in item]
    padded = nn.utils.rnn.pad_sequence(flat, batch_first=True, padding_value=FAR)
    return torch.stack(crops)[:, None], padded.view(count, KINDS, -1, 3), torch.tensor(chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate of the weights")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scenes, model = load(arguments.scenes)
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
    begin, averaged = time.monotonic(), copy.deepcopy(network)
    seen = []
    for step in range(arguments.steps):
        done = (time.monotonic() - begin) / 60 / arguments.minutes
        if done >= 1:
            break
        done = max(done, step / arguments.steps)
        for group, rate in zip(optimizer.param_groups, (arguments.rate, 1e-2), strict=True):
            group["lr"] = rate * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * min(1, done)))
        crops, centres, chosen = draw(scenes, 8, generator)
        crops = vary_grey(crops, generator, contrast=0.2, shift=0.1, noise=0.5)
        network.train()
        with autocast(device):
            features = network.features(crops.to(device))
        features = features.float()
        chosen = chosen.to(device)
        logits = torch.einsum("bcdhw,bkc->bkdhw", features, heads[chosen]) + bias[chosen][:, :, None, None, None]
        flat = logits.flatten(0, 1)[:, None]
        points = to_cells(centres.to(device), network.stride).flatten(0, 1)
        target = gaussian_targets(points, tuple(flat.shape[2:]), sigma)
        loss = leave_out_focal_loss(flat, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        decay = min(0.998, (step + 1) / (step + 10))
        with torch.no_grad():
            for old, new in zip(averaged.state_dict().values(), network.state_dict().values(), strict=True):
                old.lerp_(new, 1 - decay) if old.dtype.is_floating_point else old.copy_(new)
        seen.append(loss.item())
        if step % 100 == 99:
            print(step + 1, f"{np.mean(seen[-100:]):.3f}", f"{time.monotonic() - begin:.0f} s", flush=True)
    weights = {name: value.cpu() for name, value in averaged.state_dict().items() if not name.startswith(HEAD)}
    save_file(weights, arguments.output)


if __name__ == "__main__":
    main()
