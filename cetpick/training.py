"""From labelled tomograms to a trained model: working grid, scouts, final training, threshold."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit

from cetpick.calibration import Count, choose_threshold, hinted, within
from cetpick.config import ModelSettings, ParticleClass, TrainSettings
from cetpick.contamination import darkness, least_of_carbon, least_of_gold, smoothed, strength
from cetpick.dataset import Example
from cetpick.devices import warming_up
from cetpick.diagnosis import Outcome, require_learned, warn_of_stray, warn_of_unlike
from cetpick.errors import CetpickWarning, InputError
from cetpick.geometry import Points
from cetpick.likeness import likeness, pretrained_features
from cetpick.mixture import Mixture, agreed, calibrate, fit, picks_if
from cetpick.modes.default import DefaultRecipe
from cetpick.modes.paper import PaperRecipe, PaperSettings
from cetpick.networks.default import DefaultNetwork
from cetpick.networks.paper import PaperNetwork
from cetpick.optimisation import Progress, Review, optimise
from cetpick.preprocess import PRONOUNCED_SKEWNESS, prepare, require_fitting, without_contamination
from cetpick.records import Coordinates, Tomogram, TomogramInfo
from cetpick.resume import Checkpoint
from cetpick.scouting import Scout, best_ranked, candidates, scout

FEWEST_LABELS = 3
"""Fewer labels than this are an error."""
FEW_LABELS = 10
"""Fewer labels than this are worth a warning."""
Z_VOXEL = 2.0
"""Working voxels are this much longer along z, where the missing wedge has taken the resolution."""
BACKGROUND = 3.0
"""Diameters of the Gaussian; grey values that vary over more than that tell nothing of particles."""
FEWEST_STEPS = 30
"""Fewer training steps are a trial of the machinery, whose outcome is not judged."""
SPARED = 1.5
"""Doubtful places and labels together, in units of the upper limit of the number of particles.

Rather too many than too few: a particle learned as background costs more than a spared look-alike
(docs/experiments.md).
"""
DOUBTFUL, HEAVIEST = 0.1, 0.1
"""What hidden particles together weigh as background in the first round, in units of the labels; and each, at most.

