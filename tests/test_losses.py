"""Losses against values by hand, slow loops, and the signs of their gradients."""

from __future__ import annotations

import math

import pytest
import torch

from cetpick.losses import (
    NegativeRisk,
    consistency_loss,
    leave_out_focal_loss,
    pu_focal_loss_paper,
    soft_label_nnpu,
    supervised_debiased_contrastive,
    unsupervised_debiased_contrastive,
)

LN2 = math.log(2)
MIXED = torch.tensor([1.0, 1.0, 0.5, 0.2, -1.0, -1.0, -1.0, -1.0])
"""Two centres, two soft voxels, four unlabelled ones."""


def random_p(n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 0.9 + 0.05


def unit_features(n: int, seed: int = 0, channels: int = 4) -> torch.Tensor:
    random = torch.randn(2, n, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    # A common part brings the cosines near those of a network, so that neither side of the maximum always wins.
    return torch.nn.functional.normalize(random + 1.5, dim=-1)


# --- Eq 7, the paper's PU focal loss -------------------------------------------------------------------------------


def slow_pu(p: list[float], target: list[float], prior: float) -> tuple[float, float]:
    """The two parts of 3.1's loss, voxel by voxel."""
    plus: dict[str, list[float]] = {"tp": [], "sp": []}
    minus: dict[str, list[float]] = {"tp": [], "sp": []}
    unlabelled = []
    for q, y in zip(p, target, strict=True):
        if y == 1:
            plus["tp"].append((1 - q) ** 2 * -math.log(q))
            minus["tp"].append(q**2 * -math.log(1 - q))
        elif y > -1:
            plus["sp"].append((1 - y) ** 4 * q**2 * -math.log(1 - q))
            minus["sp"].append(y**4 * (1 - q) ** 2 * -math.log(q))
        else:
            unlabelled.append(q**2 * -math.log(1 - q))

    def mean(values: list[float]) -> float:
        return sum(values) / len(values) if values else 0.0

    return prior * (mean(plus["tp"]) + mean(plus["sp"])), mean(unlabelled) - prior * (
        mean(minus["tp"]) + mean(minus["sp"])
    )


def test_pu_loss_by_hand() -> None:
    # p = 1/2: every focal term is (1/4) ln 2; y = 1/2: both distance weights are 1/16.
    p = torch.full((3,), 0.5, dtype=torch.float64)
    result = pu_focal_loss_paper(p, torch.tensor([1.0, 0.5, -1.0]), prior=0.1)
    term = LN2 / 4
    assert result.positive.item() == pytest.approx(0.1 * term * 17 / 16)
    assert result.negative.item() == pytest.approx(term - 0.1 * term * 17 / 16)
    assert result.loss.item() == pytest.approx(term)
    assert not result.clamped


@pytest.mark.parametrize("prior", [0.001, 0.1, 0.6])
@pytest.mark.parametrize("seed", range(5))
def test_pu_loss_equals_the_slow_loop(prior: float, seed: int) -> None:
    p = random_p(8, seed)
    positive, negative = slow_pu(p.tolist(), MIXED.tolist(), prior)
    result = pu_focal_loss_paper(p, MIXED, prior)
    assert result.positive.item() == pytest.approx(positive)
    assert result.negative.item() == pytest.approx(negative)
    assert result.loss.item() == pytest.approx(positive + max(0.0, negative))
    assert bool(result.clamped) == (negative < 0)


def pu_gradient(p: torch.Tensor, prior: float) -> tuple[torch.Tensor, bool]:
    p = p.clone().requires_grad_()
    result = pu_focal_loss_paper(p, MIXED.to(p.dtype), prior)
    result.loss.backward()
    assert p.grad is not None
    return p.grad, bool(result.clamped)


def test_pu_gradient_signs() -> None:
    free, clamped = pu_gradient(torch.full((8,), 0.5, dtype=torch.float64), prior=0.1)
    assert not clamped
    assert (free[:2] < 0).all()  # centres are pushed up
    assert (free[2:4] > 0).all()  # soft voxels are pushed down
    assert (free[4:] > 0).all()  # unlabelled voxels are pushed down

    quiet_background = torch.tensor([0.9, 0.9, 0.5, 0.5, 0.05, 0.05, 0.05, 0.05], dtype=torch.float64)
    held, clamped = pu_gradient(quiet_background, prior=0.1)
    assert clamped
    assert (held[:2] < 0).all()
    assert (held[2:4] > 0).all()
    assert (held[4:] == 0).all()


def test_clamped_negative_part_has_no_gradient() -> None:
    p = torch.tensor([0.9, 0.9, 0.5, 0.5, 0.05, 0.05, 0.05, 0.05], dtype=torch.float64, requires_grad=True)
    result = pu_focal_loss_paper(p, MIXED.double(), prior=0.6)
    (of_loss,) = torch.autograd.grad(result.loss, p, retain_graph=True)
    (of_positive,) = torch.autograd.grad(result.positive, p)
    assert result.clamped
    torch.testing.assert_close(of_loss, of_positive, rtol=0, atol=0)


def test_clamp_binds_at_the_first_step_for_a_prior_above_a_sixth() -> None:
    # A new network gives p = 0.1006 everywhere; a kernel of radius 2 has 124 soft voxels.
    offsets = torch.arange(-2, 3, dtype=torch.float64)
    squared = (offsets**2)[:, None, None] + (offsets**2)[:, None] + offsets**2
    kernel = torch.exp(-squared / (2 * (5 / 6) ** 2))
    target = torch.full((5, 10, 10), -1.0, dtype=torch.float64)
    target[:, :5, :5] = kernel
    p = torch.full_like(target, 1 / (1 + math.exp(2.19)))
    assert [bool(pu_focal_loss_paper(p, target, prior).clamped) for prior in (0.15, 0.17)] == [False, True]


def test_pu_loss_without_labels_is_the_unlabelled_risk() -> None:
    p = random_p(4)
    result = pu_focal_loss_paper(p, torch.full((4,), -1.0), prior=0.1)
    assert result.positive.item() == 0
    assert result.loss.item() == pytest.approx((p**2 * -torch.log(1 - p)).mean().item())


# --- soft-label nnPU -----------------------------------------------------------------------------------------------


def slow_nnpu(p: list[float], target: list[float], weight: list[float]) -> tuple[float, ...]:
    """E_c[l1], E_s[(1-y)^4 l0], E_c[l0], E_s[l0], E_u[l0], with weights."""
    sums = [0.0] * 5
    counts = [0.0] * 5
    for q, y, w in zip(p, target, weight, strict=True):
        l1, l0 = (1 - q) ** 2 * -math.log(q), q**2 * -math.log(1 - q)
        where = [(0, l1), (2, l0)] if y == 1 else [(1, (1 - y) ** 4 * l0), (3, l0)] if y > 0 else [(4, l0)]
        for index, value in where:
            sums[index] += w * value
            counts[index] += w
    return tuple(s / c for s, c in zip(sums, counts, strict=True))


WEIGHT = torch.tensor([1.0, 0.5, 1.0, 2.0, 1.0, 0.0, 1.0, 1.0], dtype=torch.float64)


@pytest.mark.parametrize(("centre_prior", "soft_prior"), [(1e-3, 1e-2), (0.3, 0.6)])
@pytest.mark.parametrize("variant", ["ascent", "absolute"])
@pytest.mark.parametrize("seed", range(3))
def test_nnpu_equals_brute_force(centre_prior: float, soft_prior: float, variant: str, seed: int) -> None:
    p = random_p(8, seed)
    e_c1, e_s1, e_c0, e_s0, e_u0 = slow_nnpu(p.tolist(), MIXED.tolist(), WEIGHT.tolist())
    positive = 3 * centre_prior * e_c1 + soft_prior * e_s1
    negative = e_u0 - centre_prior * e_c0 - soft_prior * e_s0
    below_zero = -0.5 * negative if variant == "ascent" else positive - negative
    result, state = soft_label_nnpu(
        torch.logit(p),
        MIXED.double(),
        centre_prior,
        soft_prior,
        weight=WEIGHT,
        variant=variant,  # type: ignore[arg-type]
        gamma=0.5,
        centre_cost=3.0,
    )
    assert result.positive.item() == pytest.approx(positive)
    assert result.negative.item() == pytest.approx(negative)
    assert bool(result.clamped) == (negative < 0)
    assert result.loss.item() == pytest.approx(below_zero if negative < 0 else positive + negative)
    assert [s.item() for s in state] == pytest.approx([e_c0, e_s0, e_u0])


def test_nnpu_ascends_on_the_unlabelled_risk_alone_when_it_is_below_zero() -> None:
    logits = torch.tensor([2.0, 2.0, 0.0, 0.0, -3.0, -3.0, -3.0, -3.0], requires_grad=True)
    result, _ = soft_label_nnpu(logits, MIXED, 0.5, 0.3)
    assert result.clamped
    result.loss.backward()
    assert logits.grad is not None
    assert (logits.grad[4:] < 0).all()  # unlabelled voxels are let up
    assert (logits.grad[:4] > 0).all()  # what was subtracted too much comes down


def test_nnpu_decides_by_the_moving_averages() -> None:
    logits = torch.logit(random_p(8)).float()
    fresh, first = soft_label_nnpu(logits, MIXED, 1e-3, 1e-2)
    assert not fresh.clamped
    held, second = soft_label_nnpu(
        logits,
        MIXED,
        1e-3,
        1e-2,
        state=NegativeRisk(torch.tensor(100.0), torch.tensor(0.0), torch.tensor(0.0)),
        momentum=0.9,
    )
    assert held.clamped == (0.1 * first.unlabelled < 1e-3 * (90 + 0.1 * first.centre) + 1e-2 * 0.1 * first.soft)
    assert second.centre.item() == pytest.approx(90 + 0.1 * first.centre.item())
    assert second.unlabelled.item() == pytest.approx(0.1 * first.unlabelled.item())
    assert not any(s.requires_grad for s in second)


def test_nnpu_keeps_the_average_of_a_set_that_is_absent() -> None:
    state = NegativeRisk(torch.tensor(0.5), torch.tensor(0.25), torch.tensor(0.125))
    result, moved = soft_label_nnpu(torch.zeros(4), torch.zeros(4), 1e-3, 1e-2, state=state, momentum=0.5)
    assert result.positive.item() == 0
    assert (moved.centre.item(), moved.soft.item()) == (0.5, 0.25)
    assert moved.unlabelled.item() == pytest.approx((0.125 + LN2 / 4) / 2)


def test_nnpu_takes_the_unlabelled_risk_where_told() -> None:
    logits = torch.tensor([0.0, 5.0, 0.0])
    target = torch.tensor([1.0, 0.0, 0.0])
    result, _ = soft_label_nnpu(logits, target, 0.0, 0.0, unlabelled_weight=torch.tensor([1.0, 0.0, 1.0]))
    assert result.negative.item() == pytest.approx(LN2 / 4)


def test_nnpu_is_unbiased_for_the_full_label_risk() -> None:
    # 100 voxels of which all is known: 10 centres, 20 soft, 70 background. Half of the positives carry labels, scores
    # depend on the class alone, and U is the whole volume.
    score = {"c": 1.5, "s": 0.3, "b": -1.0}
    kinds = "c" * 10 + "s" * 20 + "b" * 70
    volume = torch.tensor([score[k] for k in kinds], dtype=torch.float64)
    labelled = torch.tensor([score["c"]] * 5 + [score["s"]] * 10, dtype=torch.float64)
    logits = torch.cat([labelled, volume])
    target = torch.cat([torch.full((5,), 1.0), torch.full((10,), 0.5), torch.zeros(100)]).double()
    result, _ = soft_label_nnpu(logits, target, 0.1, 0.2)

    def terms(x: float) -> tuple[float, float]:
        p = 1 / (1 + math.exp(-x))
        return (1 - p) ** 2 * -math.log(p), p**2 * -math.log(1 - p)

    full = 0.1 * terms(1.5)[0] + 0.2 * 0.5**4 * terms(0.3)[1] + 0.7 * terms(-1.0)[1]
    assert result.loss.item() == pytest.approx(full)


def test_nnpu_is_finite_for_extreme_logits() -> None:
    logits = torch.tensor([-200.0, 200.0, 200.0, -200.0, 200.0, -200.0, 0.0, 0.0], requires_grad=True)
    for alpha in (0.0, 2.0):
        result, _ = soft_label_nnpu(logits, MIXED, 1e-3, 1e-2, alpha=alpha)
        (gradient,) = torch.autograd.grad(result.loss, logits)
        assert result.loss.isfinite()
        assert gradient.isfinite().all()


# --- leave-out focal loss ------------------------------------------------------------------------------------------


def test_leave_out_loss_by_hand() -> None:
    # p = 1/2 everywhere; two centres, distance weights (1/2)^4 and (0.8)^4, four unlabelled voxels.
    loss = leave_out_focal_loss(torch.zeros(8), MIXED)
    assert loss.item() == pytest.approx(LN2 / 4 * (2 + 1 / 16 + 0.8**4 + 4) / 2)
    without_centres = leave_out_focal_loss(torch.zeros(4), torch.zeros(4))
    assert without_centres.item() == pytest.approx(LN2 / 4 * 4)


@pytest.mark.parametrize("left_out", [0, 1, 3, 4, 100])
def test_leave_out_drops_exactly_the_highest_unlabelled(left_out: int) -> None:
    logits = torch.tensor([9.0, 8.0, 7.0, 6.0, 0.5, -0.5, 1.5, 0.0], requires_grad=True)
    leave_out_focal_loss(logits, MIXED, left_out=left_out).backward()
    assert logits.grad is not None
    by_falling_score = logits.grad[[6, 4, 7, 5]]
    assert (by_falling_score[:left_out] == 0).all()
    assert (by_falling_score[left_out:] > 0).all()
    assert (logits.grad[:2] < 0).all()
    assert (logits.grad[2:4] > 0).all()


def test_leave_out_drops_exactly_k_among_ties() -> None:
    logits = torch.zeros(2, 1, 3, 4, 5, requires_grad=True)
    target = torch.zeros_like(logits)
    leave_out_focal_loss(logits, target, left_out=17).backward()
    assert logits.grad is not None
    assert int((logits.grad == 0).sum()) == 17


def test_leave_out_weight_masks_voxels_and_candidates() -> None:
    logits = torch.tensor([0.0, 5.0, 3.0, 0.0], requires_grad=True)
    target = torch.tensor([1.0, 0.0, 0.0, 0.0])
    weight = torch.tensor([1.0, 0.0, 1.0, 1.0])
    loss = leave_out_focal_loss(logits, target, weight, left_out=1)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad != 0).tolist() == [True, False, False, True]
    assert loss.item() == pytest.approx(2 * LN2 / 4)


def test_leave_out_is_finite_for_extreme_logits() -> None:
    logits = torch.tensor([-500.0, 500.0, 500.0, -500.0, 500.0, -500.0, 0.0, 0.0], requires_grad=True)
    loss = leave_out_focal_loss(logits, MIXED, left_out=1)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


# --- debiased contrastive losses -----------------------------------------------------------------------------------


def g(mean_rest: float, mean_positive: float, share: float, t: float) -> float:
    return max((mean_rest - share * mean_positive) / (1 - share), math.exp(-1 / t))


def slow_supervised(features: torch.Tensor, target: list[float], prior: float, t: float) -> float:
    vectors, labels = features.flatten(0, 1).tolist(), target * 2
    losses = []
    for i, (f, y) in enumerate(zip(vectors, labels, strict=True)):
        if y != 1:
            continue
        e = [math.exp(sum(a * b for a, b in zip(f, other, strict=True)) / t) for other in vectors]
        positives = [e[j] for j, label in enumerate(labels) if label == 1 and j != i]
        negatives = [e[j] for j, label in enumerate(labels) if label < 1]
        positive, negative = sum(positives) / len(positives), sum(negatives) / len(negatives)
        losses.append(-math.log(positive / (positive + g(negative, positive, prior, t))))
    return sum(losses) / len(losses)


def slow_unsupervised(
    features: torch.Tensor,
    target: list[float],
    p: torch.Tensor,
    prior: float,
    t: float,
    anchors: list[int] | None = None,
) -> tuple[float, int]:
    """The loss, and how many of the maxima were the floor."""
    vectors, n = features.flatten(0, 1).tolist(), len(target)
    if anchors is None:
        anchors = [k for k, y in enumerate(target * 2) if y == -1]
    losses, floors = [], 0
    for k in anchors:
        pair = k + n if k < n else k - n
        e = [math.exp(sum(a * b for a, b in zip(vectors[k], other, strict=True)) / t) for other in vectors]
        rest = [value for j, value in enumerate(e) if j not in (k, pair)]
        assert len(rest) == 2 * n - 2
        mean_rest = sum(rest) / len(rest)
        gs = [g(mean_rest, e[pair], share, t) for share in (prior, 1 - prior)]
        floors += gs.count(math.exp(-1 / t))
        particle, background = (-math.log(e[pair] / (e[pair] + x)) for x in gs)
        q = float(p.flatten()[k])
        losses.append(q * particle + (1 - q) * background)
    return sum(losses) / len(losses), floors


TARGET_10 = [1.0, 1.0, 0.5, 0.3, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0]


@pytest.mark.parametrize("prior", [0.01, 0.1, 0.6])
@pytest.mark.parametrize("t", [0.02, 0.07, 1.0])
def test_supervised_equals_brute_force_on_20_vectors(prior: float, t: float) -> None:
    features = unit_features(10)
    loss = supervised_debiased_contrastive(features, torch.tensor(TARGET_10), prior=prior, temperature=t)
    assert loss.item() == pytest.approx(slow_supervised(features, TARGET_10, prior, t), rel=1e-9)


def test_unsupervised_equals_brute_force_on_20_vectors() -> None:
    features, p = unit_features(10), random_p(20).view(2, 10)
    floors = 0
    for prior in (0.01, 0.1, 0.6):
        for t in (0.02, 0.07, 1.0):
            loss = unsupervised_debiased_contrastive(features, torch.tensor(TARGET_10), p, prior=prior, temperature=t)
            expected, at_floor = slow_unsupervised(features, TARGET_10, p, prior, t)
            assert loss.item() == pytest.approx(expected, rel=1e-9)
            floors += at_floor
    assert 0 < floors < 9 * 24  # both sides of the maximum are met


def test_supervised_by_hand() -> None:
    # One centre, whose other view is the same vector; one other voxel at a right angle: E = e, negatives 1.
    features = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]] * 2)
    loss = supervised_debiased_contrastive(features, torch.tensor([1.0, -1.0]), prior=0.1, temperature=1.0)
    assert loss.item() == pytest.approx(-math.log(math.e / (math.e + (1 - 0.1 * math.e) / 0.9)))


