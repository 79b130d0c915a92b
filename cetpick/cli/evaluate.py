"""cetpick evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cetpick.cli import options as opt

if TYPE_CHECKING:
    from cetpick.metrics import Result
    from cetpick.workflows.evaluate import EvaluateSummary


def evaluate(
    picks: Annotated[
        list[Path],
        typer.Argument(metavar="PICKS...", help="Picks in any known format, or output folders of `cetpick pick`."),
    ],
    truth: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE|DIR",
            help="Reference coordinates, or a folder of them; of an output folder its picks; repeatable.",
        ),
    ],
    radius: Annotated[
        list[float] | None,
        typer.Option(metavar="VOXELS", help="Largest distance of a match; repeatable. Half the diameter, else 5."),
    ] = None,
    diameter: Annotated[
        float | None,
        typer.Option(
            "--diameter", "-d", metavar="ANGSTROM", help="Of the particle: a match lies within half of it; no --radius."
        ),
    ] = None,
    margin: Annotated[str | None, typer.Option(metavar="X,Y,Z", help="Rim that does not count, voxels.")] = None,
    tomogram: opt.TomogramFiles = None,
    shape: Annotated[str | None, typer.Option(metavar="X,Y,Z", help="Size of the tomograms, voxels.")] = None,
    threshold: opt.Threshold = None,
    voxel_size: opt.VoxelSize = None,
    which: opt.WhichTomogram = opt.Which.reconstructed,
    names: opt.Names = opt.Naming.file,
    binned: opt.Binned = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            help="Where to write the report: curves, and slices with hits and misses. evaluation.html in an output "
            "folder of `cetpick pick`; of other picks there is none without this.",
        ),
    ] = None,
    no_report: opt.NoReport = False,
    plots: Annotated[
        opt.PlotKind | None,
        typer.Option(help="Draw precision against recall as a file too, beside the report."),
    ] = None,
    overwrite: opt.Overwrite = False,
    as_json: opt.Json = False,
) -> None:
    """Compare picks with reference coordinates: average precision, F1, localisation error; several tomograms pooled.

    Picks are matched one to one, by falling score, with reference points within the radius. Reference points in the
    margin are ignored, together with the picks that match them. Of an output folder of `cetpick pick` all candidates
    are judged, and the picks at the tool's own cut.

    Examples:
      cetpick evaluate picks --truth truth.csv

      cetpick evaluate picks --truth truths --radius 5 --radius 10 --json

      cetpick evaluate t2.csv --truth t2.mod --margin 21,21,0 --tomogram t2.rec --diameter 250

      cetpick evaluate t1.csv --truth t1.mod --tomogram t1.mrc --report t1.html
    """
    from cetpick.workflows.evaluate import run_evaluate
    from cetpick.workflows.inputs import InputOptions

    summary = run_evaluate(
        picks, truth, radii=radius or [], margin=opt.triple(margin, "--margin"), size=opt.size(shape, "--shape"),
        diameter=diameter, tomograms=tomogram or [], threshold=threshold, report=report,
        leave_report=not no_report,
        plots=plots and plots.value, overwrite=overwrite,
        options=InputOptions(voxel_size=voxel_size, which=which.value, names=names.value, binned=binned),
    )  # fmt: skip
    if as_json:
        opt.print_json(summary.to_dict())
        return
    for found, wanted in summary.tomograms:
        typer.echo(
            f"{found.tomogram}: {len(found.coordinates)} in {found.source}, "
            f"{len(wanted.coordinates)} reference points in {wanted.source}"
        )
    typer.echo(f"radius of a match: {summary.radius_is}")
    for result in summary.results:
        typer.echo(_heading(summary, result))
        opt.print_table(_rows(summary, result))
    for name, why in summary.lacking.items():
        typer.echo(f"no slices of {name}: {why}", err=True)
    files = {"report": summary.report, "plot": summary.plot}
    if summary.report is not None:
        typer.echo("\n" + ", ".join(f"{what}: {file}" for what, file in files.items() if file))


def _heading(summary: EvaluateSummary, result: Result) -> str:
    parts = [f"AP {result.average_precision:.4f}"] if summary.scored else []
    if result.ignored_picks or result.ignored_truths:
        parts.append(f"ignored in the margin: {result.ignored_picks} picks, {result.ignored_truths} reference points")
    return "\n" + "; ".join([f"radius {summary.length(result.radius)}", *parts])


def _rows(summary: EvaluateSummary, result: Result) -> list[dict[str, Any]]:
    """A row for each set of picks."""
    return [
        {
            "picks": name,
            "threshold": threshold,
            "count": score.picks,
            "matched": score.matched,
            "truth": score.truths,
            "precision": f"{score.precision:.4f}",
            "recall": f"{score.recall:.4f}",
            "F1": f"{score.f1:.4f}",
            "RMS error": "-" if score.localisation_error is None else summary.length(score.localisation_error),
        }
        for name, score, threshold in summary.sets(result)
    ]