Enough for look-alikes, which differ from the labels in some way that all of them teach, and little for hidden
particles, which would have to be learned by heart one by one, against what the labels teach.
"""
LOOK, APART = 0.3, 0.5
"""After this part of the steps of the first round it is cut short, if scores of particles are so far from the rest."""
SECOND = 0.3
"""Steps of the second round, in units of those that the first is planned to have."""
SECOND_RATE = 0.5
"""Its learning rate, likewise."""
SURE = 1.2
"""Candidates that weigh nothing as background in the second round, in units of the hidden particles expected."""
MOSTLY, ENOUGH = 2.0, 20
"""Labels are candidates like others where there are so many times as many as hidden ones, and so many at all."""
PAPER_THRESHOLD = 0.25
"""The cut of the paper (section 4.1)."""


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """What training leaves.

    Attributes:
        network: in eval mode, on the training device.
        settings: of the model file, with threshold and count.
        log: one dictionary a step.
        recipe: settings of the final training beyond those given, for the record.
        examples: the tomograms, with labels and places as the final training had them.
        given: labels of each as they were given, (n, 3), voxels; without those that nothing is learned from.
        scouts: how they fared; none in `paper` mode, or where the number of particles is given.
    """

    network: DefaultNetwork | PaperNetwork
    settings: ModelSettings
    log: list[dict[str, float]]
    recipe: dict[str, Any]
    examples: Sequence[Example]
    given: Sequence[Points]
    scouts: Sequence[Scout] = ()


def model_settings(settings: TrainSettings, tomograms: Sequence[Tomogram]) -> ModelSettings:
    """Choose the working grid from the diameter (`default`) or from the first tomogram (`paper`)."""
    sizes = [tomogram.info.grid.voxel_size for tomogram in tomograms]
    stored = sizes[0]
    if settings.mode == "paper":
        voxel_size = (2 * stored, stored, stored)
    else:
        plane = settings.diameter / settings.voxels_per_diameter
        voxel_size = (Z_VOXEL * plane, plane, plane)
    return ModelSettings(
        mode=settings.mode,
        classes=(ParticleClass(diameter=settings.diameter),),
        voxel_size=voxel_size,
        background=None if settings.mode == "paper" else BACKGROUND,
        stored_voxel_size=math.sqrt(min(sizes) * max(sizes)),
    )


def check_labels(labels: Sequence[tuple[TomogramInfo, Coordinates]], diameter: float) -> None:
    """Say before training what is wrong with the labels.

    Raises:
        InputError: too few in all, or the particle does not fit into a tomogram.

    Warns:
        CetpickWarning: few labels.
    """
    total = sum(len(c) for _, c in labels)
    _require_enough(total, labels[0][1].source if labels else None)
    if total < FEW_LABELS:
        warnings.warn(f"only {total} labels; 20 to 50 pick more reliably", CetpickWarning, stacklevel=2)
    for info, coordinates in labels:
        require_fitting(info, diameter)
        warn_of_kinds(coordinates)


def _require_enough(labels: int, file: Path | None) -> None:
    if labels < FEWEST_LABELS:
        raise InputError(
            "too few labels",
            file=file,
            expected=f"at least {FEWEST_LABELS}, better 20 to 50",
            found=labels,
            cure="label more particles of the same kind; those that were left out do not count",
        )


def warn_of_kinds(labels: Coordinates) -> None:
    """Warn when labels are of several classes or IMOD objects: all of them are trained on as one kind.

    Warns:
        CetpickWarning: with the number of each.
    """
    for column in ("class", "object"):
        if column not in labels.table:
            continue
        kinds = labels.table[column].value_counts()
        if len(kinds) > 1:
            told = ", ".join(f"{name}: {count}" for name, count in kinds.items())
            warnings.warn(
                f"{labels.source}: labels of several kinds ({column} {told}) are all learned as one particle; "
                "give a file with the particle alone if they are not",
                CetpickWarning,
                stacklevel=3,
            )


def train(
    labelled: Sequence[tuple[Tomogram, Coordinates]],
    settings: TrainSettings,
    *,
    rejected: Sequence[Points] = (),
    chosen: Sequence[NDArray[np.bool_]] = (),
    device: torch.device,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> TrainedModel:
    """Train a network on tomograms with a few labels each.

    Args:
        labelled: tomograms and the labels in them (voxels as stored).
        settings: how.
        rejected: for each tomogram places (n, 3) that are background for certain, half a diameter or more from every
            label; not used in `paper` mode.
        chosen: for each tomogram which labels (n,) were found by looking at picks; see Example.
        device: where.
        progress: told of every step.
        checkpoint: where to go on from and to save the state.

    Returns:
        The averaged network, its settings with the threshold chosen on the training tomograms, and the log.

    Raises:
        InputError: unusable labels or tomogram.
        TrainingError: the loss became NaN, or nothing was learned (diagnosis.py).
    """
    check_labels([(tomogram.info, labels) for tomogram, labels in labelled], settings.diameter)
    model = model_settings(settings, [tomogram for tomogram, _ in labelled])
    with warming_up(device):
        examples = [Example(tomogram=t, labels=c.xyz, prepared=prepare(t, model)) for t, c in labelled]
    if chosen:
        examples = [replace(e, chosen=of) for e, of in zip(examples, chosen, strict=True)]
    if rejected:
        examples = [replace(e, rejected=places) for e, places in zip(examples, rejected, strict=True)]
    model = _told_contamination(model, examples)
    examples = [replace(e, prepared=without_contamination(e.prepared, model, e.tomogram.info.region)) for e in examples]
    examples = [_labels_with_data(example) for example in examples]
    _require_enough(sum(len(e.labels) for e in examples), labelled[0][1].source)
    if sum(e.fair.sum() for e in examples) < FEWEST_LABELS:  # too few to tell by
        examples = [replace(e, chosen=None) for e in examples]
    given = [example.labels for example in examples]
    skewness = [e.prepared.skewness for e in examples]
    _warn_of_opposites([e.tomogram.info for e in examples], skewness)
    model = replace(model, skewness=float(np.mean(skewness)))
    if settings.mode == "paper":
        _warn_of_whole([e.tomogram.info for e in examples], settings)
        paper = PaperSettings() if settings.steps is None else PaperSettings(steps=settings.steps)
        recipe = PaperRecipe(
            [e.prepared.volume for e in examples],
            [e.on_working_grid(e.labels) for e in examples],
            diameter=model.diameter / model.voxel_size[2],
            settings=paper,
            generator=torch.Generator().manual_seed(settings.seed),
            device=device,
        )
        network, log = optimise(recipe, progress, checkpoint=checkpoint)
        model = replace(model, threshold=PAPER_THRESHOLD)
        return TrainedModel(
            network=network, settings=model, log=log, recipe=asdict(paper), examples=examples, given=given
        )

    labels = sum(len(e.labels) for e in examples)
    hint = settings.count_hint
    if hint is not None:
        _refuse_crowd(hint, [e.tomogram.info for e in examples], settings.diameter)
    if hint is not None and hint * len(examples) < labels:
        warnings.warn(
            f"--count-hint {hint:g} is below the number of labels, {labels} in {len(examples)} tomograms",
            CetpickWarning,
            stacklevel=2,
        )
    scatter, weight = 0.0, 1.0
    scouts: Sequence[Scout] = ()
    if settings.hidden == "peaks" or hint is None:
        scouting = scout(settings, model, examples, device, progress, checkpoint)
        count, scatter, scouts = scouting.count, scouting.scatter, scouting.scouts
        strays = [labels[of] for labels, of in zip(given, scouting.stray, strict=True)]
        warn_of_stray([e.tomogram.info.name for e in examples], strays, labels)
        examples = [
            replace(_with_labels(replace(e, labels=moved), ~of), stray=places)
            for e, moved, of, places in zip(examples, scouting.labels, scouting.stray, strays, strict=True)
        ]
        given = [labels[~of] for labels, of in zip(given, scouting.stray, strict=True)]
        labels = sum(map(len, given))
        if settings.hidden == "peaks":
            places = scouting.doubtful(SPARED * count.high - labels)
            weight = doubt(labels, count.expected - labels)
            examples = [
                replace(e, doubtful=d, weights=np.full(len(d), weight)) for e, d in zip(examples, places, strict=True)
            ]
    else:
        count = Count(*(max(float(labels), number) for number in hinted(Count(0, 0, 0), hint * len(examples))))
    telling = Telling.of(count, labels)
    first = DefaultRecipe(examples, settings=settings, model=model, count=count.expected, device=device)
    planned, free = first.steps, settings.steps is None and settings.hidden == "peaks"
    review = _cutting_short(first, examples, model, telling) if free else None
    network, log = optimise(first, progress, checkpoint=checkpoint, review=review)
    outcomes = [_outcome(e, model.diameter, *candidates(network, model, e)) for e in examples]
    told = {"count": count._asdict(), "doubtful_places": sum(len(e.doubtful) for e in examples)}
    told |= {"doubtful_weight": round(weight, 4), "label_scatter": round(scatter, 4), "cut_short": len(log) < planned}
    judged = first.steps >= FEWEST_STEPS
    del first, review  # it holds the tomograms on the device
    if settings.hidden == "peaks" and (seen := telling.fit(outcomes)) is not None:
        hidden = Count(*(max(0.0, number + telling.besides - labels) for number in seen.count))
        second = DefaultRecipe(
            _doubt_anew(examples, outcomes, hidden),
            settings=replace(
                settings.of_part(1),
                steps=max(1, round(SECOND * planned)),
                learning_rate=SECOND_RATE * settings.learning_rate,
            ),
            model=model,
            count=count.expected,
            device=device,
            network=network,
        )
        network, more = optimise(second, progress, what="refinement", checkpoint=checkpoint)
        log += [entry | {"step": entry["step"] + len(log)} for entry in more]
        outcomes = [_outcome(e, model.diameter, *candidates(network, model, e)) for e in examples]
    if judged:
        require_learned(outcomes)
    sensitivity: tuple[tuple[float, float], ...] = ()
    if (mixture := _told(telling, outcomes, examples, model, settings, device)) is not None:
        besides = telling.besides
        count = Count(*(max(float(labels), number + besides) for number in mixture.count))
        model = replace(model, calibration=mixture.knots)
        outcomes = [replace(o, scores=expit(calibrate(logit(o.scores), mixture.knots))) for o in outcomes]
        picked = [picks_if(number - besides, telling.scores(outcomes)) + besides for number in count]
        sensitivity = tuple((n / len(examples), of / len(examples)) for n, of in zip(count, picked, strict=True))
        _warn_of_hint(hint, Count(*(number / len(examples) for number in count)))
    elif judged:
        warnings.warn(
            "too few candidates in the training tomograms to calibrate scores on: these are the network's own, no "
            "probabilities. Look at the picks and set --threshold by eye, or train on a larger part of a tomogram",
            CetpickWarning,
            stacklevel=2,
        )
    threshold = choose_threshold(telling.scores(outcomes))
    low, expected, high = (number / len(examples) for number in count)
    model = replace(model, count=expected, count_limits=(low, high), sensitivity=sensitivity, threshold=threshold)
    if judged:
        warn_of_unlike(outcomes, threshold)
    return TrainedModel(
        network=network, settings=model, log=log, recipe=told, examples=examples, given=given, scouts=scouts
    )


def _warn_of_whole(infos: Sequence[TomogramInfo], settings: TrainSettings) -> None:
    """Warn of what the published method has no place for."""
    regions = [info.region for info in infos]
    if any(region.mask is not None or region.slab is not None for region in regions):
        warnings.warn(
            "`paper` mode learns from the whole tomogram: --mask and --slab limit its labels and its picks only",
            CetpickWarning,
            stacklevel=3,
        )
    if settings.count_hint is not None:
        warnings.warn(
            "`paper` mode estimates no number of particles: --count-hint changes nothing", CetpickWarning, stacklevel=3
        )


def _warn_of_hint(hint: float | None, count: Count) -> None:
    """Warn when a hint is not among the numbers of particles in a tomogram that all evidence, it included, allows."""
    if hint is not None and not count.low <= hint <= count.high:
        warnings.warn(
            f"--count-hint {hint:g}, but {count.expected:.0f} ({count.low:.0f} to {count.high:.0f}) particles in a "
            "tomogram by all that is known: was the training too short, or are look-alikes among them?",
            CetpickWarning,
            stacklevel=3,
        )


def _warn_of_opposites(infos: Sequence[TomogramInfo], skewness: Sequence[float]) -> None:
    """Warn when protein seems dark in one training tomogram and bright in another, by the sign of the skewness."""
    dark, bright = int(np.argmin(skewness)), int(np.argmax(skewness))
    if skewness[dark] < -PRONOUNCED_SKEWNESS and skewness[bright] > PRONOUNCED_SKEWNESS:
        warnings.warn(
            f"protein seems dark in {infos[dark].path} and bright in {infos[bright].path} (skewness "
            f"{skewness[dark]:+.2f} and {skewness[bright]:+.2f}); one network cannot learn both: invert the contrast "
            "of one, or train on one of them",
            CetpickWarning,
            stacklevel=3,
        )


def doubt(labels: int, hidden: float) -> float:
    """What each doubtful place weighs as background in the first round, in units of places that are background.

    Args:
        labels: how many there are.
        hidden: particles expected besides.
    """
    return min(HEAVIEST, DOUBTFUL * labels / max(1.0, hidden))


NEXT_TO_NONE = 0.5
"""Hidden particles where none are expected: 0 means that nothing is known."""


@dataclass(frozen=True)
class Telling:
    """Which candidates of the training tomograms tell how many particles these hold, and how high they score.

    Unlabelled ones, as a network knows its few labels by heart, and these score high whatever the others do. But where
    nearly all particles are labels, as when every pick was looked at, what is left to tell by are look-alikes alone;
    and so many labels no network knows by heart. Then all do.

    Attributes:
        count: particles expected among these candidates; all 0 when nothing is known.
        besides: labels that are none of these candidates.
    """

    count: Count
    besides: int

    @classmethod
    def of(cls, count: Count, labels: int) -> Telling:
        """With so many labels among the particles that are expected, all 0 when nothing is known."""
        hidden = Count(*(max(NEXT_TO_NONE, number - labels) if number else 0.0 for number in count))
        everything = count.expected > 0 and labels >= max(ENOUGH, MOSTLY * hidden.expected)
        return cls(count, 0) if everything else cls(hidden, labels)

    def scores(self, outcomes: Sequence[Outcome]) -> NDArray[np.float64]:
        """Of these candidates, (n,)."""
        if not self.besides:
            return np.concatenate([o.scores for o in outcomes])
        return np.concatenate([o.scores[~within(o.candidates, o.labels, o.radius)] for o in outcomes])

    def fit(self, outcomes: Sequence[Outcome]) -> Mixture | None:
        """The populations of the network's own scores."""
        return fit(logit(self.scores(outcomes)), self.count)


