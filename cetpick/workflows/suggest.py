"""`suggest`: the places in stored candidates where the next labels would help most."""

from __future__ import annotations

import bisect
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cetpick.calibration import sampling_chances, systematic_sample, within
from cetpick.errors import CetpickWarning, InputError
from cetpick.geometry import as_points
from cetpick.io.atomic import all_or_none
from cetpick.io.coordinates import pair_files, write_coordinates
from cetpick.io.imod import coordinates_to_mod
from cetpick.io.table import read_table, write_table
from cetpick.records import TomogramInfo
from cetpick.workflows.curate import CONSIDERED, SUGGESTED, SUGGESTED_TABLE, read_results
from cetpick.workflows.record import RunRecord, Stamp, prepare_output, read_record, set_aside
from cetpick.workflows.results import tomogram_files

NUMBER = 20
A_TOMOGRAM = 5
"""So many places are worth opening another tomogram."""
FOLDER, MODELS, RECORD = "suggest", "models", "suggest.json"
EDITED = "edited"
"""Folder of models with somebody's answers that would have been written over."""
LEAST = 1e-6
"""Scores below are taken as this: what has no chance at all tells nothing."""


@dataclass(frozen=True, kw_only=True)
class SuggestSummary:
    """What `suggest` tells.

    Attributes:
        output: folder.
        places: see choose.
        star: all of them.
        models: for 3dmod, by tomogram.
        tomograms: paths, by name.
        asked: how many places were asked for.
        expected: how many of them are particles by their scores; None where these are no probabilities.
    """

    output: Path
    places: pd.DataFrame
    star: Path
    models: dict[str, Path]
    tomograms: dict[str, Path]
    asked: int
    expected: float | None


def run_suggest(
    results: Path,
    *,
    number: int | None = None,
    particles: int | None = None,
    tomograms: int | None = None,
    labels: Sequence[Path] = (),
    seed: int = 0,
    overwrite: bool = False,
) -> SuggestSummary:
    """Choose places to look at and write them for 3dmod and RELION to the folder `suggest` in the results.

    They are drawn at random, in proportion to their scores: so they are particles that the network was not shown, or
    what it may take for particles, and the answers tell how many of all candidates are particles. Labels that the
    folder knows of are left out.

    Args:
        results: output folder of `pick`.
        number: of places; NUMBER by default.
        particles: instead of a number, as many places as hold so many particles by their scores.
        tomograms: at most so many; by default one for each A_TOMOGRAM places.
        labels: files of further places that are known already.
        seed: of the draw.
        overwrite: replace earlier suggestions; models that were edited since are kept in the folder `edited`.

    Raises:
        InputError: no stored candidates, or unusable input; nothing was written.

    Warns:
        CetpickWarning: an edited model was put into `edited`; tomograms whose candidates are missing or were changed.
    """
    for option, given in (("--number", number), ("--particles", particles), ("--tomograms", tomograms)):
        if given is not None and given < 1:
            raise InputError(f"unusable {option}", expected="at least 1", found=given, cure=f"give another {option}")
    if number is not None and particles is not None:
        raise InputError(
            "two numbers of places",
            expected="--number or --particles",
            found=f"--number {number} and --particles {particles}",
            cure="leave one of them out",
        )
    output = results / FOLDER
    records, model = read_results(results)
    infos = {result.info.name: result.found for result in records}
    names = [SUGGESTED, SUGGESTED_TABLE, CONSIDERED, RECORD, *(f"{MODELS}/{name}.mod" for name in infos)]
    prepare_output(output, names, overwrite=overwrite, inputs=labels, option=None)
    if particles is None:
        number = number or NUMBER
    record = RunRecord("suggest", {"number": number, "particles": particles, "tomograms": tomograms, "seed": seed})
    calibrated = all(result.maker.calibrated for result in records)
    if particles is not None and not calibrated:
        raise InputError(
            "these scores are no probabilities, so they do not tell how many places are particles",
            file=results,
            cure="give --number, how many places to look at",
        )
    pairs = pair_files([*infos.values()], labels, several=True) if labels else []
    tables, read, lost = [], [file.source for _, file in pairs if file.source], []
    for result in records:
        info, path = infos[result.info.name], tomogram_files(results, result.info.name)[2]
        if not result.holds(results, path):
            lost.append(str(path))
            continue
        read.append(path)
        known, radius = as_points(result.labels), model.diameter / 2 / info.grid.voxel_size
        for xyz in (file.xyz for of, file in pairs if of is info):
            known = np.vstack([known, xyz[~within(xyz, known, radius)]])  # each particle counts once
        table = read_table(path, info).table
        table = table[~within(as_points(table[["x", "y", "z"]]), known, radius)]
        tables.append(table.assign(tomogram=info.name, labels=len(known)))
    if lost:
        warnings.warn(
            f"left out, as candidates were changed or removed since they were written: {', '.join(lost)}; "
            "the same `cetpick pick` again makes them anew",
            CetpickWarning,
            stacklevel=2,
        )
    if not tables or not sum(map(len, tables)):
        raise InputError("holds no candidates to choose from", file=results, cure="pick with `cetpick pick` first")
    candidates = pd.concat(tables, ignore_index=True)
    places = choose(candidates, number=number or NUMBER, particles=particles, tomograms=tomograms, seed=seed)
    # without them `curate` tells no number, and where scores are no probabilities it could not
    told = candidates["tomogram"].isin(places["tomogram"]) & calibrated
    considered = candidates.loc[told, ["tomogram", "score"]]
    if particles is not None and (there := float(considered["score"].sum())) < particles:
        raise InputError(
            "candidates hold fewer particles by their scores than are asked for",
            file=results,
            expected=f"--particles of at most {math.floor(there)}",
            found=f"{particles}, in {places['tomogram'].nunique()} of {len(tables)} tomograms",
            cure="ask for fewer, or allow more --tomograms",
        )
    expected = float(places["score"].sum()) if calibrated else None
    record.add_inputs(dict.fromkeys(read))
    return _written(output, places, considered, infos, model.diameter, number or len(places), expected, record)


