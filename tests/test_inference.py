"""Tiles equal the whole; planted particles come back where they are."""

import copy
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from cetpick import scratch, tiling
from cetpick.config import ModelSettings, ParticleClass
from cetpick.inference import _apart, find_candidates
from cetpick.networks import Output
from cetpick.networks.default import DefaultNetwork
from cetpick.networks.fold import folded
from cetpick.networks.paper import PaperNetwork
from cetpick.preprocess import Exclusions, Prepared
from cetpick.records import Grid
from cetpick.tiling import choose_tile, features_at, heatmap


@pytest.fixture(autouse=True)
def exact_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """float32, so that only what tiling does is seen."""
    from contextlib import nullcontext

    monkeypatch.setattr(tiling, "autocast", lambda device: nullcontext())


def trained_looking(network: nn.Module) -> nn.Module:
    """Random weights and statistics as lively as those of a trained network."""
    torch.manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 2)
            elif isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.reset_parameters()  # else they are of the process
    return network.eval()


@pytest.mark.parametrize(
    ("network", "both_ways"),
    [(DefaultNetwork(), False), (DefaultNetwork(width=4, fused=4), True), (PaperNetwork(), False)],
    ids=["default", "default both ways", "paper"],
)
def test_tiles_equal_the_whole_volume(network: nn.Module, both_ways: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_looking(network)
    volume = np.random.default_rng(1).standard_normal((7, 131, 90), np.float32)
    device = torch.device("cpu")
    monkeypatch.setattr(tiling, "choose_tile", lambda *_, **__: (7, 136, 96))
    whole = heatmap(network, volume, device=device, both_ways=both_ways)
    monkeypatch.setattr(tiling, "choose_tile", lambda *_, **__: (3, 72, 48))
    tiled = heatmap(network, volume, device=device, both_ways=both_ways)
    assert whole.shape == (7, 66, 45)
    assert whole.std() > 0.02
    np.testing.assert_allclose(tiled, whole, atol=1e-4, rtol=1e-4)


def test_features_at_places_are_those_of_the_whole_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    network = DefaultNetwork(width=4, fused=4, classes=3)
    trained_looking(network)
    rng = np.random.default_rng(1)
    volume, device = rng.standard_normal((7, 131, 90), np.float32), torch.device("cpu")
    cells = rng.uniform(-0.4, 1, (40, 3)) * (7, 66, 45)  # some beyond the faces, where the nearest cell counts
    monkeypatch.setattr(tiling, "choose_tile", lambda *_, **__: (3, 72, 48))
    found = features_at(network, volume, cells, device=device)
    # the turned view comes back cell by cell only where the padding is symmetric
    padded = torch.from_numpy(np.pad(volume, ((0, 0), (0, 5), (0, 6))))[None, None]
    with torch.inference_mode():
        views = network(padded).heatmap, network(padded.flip(-2, -1)).heatmap.flip(-2, -1)
    z, y, x = np.clip(np.rint(cells).astype(int), 0, (6, 65, 44)).T
    np.testing.assert_allclose(found, (sum(views) / 2)[0, :, z, y, x].T, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("length", [1, 2, 7])
@pytest.mark.parametrize("learning", [False, True], ids=["picking", "learning"])
@pytest.mark.parametrize("network", [DefaultNetwork(), folded(DefaultNetwork().eval())], ids=["as trained", "folded"])
def test_convolutions_as_a_gpu_takes_them_equal_those_of_a_cpu(
    network: DefaultNetwork, learning: bool, length: int
) -> None:
    generator = torch.Generator().manual_seed(2)
    volume = torch.randn((2, 32, length, 12, 10), generator=generator).contiguous(memory_format=torch.channels_last_3d)
    for fusion in trained_looking(network).fusion:
        for layer in (fusion.layers[0], fusion.layers[3]):
            if layer.bias is not None:
                nn.init.normal_(layer.bias)
            with torch.set_grad_enabled(learning):
                torch.testing.assert_close(layer.flat(volume), nn.Conv3d.forward(layer, volume), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 7])
def test_convolutions_as_a_cpu_learns_them_equal_those_in_double_precision(length: int) -> None:
    generator = torch.Generator().manual_seed(2)
    network = trained_looking(DefaultNetwork())
    layers = [fusion.layers[n] for fusion in network.fusion for n in (0, 3)]
    for layer in (network.stem[0], *layers):
        flat = isinstance(layer, nn.Conv2d)
        shape = (2, 1, 24, 40) if flat else (2, 32, length, 12, 8)
        order = torch.channels_last if flat else torch.channels_last_3d
        x = torch.randn(shape, generator=generator).contiguous(memory_format=order).requires_grad_()
        exact, exact_x = copy.deepcopy(layer).double(), x.detach().double().requires_grad_()
        y, expected = layer(x), exact(exact_x)
        upstream = torch.randn(y.shape, generator=generator)
        gradients = torch.autograd.grad(y, [x, layer.weight], upstream)
        of_exact = torch.autograd.grad(expected, [exact_x, exact.weight], upstream.double())
        for found, wanted in zip((y, *gradients), (expected, *of_exact), strict=True):
            torch.testing.assert_close(found, wanted.float(), atol=1e-4, rtol=1e-4)


def test_the_network_as_a_cpu_learns_it_equals_that_in_double_precision() -> None:
    network = trained_looking(DefaultNetwork())
    exact = copy.deepcopy(network).double()
    crops = torch.randn((2, 1, 5, 48, 32), generator=torch.Generator().manual_seed(2))
    y, expected = network(crops).heatmap, exact(crops.double()).heatmap
    torch.testing.assert_close(y, expected.float(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(network.features(crops), exact.features(crops.double()).float(), atol=1e-4, rtol=1e-4)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(3))
    found = torch.autograd.grad(y, list(network.parameters()), upstream)
    wanted = torch.autograd.grad(expected, list(exact.parameters()), upstream.double())
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other.float(), atol=1e-3 * other.abs().max().item(), rtol=1e-3)


@pytest.mark.parametrize("side", [96, 384, 640])
def test_convolutions_of_default_mode_are_onednns(side: int) -> None:
    # torch's own take ten times as long, and it takes them for small inputs: those of few slices, not of few voxels
    network, device = folded(DefaultNetwork().eval()), torch.device("cpu")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as told:
        heatmap(network, np.zeros((4, side, side), np.float32), device=device)
    names = {event.key for event in told.key_averages()}
    assert any("mkldnn" in name for name in names)
    assert not [name for name in names if "slow_conv" in name]


@pytest.mark.parametrize("network", [DefaultNetwork(), PaperNetwork()], ids=["default", "paper"])
@pytest.mark.parametrize("lengths", [[1], [2], [1, 1, 1], [3, 1, 5], [9]], ids=str)
def test_slices_in_chunks_equal_the_whole(network: nn.Module, lengths: list[int]) -> None:
    trained_looking(network)
    volume = torch.randn((2, 1, sum(lengths), 64, 48), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = network(volume).heatmap
        pieces = torch.cat(list(network.stream(volume.split(lengths, dim=2))), dim=2)
    torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("network", [DefaultNetwork(), PaperNetwork()], ids=["default", "paper"])
def test_halo_holds_the_receptive_field(network: nn.Module) -> None:
    trained_looking(network)
    z, y, x = network.halo
    shape = (2 * z + 5, 2 * y + 41, 2 * x + 41)
    shape = tuple(-(-n // 8) * 8 for n in shape)
    volume = torch.randn((1, 1, *shape), generator=torch.Generator().manual_seed(1), requires_grad=True)
    # every cell of one pooling cell, since pooling makes the field depend on the place in it
    cells = tuple(
        slice(n // s // 2 // 4 * 4, n // s // 2 // 4 * 4 + 4) for n, s in zip(shape, network.stride, strict=True)
    )
    network(volume).heatmap[0, 0][cells[0].start, cells[1], cells[2]].abs().sum().backward()
    reached = volume.grad[0, 0].nonzero()
    first = torch.tensor([c.start * s for c, s in zip(cells, network.stride, strict=True)])
    last = torch.tensor([cells[0].start, cells[1].stop * network.stride[1] - 1, cells[2].stop * network.stride[2] - 1])
    assert (reached.amin(0) >= first - torch.tensor(network.halo)).all()
    assert (reached.amax(0) <= last + torch.tensor(network.halo)).all()
    assert (reached.amax(0) > last).all()


@pytest.mark.parametrize("shape", [(30, 246, 246), (165, 655, 656), (330, 1310, 1311), (7, 3000, 40)])
@pytest.mark.parametrize("memory", [1 << 27, 1 << 30, 1 << 34])
@pytest.mark.parametrize("most", [None, 1 << 19])
def test_tiles_fill_the_memory_and_no_more(shape: tuple[int, int, int], memory: int, most: int | None) -> None:
    network = DefaultNetwork()
    slices, *plane = choose_tile(shape, network, memory, half=True, most=most)
    whole = [-(-n // a) * a for n, a in zip(shape[1:], network.alignment[1:], strict=True)]
    reads = [
        max(min(n, first + side + halo) - max(0, first - halo) for first in range(0, n, side))
        for n, side, halo in zip(whole, plane, network.halo[1:], strict=True)
    ]
    each, kept = network.bytes_per_voxel[0], network.bytes_kept[0]
    taken = np.prod(reads) * (slices * each + kept)
    assert taken <= memory
    room = min(memory / (each + kept), most or np.inf)
    assert (plane == whole) == (np.prod(whole) <= room)
    assert np.prod(reads) <= room
    if most is not None:
        assert slices == 1 or np.prod(reads) * (slices - 1) < most
    elif slices < shape[0]:  # a larger memory is not left unused
        assert taken > memory / 4


def test_smaller_tiles_when_the_memory_runs_out() -> None:
    class Greedy(DefaultNetwork):
        largest = 0

        def stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
            for chunk in chunks:
                if chunk.shape[-1] * chunk.shape[-2] > 12600:
                    raise torch.OutOfMemoryError("no")
                self.largest = max(self.largest, chunk.numel())
                yield torch.ones(len(chunk), 1, chunk.shape[2], chunk.shape[3] // 2, chunk.shape[4] // 2)

    network = Greedy(width=4, fused=4).eval()
    volume = np.zeros((60, 130, 90), np.float32)
    result = heatmap(network, volume, device=torch.device("cpu"), both_ways=True)
    assert result.shape == (60, 65, 45)
    assert (result == 1).all()  # nothing of the attempts before
    assert network.largest > 10000

    def fails(chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        raise torch.OutOfMemoryError("never enough")

    network.stream = fails
    with pytest.raises(torch.OutOfMemoryError, match="never enough"):
        heatmap(network, volume, device=torch.device("cpu"))


@pytest.mark.parametrize("network", [DefaultNetwork(), PaperNetwork()], ids=["default", "paper"])
def test_folded_batch_norms_change_nothing(network: nn.Module) -> None:
    trained_looking(network)
    crops = torch.randn((1, 1, 6, 64, 64), generator=torch.Generator().manual_seed(1))
    quick = folded(network)
    assert not any(isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) for module in quick.modules())
    with torch.inference_mode():
        torch.testing.assert_close(quick(crops).heatmap, network(crops).heatmap, atol=1e-4, rtol=1e-4)


class Blur(nn.Module):
    """A network whose logit is the mean of each cell's voxels, so that peaks are where the volume is bright."""

    stride, halo, alignment, bytes_per_voxel, bytes_kept = (1, 2, 2), (0, 0, 0), (1, 8, 8), (10, 20), (0, 0)

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Output:
        return Output(heatmap=nn.functional.avg_pool3d(x, (1, 2, 2)), features=None)

    def stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        return (self(chunk).heatmap for chunk in chunks)


def planted(centres_angstrom: np.ndarray, settings: ModelSettings, shape: tuple[int, int, int]) -> np.ndarray:
    axes = [(np.arange(n) + 0.5) * v for n, v in zip(shape, settings.voxel_size, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    volume = np.full(shape, -6.0)
    for cx, cy, cz in centres_angstrom:
        volume += 10 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / (2 * 40**2))
    return volume.astype(np.float32)


def test_candidates_come_back_in_stored_voxels() -> None:
    settings = ModelSettings(classes=(ParticleClass(name="ribosome", diameter=200),), voxel_size=(25, 12.5, 12.5))
    centres = np.array([[300, 412.5, 250], [610.3, 398.8, 333.1], [806.2, 150, 500]])
    volume = planted(centres, settings, (30, 61, 77))
    exclusions = Exclusions(not_finite=0, padding=0, total=volume.size)
    prepared = Prepared(volume=volume, valid=None, voxel_size=settings.voxel_size, exclusions=exclusions)
    grid = Grid(shape=(94, 95, 120), voxel_size=8.0)
    table = find_candidates(Blur(), prepared, grid, settings)
    assert list(table.columns) == ["x", "y", "z", "score", "class"]
    assert (table["class"] == "ribosome").all()
    assert (table["score"].diff().dropna() <= 0).all()
    best = table[table["score"] > 0.5][["x", "y", "z"]].to_numpy()
    assert len(best) == 3
    found = (best + 0.5) * grid.voxel_size
    distance = np.linalg.norm(found[:, None] - centres[None], axis=2).min(axis=0)
    assert (distance < 2.5).all(), distance


def test_no_candidate_where_there_is_no_data() -> None:
    settings = ModelSettings(classes=(ParticleClass(diameter=200),), voxel_size=(25, 12.5, 12.5))
    volume = planted(np.array([[300, 400, 250], [700, 400, 250]]), settings, (20, 64, 80))
    valid = np.ones(volume.shape, bool)
    valid[:, :, 40:] = False
    exclusions = Exclusions(not_finite=0, padding=0, total=volume.size)
    prepared = Prepared(volume=volume, valid=valid, voxel_size=settings.voxel_size, exclusions=exclusions)
    table = find_candidates(Blur(), prepared, Grid(shape=(62, 100, 125), voxel_size=8.0), settings)
    assert (table["x"] < 40 * 12.5 / 8).all()
    assert (table["score"] > 0.5).sum() == 1
    assert table.attrs["excluded"] == 1
    assert table["x"][0] == pytest.approx(300 / 8 - 0.5, abs=0.3)


def test_centring_leads_neither_out_of_the_region_nor_together() -> None:
    """Balls that the network sees off their centres: in a slab whose face some would cross, others side by side."""
    settings = ModelSettings(
        classes=(ParticleClass(diameter=200),), voxel_size=(25, 12.5, 12.5), calibration=((-6.0, -6.0), (6.0, 6.0))
    )
    rng, separation = np.random.default_rng(0), settings.separation * settings.diameter
    lattice = np.stack(np.meshgrid(np.arange(5), np.arange(5), indexing="ij"), axis=-1).reshape(-1, 2)
    centres = np.column_stack([150 + 260.0 * lattice, np.where(lattice.sum(axis=1) % 2, 210.0, 480.0)])
    centres = np.vstack([centres, centres + np.array([1.02 * separation, 0, 0])])
    volume = planted(centres + rng.normal(0, 15, centres.shape), settings, (30, 112, 120))
    valid = np.zeros(volume.shape, bool)
    valid[8:20] = True  # 200 to 500 angstrom
    exclusions = Exclusions(not_finite=0, padding=0, total=volume.size)
    prepared = Prepared(volume=volume, valid=valid, voxel_size=settings.voxel_size, exclusions=exclusions)
    grid = Grid(shape=(94, 175, 188), voxel_size=8.0)
    with pytest.MonkeyPatch.context() as patched:
        for shift in (30.0, -30.0):  # angstrom along z and x, as far as a centre may be moved
            offset = shift / np.array(settings.voxel_size)
            sign = np.where(np.arange(2000)[:, None] % 2, 1, -1)
            move = lambda _, places, *__, **___: places + offset * [1, 0, 0] + offset * [0, 0, 1] * sign[: len(places)]  # noqa: E731, B023
            patched.setattr("cetpick.inference.centred", move)
            table = find_candidates(Blur(), prepared, grid, settings)
            found = (table[["x", "y", "z"]].to_numpy() + 0.5) * grid.voxel_size
            assert (table["score"] > 0.5).sum() > 20
            assert found[:, 2].min() >= 200 - 12.5
            assert found[:, 2].max() <= 500 + 12.5
            assert cKDTree(found).query(found, k=2)[0][:, 1].min() >= separation - 1e-6
            patched.setattr("cetpick.inference.centred", lambda _, places, *__, **___: places)
            before = find_candidates(Blur(), prepared, grid, settings)
            assert (found != (before[["x", "y", "z"]].to_numpy() + 0.5) * grid.voxel_size).any(axis=1).mean() > 0.3


def test_of_two_that_would_come_too_near_the_better_one_moves() -> None:
    before = np.array([[0.0, 0, 0], [10, 0, 0], [100, 0, 0], [110, 0, 0], [200, 0, 0], [210, 0, 0], [300, 0, 0]])
    moved = before + np.array([[-1.0], [-2], [1], [0], [2], [0], [5]]) * [1, 0, 0]
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.001, 0.0005])
    points, left = _apart(before, moved, np.arange(7) < 6, scores, distance=10)
    # the second and the third go back, the sixth is improbable and gives way, and the last may not move
    assert left.tolist() == [0, 1, 2, 3, 4, 6]
    assert points[:, 0].tolist() == [-1, 10, 100, 110, 202, 300]
    # back where it was, a worse one is still too near: both stay
    points, _ = _apart(
        before[:2], before[:2] + np.array([[3.0, 0, 0], [-1, 0, 0]]), np.ones(2, bool), scores[:2], distance=10
    )
    assert points[:, 0].tolist() == [0, 10]


def test_paper_mode_keeps_the_cells_and_close_neighbours() -> None:
    settings = ModelSettings(mode="paper", classes=(ParticleClass(diameter=200),), voxel_size=(20, 10, 10))
    volume = np.full((8, 32, 32), -5, np.float32)
    volume[3, 8:10, 10:12] = 2
    volume[3, 8:10, 16:18] = 1  # three cells off: inside a diameter, outside the neighbourhood of (3, 5, 5)
    exclusions = Exclusions(not_finite=0, padding=0, total=volume.size)
    prepared = Prepared(volume=volume, valid=None, voxel_size=settings.voxel_size, exclusions=exclusions)
    table = find_candidates(Blur(), prepared, Grid(shape=(16, 32, 32), voxel_size=10.0), settings)
    # x = 2 (i + .5) - .5, and a merged slice lies between its two slices
    assert table[["x", "y", "z"]].to_numpy()[:2].tolist() == [[10.5, 8.5, 6.5], [16.5, 8.5, 6.5]]


def test_candidates_found_in_slabs_and_files_equal_those_of_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = ModelSettings(
        classes=(ParticleClass(diameter=200),), voxel_size=(25, 12.5, 12.5), calibration=((-5.0, -4.0), (5.0, 4.0))
    )
    rng = np.random.default_rng(2)
    volume = planted(rng.uniform(60, (950, 750, 700), (40, 3)), settings, (30, 61, 77))
    volume += rng.normal(0, 0.3, volume.shape).astype(np.float32)
    exclusions = Exclusions(not_finite=0, padding=0, total=volume.size)
    prepared = Prepared(volume=volume, valid=None, voxel_size=settings.voxel_size, exclusions=exclusions)
    grid = Grid(shape=(94, 95, 120), voxel_size=8.0)
    whole = find_candidates(Blur(), prepared, grid, settings)
    monkeypatch.setattr(scratch, "SLAB", 1)
    monkeypatch.setattr(scratch, "LARGE", 1)
    cut = find_candidates(Blur(), prepared, grid, settings)
    assert (whole["score"] > 0.5).sum() > 20
    pd.testing.assert_frame_equal(cut, whole)