def _told(
    telling: Telling,
    outcomes: Sequence[Outcome],
    examples: Sequence[Example],
    model: ModelSettings,
    settings: TrainSettings,
    device: torch.device,
) -> Mixture | None:
    """What the network's own scores tell, and how like the labels candidates are by features that never saw them.

    Args:
        telling: which candidates tell.
        outcomes: of the network in the training tomograms.
        examples: these.
        model: working grid and network.
        settings: of the training.
        device: where.
    """
    mixture = telling.fit(outcomes)
    if mixture is None or not telling.besides or settings.start != "pretrained":
        return mixture
    labelled = [within(o.candidates, o.labels, o.radius) for o in outcomes]
    found = likeness(
        [pretrained_features(e, o.candidates, model, device=device) for e, o in zip(examples, outcomes, strict=True)],
        labelled,
        [o.scores for o in outcomes],
        particles=mixture.count.expected,
        seed=settings.seed,
    )
    if found is None:
        return mixture
    alike = found[~np.concatenate(labelled)]
    other = fit(alike, telling.count)
    return mixture if other is None else agreed(logit(telling.scores(outcomes)), mixture, alike, other)


def _cutting_short(
    recipe: DefaultRecipe, examples: Sequence[Example], model: ModelSettings, telling: Telling
) -> Review:
    """What ends a training soon if its network tells particles clearly from all else.

    Args:
        recipe: of the training.
        examples: training tomograms.
        model: working grid and network.
        telling: which candidates tell.
    """
    look = round(LOOK * recipe.steps)

    def review(step: int, averaged: Callable[[], Any]) -> None:
        if step == look and telling.count.expected > 0:  # else scouts told nothing
            network = averaged()
            outcomes = [_outcome(e, model.diameter, *candidates(network, model, e)) for e in examples]
            seen = telling.fit(outcomes)
            if seen is not None and seen.apart >= APART:
                recipe.cut_short(step)

    return review