def enough(scores: ArrayLike, particles: float) -> int:
    """How many places have to be drawn for so many particles, by scores that are probabilities; all if need be."""
    values = np.asarray(scores, np.float64)

    def held(number: int) -> float:
        return float(sampling_chances(values.clip(LEAST), number) @ values)

    # sums are not exact
    return bisect.bisect_left(range(len(values)), particles - 1e-6, lo=1, hi=len(values), key=held)


def choose(
    candidates: pd.DataFrame, *, number: int, particles: int | None = None, tomograms: int | None, seed: int
) -> pd.DataFrame:
    """Places to look at: columns tomogram, x, y, z, score and labels, by tomogram, the best first.

    Args:
        candidates: columns tomogram, x, y, z (voxels), score, labels (known ones in the tomogram).
        number: of places.
        particles: instead of that number, as many places as hold so many particles by scores that are probabilities;
            all of the tomograms that were drawn if these hold fewer.
        tomograms: at most so many; None: one for each A_TOMOGRAM places. Those with many particles come more often.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    weighed = candidates.assign(weight=candidates["score"].clip(lower=LEAST))
    held = weighed.groupby("tomogram")["weight"].sum()
    if particles is not None:  # about, as it tells how many tomograms are drawn
        number = enough(weighed["score"], particles)
    most = min(tomograms or math.ceil(number / A_TOMOGRAM), len(held))
    names = rng.choice(held.index.to_numpy(), most, replace=False, p=held / held.sum())
    listed = weighed[weighed["tomogram"].isin(names)].sort_values("score", ascending=False, kind="stable")
    if particles is not None:
        number = enough(listed["score"], particles)
    places = listed.iloc[systematic_sample(sampling_chances(listed["weight"], number), rng)]
    places = places.sort_values(["tomogram", "score"], ascending=[True, False], kind="stable")
    return places[["tomogram", "x", "y", "z", "score", "labels"]].reset_index(drop=True)


def _written(
    output: Path,
    places: pd.DataFrame,
    considered: pd.DataFrame,
    infos: dict[str, TomogramInfo],
    diameter: float,
    asked: int,
    expected: float | None,
    record: RunRecord,
) -> SuggestSummary:
    parts = {str(name): rows[["x", "y", "z", "score"]] for name, rows in places.groupby("tomogram", sort=False)}
    star, table = output / SUGGESTED, output / SUGGESTED_TABLE
    models = {name: output / MODELS / f"{name}.mod" for name in parts}
    relion5 = all(info.relion is not None for info in infos.values())
    stale = [path for name in infos if (path := output / MODELS / f"{name}.mod") not in models.values()]
    written = [star, table, output / CONSIDERED, *models.values()]
    record.values["outputs"] = [str(path) for path in written]
    stamps = (read_record(output / RECORD) or {}).get("models", {})
    for path in [*models.values(), *stale]:
        if stamp := stamps.get(path.name):
            set_aside(path, Stamp(**stamp), output / EDITED)
    with all_or_none([*written, *stale, output / RECORD]):
        for path in stale:
            path.unlink(missing_ok=True)
        for name, rows in parts.items():
            coordinates_to_mod(models[name], infos[name], rows, radius=diameter / 2)
        items = [(infos[name], rows) for name, rows in parts.items()]
        write_coordinates(star, items, format="relion5" if relion5 else "relion31")
        write_table(table, places)
        write_table(output / CONSIDERED, considered)
        record.values["models"] = {model.name: Stamp.of(model) for model in models.values()}
        record.write(output / RECORD)
    return SuggestSummary(
        output=output, places=places, star=star, models=models, asked=asked, expected=expected,
        tomograms={name: infos[name].path for name in parts},
    )  # fmt: skip
