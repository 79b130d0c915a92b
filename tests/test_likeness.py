"""Scores by features that no label has touched."""

import numpy as np
import torch

from cetpick.config import ModelSettings, ParticleClass
from cetpick.dataset import Example
from cetpick.io.tomograms import read_tomogram
from cetpick.likeness import likeness, pretrained_features
from cetpick.preprocess import prepare
from tests.conftest import TinySet


def populations(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels, scores, and which are particles: 60, 15 of them labels, and 40 look-alikes."""
    rng = np.random.default_rng(seed)
    kind = np.repeat([0, 1, 2], [60, 40, 1000])
    centres = rng.normal(0, 1, (3, 12))
    features = 3 * centres[kind] + rng.normal(0, 1, (len(kind), 12))
    label = np.arange(len(kind)) < 15
    scores = np.select([label, kind == 0, kind == 1], [0.99, 0.9, 0.6], 0.01) + rng.uniform(0, 0.009, len(kind))
    return features.astype(np.float32), label, scores, kind == 0


def test_it_tells_look_alikes_and_does_not_know_labels_by_heart() -> None:
    for seed in range(3):
        features, label, scores, particle = populations(seed)
        found = likeness([features[:500], features[500:]], [label[:500], label[500:]], [scores[:500], scores[500:]],
                         particles=85, seed=seed)  # fmt: skip
        assert found is not None
        hidden, alike = found[particle & ~label], found[60:100]
        assert (hidden.min(), np.median(alike)) > (np.median(found[100:]), 0)
        assert (hidden[:, None] > alike).mean() > 0.9
        assert abs(found[label].mean() - hidden.mean()) < 0.5  # of hidden ones' standard deviations, about
        assert 0.8 < found[label | particle].std() < 1.5


def test_random_features_know_no_label() -> None:
    """Though there are nearly as many features as labels: each is scored by what has not seen it."""
    rng = np.random.default_rng(0)
    label = np.arange(500) < 30
    found = likeness([rng.normal(size=(500, 25)).astype(np.float32)], [label], [rng.uniform(size=500)],
                     particles=20, seed=0)  # fmt: skip
    assert found is not None
    assert abs(found[label].mean() - found[~label].mean()) < 0.4 * found.std()


def test_few_candidates_tell_nothing() -> None:
    features, label, scores, _ = populations(0)
    few = slice(0, 70)
    assert likeness([features[few]], [label[few]], [scores[few]], particles=45, seed=0) is None


def test_features_are_of_the_places_in_the_tomogram(tiny: TinySet) -> None:
    tomogram = read_tomogram(tiny.path("one"))
    model = ModelSettings(classes=(ParticleClass(diameter=tiny.diameter),), voxel_size=(20, 10, 10), background=3.0)
    example = Example(tomogram=tomogram, labels=tiny.truth["one"], prepared=prepare(tomogram, model))
    rng = np.random.default_rng(0)
    elsewhere = rng.uniform(0, np.array(tiny.shape[::-1]), (300, 3))
    away = np.linalg.norm(elsewhere[:, None] - tiny.truth["one"], axis=2).min(axis=1) > 10
    places = np.vstack([tiny.truth["one"], elsewhere[away]])
    found = pretrained_features(example, places, model, device=torch.device("cpu"))
    assert found.shape == (len(places), model.fused)
    true = np.arange(len(places)) < len(tiny.truth["one"])
    score = likeness([found], [true], [true * 0.9 + 0.05], particles=1, seed=0)
    if score is None:  # fewer than a discriminant needs
        apart = np.abs(found[true].mean(axis=0) - found[~true].mean(axis=0)) / found[~true].std(axis=0)
        assert apart.max() > 3
    else:
        assert np.median(score[true]) > np.quantile(score[~true], 0.99)