def _doubt_anew(examples: Sequence[Example], outcomes: Sequence[Outcome], hidden: Count) -> list[Example]:
    """The examples with other doubtful places: the best unlabelled candidates of the network that they trained.

    It ranks particles far better than the scouts did, and most look-alikes have sunk. So what it ranks high weighs
    nothing as background, and what it ranks low all.

    Args:
        examples: training tomograms.
        outcomes: of the network in them.
        hidden: particles expected among the unlabelled candidates.
    """
    unlabelled = [~within(o.candidates, o.labels, o.radius) for o in outcomes]
    sure, most = SURE * hidden.expected, SPARED * hidden.high
    ranked = best_ranked(
        [o.candidates[u] for o, u in zip(outcomes, unlabelled, strict=True)],
        [-o.scores[u] for o, u in zip(outcomes, unlabelled, strict=True)],
        most,
    )
    return [
        replace(e, doubtful=points, weights=np.clip((place - sure) / max(most - sure, 1.0), 0, 1))
        for e, (points, place) in zip(examples, ranked, strict=True)
    ]


def _refuse_crowd(hint: float, infos: Sequence[TomogramInfo], diameter: float) -> None:
    """Refuse a count of particles that no tomogram has room for.

    Raises:
        InputError: spheres of the diameter, as close as they can be, would be fewer.
    """
    rooms = [np.prod(info.grid.shape) * info.grid.voxel_size**3 / (diameter**3 / np.sqrt(2)) for info in infos]
    if hint > max(rooms):
        raise InputError(
            "more particles expected than have room",
            expected=f"--count-hint of at most {max(rooms):.0f}, as many spheres as fill a tomogram",
            found=f"{hint:g}",
            cure="give the number of particles in one tomogram, or leave --count-hint out",
        )


