"""Run a network over a volume of any size: in tiles that equal the whole, as large as the memory allows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from cetpick import scratch
from cetpick.devices import autocast, is_half, spare_memory
from cetpick.networks import Output
from cetpick.voxels import Volume

Tile = tuple[int, int, int]

SIDES = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Voxels that the inner part of a tile may have along an axis, besides all of them."""


class TileableNetwork(Protocol):
    """What tiling needs to know of a network; see networks.default."""

    stride: Tile
    halo: Tile
    alignment: Tile
    bytes_per_voxel: tuple[int, int]

    def __call__(self, x: Tensor) -> Output: ...  # noqa: D102

    def parameters(self) -> Iterator[nn.Parameter]: ...  # noqa: D102


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _spans(length: int, tile: int, halo: int, alignment: int) -> Iterator[tuple[slice, slice]]:
    """Along one axis: the voxels to read, and those of them (in the padded axis) that the tile answers for."""
    tile, halo = _round_up(tile, alignment), _round_up(halo, alignment)
    for start in range(0, length, tile):
        stop = min(start + tile, length)
        yield slice(max(0, start - halo), min(length, stop + halo)), slice(start, stop)


def choose_tile(shape: Sequence[int], network: TileableNetwork, memory: float, *, half: bool) -> Tile:
    """The tile with which a volume costs the least computing within a memory.

    Args:
        shape: voxels (z, y, x) of the volume.
        network: its halo is computed again for each tile.
        memory: bytes.
        half: computed in 16 bits.

    Returns:
        Inner voxels (z, y, x); the smallest tile there is when none fits.
    """
    room = memory / network.bytes_per_voxel[0 if half else 1]
    axes = [
        [
            _cost(_round_up(n, step), side, halo, step)
            for side in sorted({min(_round_up(side, step), _round_up(n, step)) for side in (*SIDES, n)})
        ]
        for n, halo, step in zip(shape, network.halo, network.alignment, strict=True)
    ]
    sizes = {
        (z.side, y.side, x.side): (z.read * y.read * x.read, z.largest * y.largest * x.largest)
        for z, y, x in itertools.product(*axes)
    }
    fitting = [tile for tile, (_, largest) in sizes.items() if largest <= room]
    return min(fitting, key=lambda tile: sizes[tile]) if fitting else min(sizes, key=lambda tile: sizes[tile][1])


class _Cost(NamedTuple):
    """Along one axis: the inner part of a tile, voxels that all tiles read together, and those of the largest one."""

    side: int
    read: int
    largest: int


def _cost(length: int, side: int, halo: int, alignment: int) -> _Cost:
    reads = [read.stop - read.start for read, _ in _spans(length, side, halo, alignment)]
    return _Cost(side, sum(reads), max(reads))


def heatmap(
    network: TileableNetwork,
    volume: Volume,
    *,
    device: torch.device,
    memory: float | None = None,
    both_ways: bool = False,
) -> Volume:
    """Heatmap logits of a whole prepared volume, computed tile by tile with a halo, equal to one pass over the whole.

    Only one tile at a time is in memory, besides volume and result where these are. When the memory runs out all the
    same, it goes on with smaller tiles.

    Args:
        network: in eval mode, on the device.
        volume: (z, y, x) normalised grey values.
        device: to compute on.
        memory: bytes that a tile may take; by default devices.spare_memory.
        both_ways: average with what is seen after half a turn about z, which leaves the missing wedge where it is; a
            little more accurate.

    Returns:
        (z', y', x') float32 logits of the first class; cell i covers voxels i*s to i*s + s - 1 of stride s.
    """
    memory = memory or spare_memory(device)
    z, y, x = (-(-n // s) for n, s in zip(volume.shape, network.stride, strict=True))
    result: Volume = scratch.zeros((z, y, x), np.float32)
    half = is_half(device)
    tile = choose_tile(volume.shape, network, memory, half=half)
    while True:
        try:
            for place, logits in _tiles(network, volume, tile, device, both_ways):
                result[place] = logits
            return result
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            larger = tile
            while tile == larger and memory > 1:
                memory /= 2
                tile = choose_tile(volume.shape, network, memory, half=half)
            if tile == larger:
                raise
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _is_out_of_memory(error: RuntimeError) -> bool:
    # on a CPU torch raises a plain RuntimeError
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)


def _tiles(
    network: TileableNetwork, volume: Volume, tile: Tile, device: torch.device, both_ways: bool
) -> Iterator[tuple[tuple[slice, ...], Volume]]:
    """Where in the heatmap each tile lies, and its logits."""
    # zeros up to the alignment, so that every tile and every flip sees the same pooling cells
    aligned = [_round_up(n, a) for n, a in zip(volume.shape, network.alignment, strict=True)]
    spans = [list(_spans(*axis)) for axis in zip(aligned, tile, network.halo, network.alignment, strict=True)]
    for axes in itertools.product(*spans):
        read, own = zip(*axes, strict=True)
        # the heatmap may end within a tile, where what the tile answers for is padding
        place = tuple(
            slice(o.start // s, min(o.stop // s, -(-n // s)))
            for o, s, n in zip(own, network.stride, volume.shape, strict=True)
        )
        inner = tuple(
            slice(p.start - r.start // s, p.stop - r.start // s)
            for p, r, s in zip(place, read, network.stride, strict=True)
        )
        voxels = torch.from_numpy(np.array(volume[read])).to(device)
        missing = [r.stop - r.start - n for r, n in zip(read, voxels.shape, strict=True)]
        with torch.inference_mode(), autocast(device):
            padded = nn.functional.pad(voxels, [p for m in missing[::-1] for p in (0, m)])
            logits = network(padded[None, None]).heatmap[0, 0].float()
            if both_ways:
                turned = network(padded.flip([-2, -1])[None, None]).heatmap[0, 0].float()
                logits = (logits + turned.flip([-2, -1])) / 2
        yield place, logits[inner].cpu().numpy()
