"""Run a network over a volume of any size, slice by slice and in tiles of slices, equal to one pass over the whole."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cetpick import scratch
from cetpick.devices import autocast, is_half, spare_memory
from cetpick.voxels import Volume

Tile = tuple[int, int, int]

SMALLEST = 16
"""Voxels that the inner part of a tile has along y and x at least."""
CHUNK = 1 << 19
"""Voxels of the slices that a CPU computes at once: with more, what it works on leaves its caches."""
FEWEST = 2
"""Slices that it computes at once all the same: one by one they cost a fifth more."""


class TileableNetwork(Protocol):
    """What tiling needs to know of a network; see networks.default. Its cells are one slice thick: a z stride of 1."""

    stride: Tile
    halo: Tile
    alignment: Tile
    bytes_per_voxel: tuple[int, int]
    bytes_kept: tuple[int, int]

    def stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]: ...  # noqa: D102

    def parameters(self) -> Iterator[nn.Parameter]: ...  # noqa: D102


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _spans(length: int, tile: int, halo: int, alignment: int) -> Iterator[tuple[slice, slice]]:
    """Along one axis: the voxels to read, and those of them (in the padded axis) that the tile answers for."""
    tile, halo = _round_up(tile, alignment), _round_up(halo, alignment)
    for start in range(0, length, tile):
        stop = min(start + tile, length)
        yield slice(max(0, start - halo), min(length, stop + halo)), slice(start, stop)


def choose_tile(
    shape: Sequence[int],
    network: TileableNetwork,
    memory: float,
    *,
    half: bool,
    views: int = 1,
    most: int | None = None,
) -> Tile:
    """The tile with which a volume costs the least computing within a memory.

    Along z the network takes a few slices at a time and nothing is computed twice; along y and x its halo is, for each
    tile.

    Args:
        shape: voxels (z, y, x) of the volume.
        network: tells its halo, and the memory it takes.
        memory: bytes.
        half: computed in 16 bits.
        views: of each tile that are computed together.
        most: voxels of a slice, and to compute at once, but for FEWEST slices; None for as many as the memory holds.

    Returns:
        Slices at a time, and inner voxels along y and x; the smallest tile there is when none fits.
    """
    each, kept = (views * of[0 if half else 1] for of in (network.bytes_per_voxel, network.bytes_kept))
    axes = [
        [
            _cost(_round_up(n, step), side, halo, step)
            for side in sorted({_round_up(-(-n // parts), step) for parts in range(1, max(2, n // SMALLEST + 1))})
        ]
        for n, halo, step in zip(shape[1:], network.halo[1:], network.alignment[1:], strict=True)
    ]
    sizes = {(y.side, x.side): (y.read * x.read, y.largest * x.largest) for y, x in itertools.product(*axes)}
    room = min(memory / (each + kept), most or math.inf)
    fitting = [plane for plane, (_, largest) in sizes.items() if largest <= room]
    plane = min(fitting, key=lambda of: sizes[of]) if fitting else min(sizes, key=lambda of: sizes[of][1])
    largest = sizes[plane][1]
    slices = min(shape[0], int((memory / largest - kept) / each))
    if most is not None:
        slices = min(slices, max(FEWEST, most // largest))
    return max(1, slices), *plane


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
    """Heatmap logits of a whole prepared volume, a few slices of a tile at a time, equal to one pass over the whole.

    No more than these are in memory, besides volume and result where these are. When the memory runs out all the same,
    it goes on with smaller tiles.

    Args:
        network: in eval mode, on the device.
        volume: (z, y, x) normalised grey values.
        device: to compute on.
        memory: bytes that the computing may take; by default devices.spare_memory.
        both_ways: average with what is seen after half a turn about z, which leaves the missing wedge where it is; a
            little more accurate.

    Returns:
        (z', y', x') float32 logits of the first class; cell i covers voxels i*s to i*s + s - 1 of stride s.
    """
    z, y, x = (-(-n // s) for n, s in zip(volume.shape, network.stride, strict=True))
    result: Volume = scratch.zeros((z, y, x), np.float32)

    def add(place: tuple[slice, ...], logits: NDArray[np.float32]) -> None:
        result[place] += logits[0]

    def clear() -> None:
        result[:] = 0

    _run(network, volume, add, clear, device=device, memory=memory, both_ways=both_ways)
    return result


def features_at(
    network: TileableNetwork, volume: Volume, cells: NDArray[np.float64], *, device: torch.device
) -> NDArray[np.float32]:
    """All that a network gives at some places of a volume, the mean of what is seen both ways; else as heatmap.

    Args:
        network: see heatmap.
        volume: see heatmap.
        cells: (n, 3) z, y, x of cells of the heatmap; the nearest ones count.
        device: see heatmap.

    Returns:
        (n, classes of the network).
    """
    shape = [-(-n // s) for n, s in zip(volume.shape, network.stride, strict=True)]
    nearest = np.clip(np.rint(cells).astype(np.intp), 0, np.array(shape) - 1)
    found: list[NDArray[np.float32]] = []

    def add(place: tuple[slice, ...], values: NDArray[np.float32]) -> None:
        if not found:
            found.append(np.zeros((len(nearest), len(values)), np.float32))
        first, last = np.array([(of.start, of.stop) for of in place]).T
        here = ((nearest >= first) & (nearest < last)).all(axis=1)
        z, y, x = (nearest[here] - first).T
        found[0][here] += values[:, z, y, x].T

    _run(network, volume, add, found.clear, device=device, memory=None, both_ways=True)
    return found[0]


def _run(
    network: TileableNetwork,
    volume: Volume,
    add: Callable[[tuple[slice, ...], NDArray[np.float32]], None],
    clear: Callable[[], None],
    *,
    device: torch.device,
    memory: float | None,
    both_ways: bool,
) -> None:
    """Run a network over a volume, see heatmap.

    Args:
        network: see heatmap.
        volume: see heatmap.
        add: given pieces whose sum is the result: where each lies, (z, y, x) cells, and its values (classes, z, y, x).
        clear: forgets all pieces so far.
        device: see heatmap.
        memory: see heatmap.
        both_ways: see heatmap.
    """
    memory = memory or spare_memory(device)
    most = CHUNK if device.type == "cpu" else None
    turns = (False, True) if both_ways else (False,)
    # together they fill a GPU, one after the other they need half the memory
    groups = [turns] if device.type == "cuda" else [(turn,) for turn in turns]
    views = len(groups[0])
    fit = partial(choose_tile, volume.shape, network, half=is_half(device), views=views, most=most)
    tile = fit(memory)
    while True:
        try:
            with torch.inference_mode(), autocast(device):
                for place, values in _tiles(network, volume, tile, device, groups):
                    add(place, values / np.float32(len(turns)))
            return
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            larger = tile
            while tile == larger and memory > 1:
                memory /= 2
                tile = fit(memory)
            if tile == larger:
                raise
            clear()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _is_out_of_memory(error: RuntimeError) -> bool:
    # on a CPU torch raises a plain RuntimeError
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)


def _tiles(
    network: TileableNetwork, volume: Volume, tile: Tile, device: torch.device, groups: Sequence[Sequence[bool]]
) -> Iterator[tuple[tuple[slice, ...], NDArray[np.float32]]]:
    """Pieces that add up to the sum of what all views give: where each lies, and its values (classes, z, y, x).

    Args:
        network: see heatmap.
        volume: see heatmap.
        tile: see choose_tile.
        device: see heatmap.
        groups: of views that are computed together; whether each is turned.
    """
    # zeros up to the alignment, so that every tile and every flip sees the same pooling cells
    rows, columns = (
        list(_spans(_round_up(n, step), side, halo, step))
        for n, side, halo, step in zip(volume.shape[1:], tile[1:], network.halo[1:], network.alignment[1:], strict=True)
    )
    for axes in itertools.product(rows, columns):
        read, own = zip(*axes, strict=True)
        # the heatmap may end within a tile, where what the tile answers for is padding
        place = tuple(
            slice(o.start // s, min(o.stop // s, -(-n // s)))
            for o, s, n in zip(own, network.stride[1:], volume.shape[1:], strict=True)
        )
        inner = tuple(
            slice(p.start - r.start // s, p.stop - r.start // s)
            for p, r, s in zip(place, read, network.stride[1:], strict=True)
        )
        for turned in groups:
            first = 0
            for logits in network.stream(_views(_chunks(volume, tile[0], read, device), turned)):
                views = zip(logits.float(), turned, strict=True)
                seen = torch.stack([_half_turn(view) if turn else view for view, turn in views]).sum(dim=0)
                piece = slice(first, first + seen.shape[1])
                first = piece.stop
                yield (piece, *place), seen[(slice(None), slice(None), *inner)].cpu().numpy()


def _half_turn(slices: Tensor) -> Tensor:
    return slices.flip(-2, -1)


def _views(chunks: Iterable[Tensor], turned: Sequence[bool]) -> Iterator[Tensor]:
    """Each chunk (1, 1, z, y, x) as a batch of views, some after half a turn about z."""
    for chunk in chunks:
        yield torch.cat([_half_turn(chunk) if turn else chunk for turn in turned])


def _chunks(volume: Volume, slices: int, read: Sequence[slice], device: torch.device) -> Iterator[Tensor]:
    """Rows and columns of a volume (z, y, x) as (1, 1, z', y', x'), so many slices at a time, padded with zeros."""
    for first in range(0, len(volume), slices):
        voxels = torch.from_numpy(np.array(volume[first : first + slices, *read])).to(device)
        missing = [r.stop - r.start - n for r, n in zip(read, voxels.shape[1:], strict=True)]
        yield nn.functional.pad(voxels, [p for m in missing[::-1] for p in (0, m)])[None, None]