def _told_contamination(model: ModelSettings, examples: Sequence[Example]) -> ModelSettings:
    """The settings with what the examples' labels tell of gold and carbon, None if these are not to be looked for."""
    gold, carbon = [], []
    for of in examples:
        volume, keep = of.prepared.coarse, of.tomogram.info.region.keep
        if volume is not None and "gold" not in keep:
            gold.append(darkness(volume, of.labels, of.voxel_size))
        if volume is not None and "carbon" not in keep:
            carbon.append(strength(smoothed(volume), of.labels, of.voxel_size))
    return replace(
        model, gold=least_of_gold(gold) if gold else None, carbon=least_of_carbon(carbon) if carbon else None
    )


def _labels_with_data(example: Example) -> Example:
    """Without labels where the tomogram has no data, or outside of the region to be learned from.

    Raises:
        InputError: all are there.

    Warns:
        CetpickWarning: some are.
    """
    valid = example.prepared.valid
    if valid is None:
        return example
    last = np.array(valid.shape) - 1
    cells = np.clip(np.rint(example.on_working_grid(example.labels)[:, ::-1]).astype(int), 0, last)
    kept = valid[tuple(cells.T)]
    outside = int((~kept).sum())
    info = example.tomogram.info
    if outside == len(cells) > 0:
        raise InputError(
            f"no label of tomogram {info.name} lies where there are data to learn from",
            file=info.path,
            found=f"{outside} labels in padding, gold or carbon, or outside of the mask or slab",
            cure="check --mask and --slab, and the labels with `cetpick check`; --keep gold does not look for gold",
        )
    if outside:
        warnings.warn(
            f"{info.path}: {outside} of {len(cells)} labels lie in padding, gold or carbon, or outside of the mask or "
            "slab; nothing is learned from them",
            CetpickWarning,
            stacklevel=3,
        )
    return _with_labels(example, kept)


def _with_labels(example: Example, kept: NDArray[np.bool_]) -> Example:
    """With these of its labels (n,) alone."""
    chosen = None if example.chosen is None else example.chosen[kept]
    return replace(example, labels=example.labels[kept], chosen=chosen)


def _outcome(example: Example, diameter: float, xyz: Points, scores: NDArray[np.float64]) -> Outcome:
    info = example.tomogram.info
    radius = diameter / 2 / info.grid.voxel_size
    # as labels score high whatever the others do, rejected places score low
    unknown = ~within(xyz, example.rejected, radius)
    return Outcome(
        name=info.name,
        labels=example.labels,
        candidates=xyz[unknown],
        scores=scores[unknown],
        volume=float(np.prod(info.grid.shape)),
        radius=radius,
    )
