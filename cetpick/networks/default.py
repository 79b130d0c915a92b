"""The network of `default` mode: a light strided 2D encoder-decoder for each slice, then 3D fusion of the slices."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cetpick.networks import Neighbours, Output, Room


def _block(inputs: int, outputs: int, convolutions: int = 2) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(convolutions):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        inputs = outputs
    return nn.Sequential(*layers)


def _pooled(x: Tensor) -> Tensor:
    """The largest of each 2 x 2 cells of slices (B, C, H, W); on a CPU torch's own takes three times as long."""
    if torch.is_grad_enabled() or x.is_cuda:
        return functional.max_pool2d(x, 2)
    rows = torch.maximum(x[..., ::2, :], x[..., 1::2, :])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])


def _in_full(x: Tensor) -> bool:
    """Whether a CPU computes in float32; some convolutions take it several times as long as need be."""
    return x.dtype == torch.float32 and not x.is_cuda and not torch.is_autocast_enabled("cpu")


def _learns_in_full(x: Tensor) -> bool:
    """Whether it is asked for gradients besides; some of them take oneDNN long, too."""
    return _in_full(x) and torch.is_grad_enabled()


def _every(x: Tensor, step: int) -> Tensor:
    """The voxels of each slice in another order: step^2 pieces of every step-th row and column, one below the other.

    Args:
        x: volumes (B, C, D, H, W).
        step: divides H and W.

    Returns:
        (B, C, D, H step, W / step), all of a voxel's channels together in memory.
    """
    b, c, d, h, w = x.shape
    pieces = x.movedim(1, -1).reshape(b, d, h // step, step, w // step, step, c).permute(0, 1, 3, 5, 2, 4, 6)
    return pieces.reshape(b, d, h * step, w // step, c).movedim(-1, 1)


def _put_together(x: Tensor, step: int) -> Tensor:
    """The inverse of _every."""
    b, c, d, h, w = x.shape
    pieces = x.movedim(1, -1).reshape(b, d, step, step, h // step**2, w, c).permute(0, 1, 4, 2, 5, 3, 6)
    return pieces.reshape(b, d, h // step, w * step, c).movedim(-1, 1)


class _AcrossPlanes(torch.autograd.Function):
    """A convolution of 3 x 1 of planes (B, C, D, N), padded along D, that learns its weights by matrix products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return functional.conv2d(x, weight, padding=(1, 0))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        of_x = functional.conv2d(gradient, weight.transpose(0, 1).flip(2), padding=(1, 0))
        inputs, outputs = (of.permute(0, 2, 3, 1).flatten(1, 2) for of in (x, gradient))
        n = x.shape[3]
        # of the slice before, of the same, and of the slice after
        pairs = (inputs[:, :-n], outputs[:, n:]), (inputs, outputs), (inputs[:, n:], outputs[:, :-n])
        of_weight = torch.stack([(o.transpose(1, 2) @ i).sum(0) for i, o in pairs], dim=-1)
        return of_x, of_weight[..., None]


class _Stem(nn.Conv2d):
    """A convolution of 7 x 7 of every second voxel of slices of one channel."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels, 7, stride=2, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if not _learns_in_full(x):
            return super().forward(x)
        # the same as one of 4 x 4 of cells of 2 x 2 voxels, whose weights' gradient takes a sixth of the time
        padded = functional.pad(x, (4, 2, 4, 2)), functional.pad(self.weight, (1, 0, 1, 0))
        halves = (functional.pixel_unshuffle(of, 2) for of in padded)
        cells, weight = (of.contiguous(memory_format=torch.channels_last) for of in halves)
        return functional.conv2d(cells, weight, self.bias)


class _InPlane(nn.Conv3d):
    """A convolution of 1 x 3 x 3."""

    def __init__(self, channels: int, dilation: int) -> None:
        reach = (dilation, dilation)
        super().__init__(channels, channels, (1, 3, 3), padding=(0, *reach), dilation=(1, *reach), bias=False)

    def forward(self, x: Tensor, *, step: int = 1) -> Tensor:
        """Of volumes (B, C, D, H, W) in the order of _every, where the step is 1 or the dilation."""
        return self.flat(x, step=step) if x.is_cuda or step > 1 or _in_full(x) else super().forward(x)

    def flat(self, x: Tensor, *, step: int = 1) -> Tensor:
        """The same as a convolution of slices.

        In three dimensions a GPU takes ten times as long, and so does a CPU in float32 with a few large slices, which
        torch does not hand to oneDNN.
        """
        # views, as all of a voxel's channels lie together
        pieces = torch.unflatten(x.transpose(1, 2), 3, (step**2, -1)).movedim(3, 2).flatten(0, 2)
        reach = self.dilation[1] // step
        y = functional.conv2d(pieces, self.weight.squeeze(2), self.bias, padding=reach, dilation=reach)
        return torch.unflatten(y, 0, (len(x), -1, step**2)).movedim(3, 1).flatten(3, 4)


class _Across(nn.Conv3d):
    """A convolution of 3 x 1 x 1."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, (3, 1, 1), padding=(1, 0, 0), bias=False)

    def forward(self, x: Tensor, *, padding: int = 1) -> Tensor:
        if x.is_cuda or _in_full(x):
            return self.flat(x, padding=padding)
        return functional.conv3d(x, self.weight, self.bias, padding=(padding, 0, 0))

    def flat(self, x: Tensor, *, padding: int = 1) -> Tensor:
        """The same as a convolution of planes whose second axis is all places of a slice.

        In three dimensions it takes as much longer as in the plane, see _InPlane.flat.
        """
        planes, weight = x.flatten(3), self.weight.squeeze(4)
        if padding == 1 and self.bias is None and _learns_in_full(x):
            y: Tensor = _AcrossPlanes.apply(planes, weight)  # type: ignore[no-untyped-call]
        else:
            y = functional.conv2d(planes, weight, self.bias, padding=(padding, 0))
        return y.reshape(*y.shape[:3], *x.shape[3:])


class _Fusion(nn.Module):
    """A convolution in the plane and one over neighbouring slices, residual.

    The pair costs 0.6 of a dense 3x3x3 convolution, and picks no worse (docs/experiments.md).
    """

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.dilation = dilation
        self.layers = nn.Sequential(
            _InPlane(channels, dilation),
            nn.BatchNorm3d(channels),
            nn.ReLU(inplace=True),
            _Across(channels),
            nn.BatchNorm3d(channels),
        )

    def forward(self, x: Tensor, *, step: int = 1) -> Tensor:
        """Of volumes in the order of _every, where the step is 1 or the dilation."""
        y: Tensor = self.layers[1:](self.layers[0](x, step=step))
        # in place: a new array for each of the two steps took a third of the time of inference on a CPU
        return functional.relu(y.add_(x), inplace=True)

    def step(self, x: Tensor | None, seen: _Seen, *, last: bool) -> Tensor | None:
        """`forward` of the next slices of a volume, as far as their neighbours are known.

        Args:
            x: None when no more slices have come.
            seen: of the slices before.
            last: no more slices will come.
        """
        across = self.layers[3]
        assert isinstance(across, _Across)
        window = seen.in_plane.push(None if x is None else self.layers[:2](x), last=last, rectified=True)
        waiting = seen.waiting
        if x is not None:
            seen.waiting = x[:, :, -1:].clone()  # lest all of it stay in memory
        if window is None:
            return None
        y: Tensor = self.layers[4:](across(window, padding=0))
        # y is of the slice that was waiting and of all but the last of these
        waited = 0 if waiting is None else 1
        if waiting is not None:
            y[:, :, :1].add_(waiting)
        if x is not None:
            y[:, :, waited:].add_(x[:, :, : y.shape[2] - waited])
        return functional.relu(y, inplace=True)


class _Seen:
    """What a fusion keeps of a volume that comes in chunks.

    Attributes:
        in_plane: what the slices have become in the plane.
        waiting: the last slice, until the next one is known.
    """

    def __init__(self, room: Room) -> None:
        self.in_plane = Neighbours(room)
        self.waiting: Tensor | None = None


class DefaultNetwork(nn.Module):
    """2.5D heatmap network.

    Each slice goes through a 7x7 stride-2 stem and a U-Net of three levels (`width`, 2, 4 times that); the features of
    all slices are then fused by three pairs of a convolution in the plane and one across it. Normalisation is BatchNorm
    with stored statistics, so that an output depends on nothing but the `halo` around it.

    Attributes:
        stride: input voxels per output cell along (z, y, x).
        halo: input voxels along (z, y, x) around a tile, cut at multiples of `alignment`, that can influence it.
        alignment: an input may be cut into tiles only at multiples of this along (z, y, x).
        bytes_per_voxel: of a chunk that `stream` takes in 16 and in 32 bits, measured on a CPU.
        bytes_kept: that it keeps besides for each voxel of a slice.
    """

    stride = (1, 2, 2)
    halo = (3, 56, 56)
    alignment = (1, 8, 8)
    bytes_per_voxel = (125, 300)
    bytes_kept = (510, 1600)

    def __init__(self, *, classes: int = 1, width: int = 16, fused: int = 32, prior_logit: float = -4.6) -> None:
        super().__init__()
        self.stem = nn.Sequential(_Stem(width), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.encoder = nn.ModuleList([_block(width, width), _block(width, 2 * width), _block(2 * width, 4 * width)])
        self.up = nn.ModuleList(
            [nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2), nn.ConvTranspose2d(2 * width, width, 2, stride=2)]
        )
        self.decoder = nn.ModuleList([_block(4 * width, 2 * width), _block(2 * width, fused)])
        self.fusion = nn.Sequential(_Fusion(fused), _Fusion(fused, 2), _Fusion(fused, 2))
        self.heatmap = nn.Conv3d(fused, classes, 1)
        nn.init.normal_(self.heatmap.weight, std=0.01)
        nn.init.constant_(self.heatmap.bias, prior_logit)  # type: ignore[arg-type]
        for layer in self.modules():
            # a slice has one channel and so either order of memory: that of the weights decides for all layers
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Conv3d):
                order = torch.channels_last_3d if isinstance(layer, nn.Conv3d) else torch.channels_last
                layer.weight.data = layer.weight.data.contiguous(memory_format=order)

    def features(self, x: Tensor) -> Tensor:
        """What the heatmap is made of, (B, fused, D, H/2, W/2), of crops (B, 1, D, H, W); H and W multiples of 8."""
        return _put_together(*self._fused(x))

    def forward(self, x: Tensor) -> Output:
        """Heatmap logits (B, C, D, H/2, W/2) of crops (B, 1, D, H, W)."""
        fused, step = self._fused(x)
        return Output(heatmap=_put_together(self._logits(fused), step), features=None)

    def stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Heatmap logits of a volume that comes in chunks (B, 1, D, H, W) of slices, in other chunks."""
        room = Room()  # for one after the other
        seen = [_Seen(room) for _ in self.fusion]
        for chunk in itertools.chain(chunks, [None]):
            y = None if chunk is None else self._slices(chunk)
            for fusion, of in zip(self.fusion, seen, strict=True):
                assert isinstance(fusion, _Fusion)
                y = fusion.step(y, of, last=chunk is None)
            if y is not None:
                yield self._logits(y)

    def _slices(self, x: Tensor) -> Tensor:
        """Features of each slice by itself."""
        b, _, d, h, w = x.shape
        slices = x.transpose(1, 2).reshape(b * d, 1, h, w).contiguous(memory_format=torch.channels_last)
        skips = [self.encoder[0](self.stem(slices))]
        for block in self.encoder[1:]:
            skips.append(block(_pooled(skips[-1])))
        y = skips.pop()
        for up, block in zip(self.up, self.decoder, strict=True):
            y = block(torch.cat([up(y), skips.pop()], dim=1))
        volume: Tensor = y.reshape(b, d, *y.shape[1:]).transpose(1, 2)
        return volume.contiguous(memory_format=torch.channels_last_3d)

    def _fused(self, x: Tensor) -> tuple[Tensor, int]:
        """Features in the order of _every, and its step.

        oneDNN takes half as long again to learn a convolution of every second voxel as one of neighbours.
        """
        y, step = self._slices(x), 1
        for fusion in self.fusion:
            assert isinstance(fusion, _Fusion)
            if step != fusion.dilation and _learns_in_full(y):
                y, step = _every(_put_together(y, step), fusion.dilation), fusion.dilation
            y = fusion(y, step=step)
        return y, step

    def _logits(self, fused: Tensor) -> Tensor:
        # float32 under autocast too: logits rounded to bfloat16 would make plateaus of what should be peaks
        with torch.autocast(fused.device.type, enabled=False):
            # a matrix product, as torch's own convolution of one voxel takes five times as long on a CPU
            weight = self.heatmap.weight
            heatmap = functional.linear(fused.to(weight.dtype).movedim(1, -1), weight.flatten(1), self.heatmap.bias)
        return heatmap.movedim(-1, 1)
