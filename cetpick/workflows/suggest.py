"""`suggest`: the places in stored candidates where the next labels would help most."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import logit

from cetpick.calibration import within
from cetpick.errors import InputError
from cetpick.geometry import as_points
from cetpick.io.atomic import all_or_none
from cetpick.io.coordinates import pair_files, write_coordinates
from cetpick.io.imod import coordinates_to_mod
from cetpick.io.table import read_table, write_table
from cetpick.records import TomogramInfo
from cetpick.workflows.curate import read_results
from cetpick.workflows.inputs import joined_points
from cetpick.workflows.record import prepare_output
from cetpick.workflows.results import tomogram_files

NUMBER = 20
CHECKS = 0.2
"""Share of the places that are random picks instead of uncertain candidates."""
A_TOMOGRAM = 5
"""So many places are worth opening another tomogram."""
FOLDER, STAR, TABLE, MODELS = "suggest", "suggested.star", "suggested.csv", "models"
LARGEST_LOGIT = 12.0
"""A score of 0 or 1 is not infinitely far from the threshold."""


@dataclass(frozen=True, kw_only=True)
class SuggestSummary:
    """What `suggest` tells.

    Attributes:
        output: folder.
        places: tomogram, x, y, z (voxels), score, why; a row for each place.
        star: all of them.
        models: for 3dmod, by tomogram.
        tomograms: paths, by name.
        asked: how many places were asked for.
    """

    output: Path
    places: pd.DataFrame
    star: Path
    models: dict[str, Path]
    tomograms: dict[str, Path]
    asked: int


def run_suggest(
    results: Path,
    *,
    number: int = NUMBER,
    tomograms: int | None = None,
    labels: Sequence[Path] = (),
    seed: int = 0,
    overwrite: bool = False,
) -> SuggestSummary:
    """Choose places to look at and write them for 3dmod and RELION to the folder `suggest` in the results.

    Four fifths are the candidates whose score is nearest to the threshold, a diameter or more apart; the others are
    random picks, so that confident mistakes are found too. Labels that the folder knows of are left out.

    Args:
        results: output folder of `pick`.
        number: of places.
        tomograms: at most so many; by default one for each A_TOMOGRAM places.
        labels: files of further places that are known already.
        seed: of the random picks.
        overwrite: replace earlier suggestions.

    Raises:
        InputError: no stored candidates, or unusable input; nothing was written.
    """
    if number < 1 or (tomograms is not None and tomograms < 1):
        raise InputError("unusable number", expected="at least 1", found=min(number, tomograms or number))
    output = results / FOLDER
    records, model = read_results(results)
    infos = {record.info.name: record.info for record in records}
    names = [STAR, TABLE, *(f"{MODELS}/{name}.mod" for name in infos)]
    prepare_output(output, names, overwrite=overwrite, inputs=labels)
    pairs = pair_files([*infos.values()], labels, several=True) if labels else []
    tables = []
    for record in records:
        info, path = record.info, tomogram_files(results, record.info.name)[2]
        if not record.holds(results, path):
            continue
        known = np.vstack([as_points(record.labels), joined_points([file for of, file in pairs if of is info])])
        table = read_table(path, info).table
        table = table[~within(as_points(table[["x", "y", "z"]]), known, model.diameter / 2 / info.grid.voxel_size)]
        far = np.clip(logit(table["score"]), -LARGEST_LOGIT, LARGEST_LOGIT) - logit(
            np.clip(record.lowest, 1e-5, 0.99999)
        )
        tables.append(table.assign(tomogram=info.name, far=np.abs(far), pick=table["score"] >= record.lowest))
    if not tables or not sum(map(len, tables)):
        raise InputError("holds no candidates to choose from", file=results, cure="pick with `cetpick pick` first")
    candidates = pd.concat(tables, ignore_index=True)
    chosen = choose(candidates, infos, number=number, tomograms=tomograms, diameter=model.diameter, seed=seed)
    places = chosen[["tomogram", "x", "y", "z", "score", "why"]].reset_index(drop=True)
    return _written(output, places, infos, model.diameter, number)


def choose(
    candidates: pd.DataFrame,
    infos: dict[str, TomogramInfo],
    *,
    number: int,
    tomograms: int | None,
    diameter: float,
    seed: int,
) -> pd.DataFrame:
    """Rows of the candidates to look at, with the column `why`, by tomogram.

    Args:
        candidates: columns tomogram, x, y, z (voxels), score, far (how far the score is from the threshold, in
            units of the logit), pick.
        infos: the tomograms by name.
        number: of places.
        tomograms: at most so many; None: one for each A_TOMOGRAM places.
        diameter: of the particle, angstrom; places are at least as far apart.
        seed: of the random ones.
    """
    most = min(tomograms or math.ceil(number / A_TOMOGRAM), candidates["tomogram"].nunique())
    voxel_size = candidates["tomogram"].map({name: info.grid.voxel_size for name, info in infos.items()})
    places = as_points(candidates[["x", "y", "z"]]) * voxel_size.to_numpy()[:, None]
    names = candidates["tomogram"].to_numpy()
    taken: list[int] = []

    def take(rows: Sequence[int], until: int, fits: Callable[[Counter[str], str], bool]) -> None:
        for row in rows:
            if len(taken) >= until:
                return
            counts = Counter(names[taken])
            near = [i for i in taken if names[i] == names[row]]
            apart = not near or np.linalg.norm(places[near] - places[row], axis=1).min() >= diameter
            if apart and fits(counts, names[row]):
                taken.append(row)

    checks = round(CHECKS * number)
    uncertain = candidates["far"].sort_values(kind="stable").index.to_list()
    quota = math.ceil((number - checks) / most)
    take(uncertain, number - checks, lambda held, name: held[name] < quota and (name in held or len(held) < most))
    first = len(taken)
    picks = candidates.index[candidates["pick"]]
    shuffled = np.random.default_rng(seed).permutation(picks).tolist()
    take(shuffled, first + checks, lambda held, name: name in held)
    why = ["uncertain"] * first + ["random pick"] * (len(taken) - first)
    # where there are too few of either
    take(uncertain, number, lambda held, name: name in held or len(held) < most)
    why += ["uncertain"] * (len(taken) - len(why))
    chosen = candidates.loc[taken].assign(why=why)
    return chosen.sort_values(["tomogram", "why", "far"], kind="stable")


def _written(
    output: Path, places: pd.DataFrame, infos: dict[str, TomogramInfo], diameter: float, asked: int
) -> SuggestSummary:
    parts = {str(name): rows[["x", "y", "z", "score"]] for name, rows in places.groupby("tomogram", sort=False)}
    star, table = output / STAR, output / TABLE
    models = {name: output / MODELS / f"{name}.mod" for name in parts}
    relion5 = all(info.relion is not None for info in infos.values())
    stale = [path for name in infos if (path := output / MODELS / f"{name}.mod") not in models.values()]
    with all_or_none([star, table, *models.values(), *stale]):
        for path in stale:
            path.unlink(missing_ok=True)
        for name, rows in parts.items():
            coordinates_to_mod(models[name], infos[name], rows, radius=diameter / 2)
        items = [(infos[name], rows) for name, rows in parts.items()]
        write_coordinates(star, items, format="relion5" if relion5 else "relion31")
        write_table(table, places)
    return SuggestSummary(
        output=output, places=places, star=star, models=models, asked=asked,
        tomograms={name: infos[name].path for name in parts},
    )  # fmt: skip