def test_the_floor_is_at_cosine_minus_one() -> None:
    # Negatives opposite to the centre: g would be negative, so it is e^(-1/t) whatever the shift.
    features = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]] * 2)
    for t in (0.07, 1.0):
        loss = supervised_debiased_contrastive(features, torch.tensor([1.0, -1.0]), prior=0.1, temperature=t)
        assert loss.item() == pytest.approx(math.log1p(math.exp(-2 / t)), rel=1e-5)


@pytest.mark.parametrize("chunk", [1, 3, 12])
def test_chunks_change_neither_loss_nor_gradient(chunk: int) -> None:
    target = torch.tensor(TARGET_10)

    def run(chunk: int) -> list[torch.Tensor]:
        features, p = unit_features(10).requires_grad_(), random_p(20).view(2, 10).requires_grad_()
        loss = unsupervised_debiased_contrastive(features, target, p, prior=0.1, temperature=0.5, chunk=chunk)
        return [loss.detach(), *torch.autograd.grad(loss, (features, p))]

    for chunked, whole in zip(run(chunk), run(1000), strict=True):
        torch.testing.assert_close(chunked, whole)
        assert whole.abs().sum() > 0


def test_contrastive_gradients_are_those_of_the_loss() -> None:
    target = torch.tensor(TARGET_10)
    features = unit_features(10, seed=3).requires_grad_()
    p = random_p(20).view(2, 10).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f: supervised_debiased_contrastive(f, target, prior=0.1, temperature=0.5), (features,)
    )
    assert torch.autograd.gradcheck(
        lambda f, q: unsupervised_debiased_contrastive(f, target, q, prior=0.1, temperature=0.5, chunk=7), (features, p)
    )


def test_a_sample_of_anchors_is_compared_with_all_voxels() -> None:
    features, p = unit_features(10), random_p(20).view(2, 10)
    anchors = [5, 9, 14]
    loss = unsupervised_debiased_contrastive(
        features, torch.tensor(TARGET_10), p, prior=0.1, temperature=0.07, anchors=torch.tensor(anchors)
    )
    expected, _ = slow_unsupervised(features, TARGET_10, p, 0.1, 0.07, anchors)
    assert loss.item() == pytest.approx(expected)


def test_contrastive_losses_without_labels_or_anchors_are_zero() -> None:
    features = unit_features(3)
    nothing, everything = torch.full((3,), -1.0), torch.ones(3)
    for target in (nothing, everything):
        assert supervised_debiased_contrastive(features, target, prior=0.1, temperature=0.07).item() == 0
    p = torch.full((2, 3), 0.5)
    assert unsupervised_debiased_contrastive(features, everything, p, prior=0.1, temperature=0.07).item() == 0


def test_consistency_is_the_mean_square() -> None:
    assert consistency_loss(torch.tensor([0.5, 1.0]), torch.tensor([0.5, 0.0])).item() == 0.5
