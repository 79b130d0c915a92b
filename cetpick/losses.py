"""Loss functions: pure functions of tensors, with the equation each of them is.

Equation numbers are those of Huang et al., "Accurate Detection of Proteins in Cryo-Electron Tomograms from Sparse
Labels", ECCV 2022. Where the printed formula, the released code and the theory disagree, the docstring says which one
is followed.

Heatmaps are ``(B, C, D, H, W)`` with axes batch, class, z, y, x, though every function but the contrastive ones takes
any shape. A target heatmap is 1 at a labelled centre, between 0 and 1 in the kernel around it (soft), and 0 or -1
where nothing is labelled.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


class PULoss(NamedTuple):
    """A positive-unlabeled risk and its parts; every field is a 0-dimensional tensor.

    Attributes:
        loss: what to differentiate.
        positive: risk of the labelled voxels as positives, weighted by the prior.
        negative: estimated risk of the negatives, before any clamp; negative when the model overfits or when the prior
            is too large.
        clamped: bool, whether the estimate counted as negative, so that the unlabelled voxels had no ordinary part.
    """

    loss: Tensor
    positive: Tensor
    negative: Tensor
    clamped: Tensor


class NegativeRisk(NamedTuple):
    """Moving averages of l0 = p^alpha (-log(1 - p)) over centres, soft voxels and unlabelled voxels; 0-dimensional."""

    centre: Tensor
    soft: Tensor
    unlabelled: Tensor


def pu_focal_loss_paper(p: Tensor, target: Tensor, prior: float, alpha: float = 2.0, beta: float = 4.0) -> PULoss:
    """Positive-unlabeled focal loss of the paper's code (Eq 7 with the terms of Eq 6).

    With tp: target = 1, sp: -1 < target < 1, u: target = -1, y the target and E the mean over a set::

        R+ = E_tp[(1-p)^alpha (-log p)] + E_sp[(1-y)^beta p^alpha (-log(1-p))]
        R- = E_tp[p^alpha (-log(1-p))] + E_sp[y^beta (1-p)^alpha (-log p)]
        Ru = E_u[p^alpha (-log(1-p))]
        loss = prior R+ + max(0, Ru - prior R-)

    The released code is followed: Eq 6 as printed lacks the minus signs; pi_tp and pi_sp of Eq 5 do not exist (both are
    1); below zero the negative part is clamped with zero gradient, without Kiryo's ascent. Soft voxels are pushed down
    by both R+ and -R-, so they act as near-negatives. `soft_label_nnpu` is the estimator as the theory has it.

    Args:
        p: probabilities, strictly between 0 and 1 (the code clamps them to [1e-4, 1 - 1e-4]).
        target: same shape; 1 centre, between soft, -1 unlabelled. An empty set counts as risk 0.
        prior: tau; acts as the weight of the labelled voxels rather than as a share of voxels.
        alpha: focusing exponent.
        beta: exponent of the distance weight of soft voxels.

    Returns:
        The loss with ``positive`` = prior R+ and ``negative`` = Ru - prior R-.
    """
    as_positive = (1 - p) ** alpha * -torch.log(p)
    as_negative = p**alpha * -torch.log1p(-p)
    centre, unlabelled = target == 1, target == -1
    soft = ~(centre | unlabelled)
    positive = _mean(as_positive, centre) + _mean((1 - target) ** beta * as_negative, soft)
    subtracted = _mean(as_negative, centre) + _mean(target**beta * as_positive, soft)
    negative = _mean(as_negative, unlabelled) - prior * subtracted
    return PULoss(prior * positive + negative.clamp(min=0), prior * positive, negative, negative < 0)


def soft_label_nnpu(
    logits: Tensor,
    target: Tensor,
    centre_prior: float,
    soft_prior: float,
    state: NegativeRisk | None = None,
    *,
    weight: Tensor | None = None,
    unlabelled_weight: Tensor | None = None,
    variant: Literal["ascent", "absolute"] = "ascent",
    alpha: float = 2.0,
    beta: float = 4.0,
    gamma: float = 1.0,
    centre_cost: float = 1.0,
    momentum: float = 0.9,
) -> tuple[PULoss, NegativeRisk]:
    """Non-negative PU risk for centres, soft voxels around them, and background (Kiryo et al. 2017, not Eq 5-7).

    With l1 = (1-p)^alpha (-log p), l0 = p^alpha (-log(1-p)), priors pi_c and pi_s, E a weighted mean::

        positive = centre_cost pi_c E_c[l1] + pi_s E_s[(1-y)^beta l0]
        negative = E_u[l0] - pi_c E_c[l0] - pi_s E_s[l0]

    The subtracted terms use the l0 with which the zone of an unlabelled particle is charged, unlike Eq 6 and the
    released code, whose y^beta (1-p)^alpha (-log p) does not estimate a negative risk. A training crop has few centres,
    so moving averages of the three E[l0] decide whether the negative risk is below zero. If not, the loss is
    positive + negative. If so, it is -gamma negative alone (`ascent`, Kiryo's algorithm 1), or positive - negative
    (`absolute`). The focal weight (alpha > 0) makes p no posterior: calibrate the scores, or use alpha = 0.

    Args:
        logits: any shape.
        target: same shape; 1 centre, between 0 and 1 soft, 0 or below unlabelled.
        centre_prior: pi_c, the share of voxels of the volume that are a particle's centre.
        soft_prior: pi_s, the share that lies in a particle's kernel without being its centre.
        state: moving averages from the step before; None on the first.
        weight: same shape, how much a voxel counts, 0 for invalid ones; None is 1 everywhere.
        unlabelled_weight: as `weight`, for the unlabelled voxels alone, whose mean stands for the whole volume: give
            label-centred crops 0 there. None is `weight`.
        variant: what is done when the negative risk is below zero.
        alpha: focusing exponent.
        beta: exponent of the distance weight of soft voxels.
        gamma: step size of the ascent.
        centre_cost: cost of a missed centre relative to that of a false one.
        momentum: of the moving averages.

    Returns:
        The loss, and the moving averages for the next step (detached). A set absent from the batch has risk 0 and
        leaves its average as it was.
    """
    if weight is None:
        weight = torch.ones_like(logits)
    if unlabelled_weight is None:
        unlabelled_weight = weight
    as_positive, as_negative = _focal_terms(logits, alpha)
    centre_weight = weight * (target == 1)
    soft_weight = weight * ((target > 0) & (target < 1))
    unlabelled_weight = unlabelled_weight * (target <= 0)

    positive = centre_cost * centre_prior * _mean(as_positive, centre_weight)
    positive = positive + soft_prior * _mean((1 - target) ** beta * as_negative, soft_weight)
    weights = (centre_weight, soft_weight, unlabelled_weight)
    risk = NegativeRisk(*(_mean(as_negative, w) for w in weights))
    negative = _negative_part(risk, centre_prior, soft_prior)

    if state is None:
        state = NegativeRisk(*(r.detach() for r in risk))
    else:
        moved = (old + (1 - momentum) * (r.detach() - old) for old, r in zip(state, risk, strict=True))
        state = NegativeRisk(
            *(torch.where(w.any(), new, old) for w, new, old in zip(weights, moved, state, strict=True))
        )
    clamped = _negative_part(state, centre_prior, soft_prior) < 0
    below_zero = -gamma * negative if variant == "ascent" else positive - negative
    return PULoss(torch.where(clamped, below_zero, positive + negative), positive, negative, clamped), state


def leave_out_focal_loss(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    left_out: int = 0,
    *,
    alpha: float = 2.0,
    beta: float = 4.0,
) -> Tensor:
    """Focal loss on soft labels (CornerNet, Law & Deng 2018, Eq 1) without the likeliest hidden particles.

    ``1/n [ sum_centres (1-p)^alpha (-log p) + sum_others (1-y)^beta p^alpha (-log(1-p)) ]`` over n centres (at least
    1), y = 0 where unlabelled. The `left_out` unlabelled voxels of the batch with the highest scores are dropped: the
    expected number of voxels of hidden particles (CVIR of Garg et al. 2021, arXiv 2111.00980, by score). The choice
    carries no gradient.

    Args:
        logits: any shape.
        target: same shape; 1 centre, between 0 and 1 soft, 0 or below unlabelled.
        weight: same shape, how much a voxel counts; a voxel of weight 0 (invalid, rim of a crop) does not enter, nor is
            it left out in the place of another. None is 1 everywhere.
        left_out: number of voxels to drop; all unlabelled ones when there are fewer.
        alpha: focusing exponent.
        beta: exponent of the distance weight of soft voxels.

    Returns:
        0-dimensional loss.
    """
    if weight is None:
        weight = torch.ones_like(logits)
    centre = target == 1
    if left_out:
        candidates = (target <= 0) & (weight > 0)
        scores = logits.detach().masked_fill(~candidates, -math.inf).flatten()
        top = scores.topk(min(left_out, scores.numel())).indices
        dropped = torch.zeros_like(scores, dtype=torch.bool).scatter(0, top, True).view_as(logits) & candidates
        weight = weight * ~dropped

    as_positive, as_negative = _focal_terms(logits, alpha)
    distance_weight = (1 - target.clamp(min=0)) ** beta
    risk = torch.where(centre, as_positive, distance_weight * as_negative)
    return (risk * weight).sum() / (weight * centre).sum().clamp(min=1)


def supervised_debiased_contrastive(features: Tensor, target: Tensor, *, prior: float, temperature: float) -> Tensor:
    """Supervised debiased contrastive loss between labelled centres of two views (Eq 8 and 9).

    For a centre i, with s its cosines over the temperature t, P the other centres in both views (i in the other view
    among them), U all voxels that are no labelled centre, soft ones included, in both views::

        g = max{ (mean_U e^s - prior mean_P e^s) / (1 - prior), e^(-1/t) }
        loss = mean_i -log( mean_P e^s / (mean_P e^s + g) )

    The paper's formula is followed, with the temperature that it omits in the exponents. The released code differs: it
    counts i as its own positive with the largest possible similarity, and applies the floor after a shift by 1/t, which
    puts it at cosine 0 where the formula has -1. Here all is computed with logarithms, so no shift is needed.

    Args:
        features: (2, N, F), the same N voxels in two views, vectors of length 1.
        target: (N,), 1 at a labelled centre, below elsewhere.
        prior: pi_p, the share of particles among U.
        temperature: t.

    Returns:
        0-dimensional loss; 0 when nothing is labelled or all is. Memory: (number of centres) x 4 N.
    """
    centre = (target == 1).repeat(2)
    if not centre.any() or centre.all():
        return features.new_zeros(())
    own = centre.nonzero()
    flat = features.flatten(0, 1)
    similarity = flat[centre] @ flat.T / temperature
    log_positive = _log_mean_exp(similarity, centre.expand_as(similarity).scatter(1, own, False))
    log_negative = _log_mean_exp(similarity, ~centre.expand_as(similarity))
    return _debiased_nce(log_positive, log_negative, prior, temperature).mean()


def unsupervised_debiased_contrastive(
    features: Tensor,
    target: Tensor,
    p: Tensor,
    *,
    prior: float,
    temperature: float,
    anchors: Tensor | None = None,
    chunk: int = 256,
) -> Tensor:
    """Self-supervised debiased contrastive loss of unlabelled voxels (Eq 10 to 13).

    For an unlabelled voxel k, with s its cosines over the temperature t, s' the one to itself in the other view, R the
    2N - 2 voxels of both views besides these two, labelled ones included::

        g(q) = max{ (mean_R e^s - q e^s') / (1 - q), e^(-1/t) }
        l(q) = -log( e^s' / (e^s' + g(q)) )
        loss = mean_k p_k l(prior) + (1 - p_k) l(1 - prior)

    Followed: the code in that Eq 12 subtracts pi_p and Eq 13 pi_n (printed the other way round), in that the anchors
    are the voxels with target -1 (the paper's F^u has the soft ones too), and in that p carries a gradient, so that
    this loss moves the heatmap as well (pass ``p.detach()`` to stop that); the paper in that R leaves out the voxel
    itself and in the place of the floor (see `supervised_debiased_contrastive`), and for the mean over 2N - 2.

    Args:
        features: (2, N, F), the same N voxels in two views, vectors of length 1.
        target: (N,), -1 where unlabelled.
        p: (2, N), probability that a voxel is a particle, in each view.
        prior: pi_p.
        temperature: t.
        anchors: (K,) indices into the flattened (2, N) of the voxels to average over; None is every unlabelled one. A
            random sample gives an unbiased estimate of the loss and of its gradient; R is always complete.
        chunk: anchors compared at a time, and again in the backward pass, so that memory stays at a few times
            chunk x 2N numbers; the result does not depend on it.

    Returns:
        0-dimensional loss; 0 without anchors.
    """
    if anchors is None:
        anchors = (target == -1).repeat(2).nonzero().squeeze(1)
    if not len(anchors):
        return features.new_zeros(())
    flat, flat_p = features.flatten(0, 1), p.flatten()

    def chunk_sum(rows: Tensor) -> Tensor:
        pair = (rows + len(flat) // 2) % len(flat)
        scaled = flat[rows] / temperature
        log_pair = (scaled * flat[pair]).sum(1)
        both = torch.stack((rows, pair), dim=1)
        others = (scaled @ flat.T).scatter(1, both, -math.inf)
        log_rest = others.logsumexp(1) - math.log(len(flat) - 2)
        as_particle = _debiased_nce(log_pair, log_rest, prior, temperature)
        as_background = _debiased_nce(log_pair, log_rest, 1 - prior, temperature)
        return torch.lerp(as_background, as_particle, flat_p[rows]).sum()

    sums = [
        checkpoint(chunk_sum, rows, use_reentrant=False, preserve_rng_state=False)
        for rows in torch.split(anchors, chunk)
    ]
    return torch.stack(sums).sum() / len(anchors)


def consistency_loss(p: Tensor, p_flipped_back: Tensor) -> Tensor:
    """Mean squared difference between the heatmaps of two views of the same voxels (Eq 14); gradient through both."""
    return functional.mse_loss(p, p_flipped_back)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of `values`; 0 where all weights are 0."""
    total = weight.sum()
    return (values * weight).sum() / torch.where(total == 0, 1, total)


def _focal_terms(logits: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """(1-p)^alpha (-log p) and p^alpha (-log(1-p)), without overflow for any logit."""
    log_p, log_q = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    return -torch.exp(alpha * log_q) * log_p, -torch.exp(alpha * log_p) * log_q


def _negative_part(risk: NegativeRisk, centre_prior: float, soft_prior: float) -> Tensor:
    return risk.unlabelled - centre_prior * risk.centre - soft_prior * risk.soft


def _log_mean_exp(values: Tensor, mask: Tensor) -> Tensor:
    """Logarithm of the mean of e^values over the masked entries of each row."""
    return values.masked_fill(~mask, -math.inf).logsumexp(1) - mask.sum(1, dtype=values.dtype).log()


def _debiased_nce(log_positive: Tensor, log_rest: Tensor, share: float, temperature: float) -> Tensor:
    """-log(e^positive / (e^positive + g)) with g = max{(e^rest - share e^positive) / (1 - share), e^(-1/temperature)}.

    The debiased estimator of Chuang et al. 2020 (arXiv 2007.00224) with one negative. Computed from the logarithms of
    the two means, elementwise, so that no temperature underflows.
    """
    top = torch.maximum(log_positive, log_rest).detach()
    difference = (log_rest - top).exp() - share * (log_positive - top).exp()
    above = difference > 0
    log_g = difference.where(above, 1).log() + top - math.log1p(-share)
    log_g = log_g.where(above, -math.inf).clamp(min=-1 / temperature)
    return functional.softplus(log_g - log_positive)
