"""Options that several commands share, and how they report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from cetpick.records import Unwanted
    from cetpick.workflows.collect import CollectSummary


class ModeName(StrEnum):
    """--mode."""

    default = "default"
    paper = "paper"


class Which(StrEnum):
    """--which."""

    reconstructed = "reconstructed"
    denoised = "denoised"


class Naming(StrEnum):
    """--names."""

    file = "file"
    parent = "parent"


class UnwantedName(StrEnum):
    """--keep."""

    padding = "padding"
    empty = "empty"
    gold = "gold"
    carbon = "carbon"


class Axes(StrEnum):
    """--axes."""

    rotx = "rotx"
    undo_rotx = "undo-rotx"
    flipyz = "flipyz"


class StarFlavour(StrEnum):
    """--star."""

    relion5 = "relion5"
    relion4 = "relion4"
    relion31 = "relion31"
    warp = "warp"


class PlotKind(StrEnum):
    """--plots."""

    png = "png"
    svg = "svg"
    pdf = "pdf"


Tomograms = Annotated[
    list[Path],
    typer.Argument(
        metavar="TOMOGRAM...",
        readable=False,  # the readers say it, and one unreadable tomogram does not stop the others
        help="Tomograms (MRC, EM, OME-Zarr, EMAN2) or RELION 5 tomograms.star files.",
    ),
]
Labels = Annotated[
    list[Path],
    typer.Option(
        "--labels",
        "-l",
        readable=False,
        help="Particle centres in any known format: a file, a folder, or a STAR for many.",
    ),
]
Reject = Annotated[
    list[Path] | None,
    typer.Option(
        "--reject", readable=False, help="Places that are no particles, in files as of --labels: see docs/curation.md."
    ),
]
Added = Annotated[
    list[Path] | None,
    typer.Option(
        "--added",
        readable=False,
        help="More labels, found by looking at picks; not used to estimate the number of particles.",
    ),
]
Diameter = Annotated[float, typer.Option("--diameter", "-d", metavar="ANGSTROM", help="Particle diameter.")]
Mode = Annotated[ModeName, typer.Option(help="The method: cetpick's own, or the published one.")]
Steps = Annotated[
    int | None,
    typer.Option(help="Steps of the main training; by default 500 (600 for paper)."),
]
CountHint = Annotated[
    float | None,
    typer.Option(
        metavar="N",
        help="Your guess of the particles in one tomogram; trusted within a factor of two.",
    ),
]
TrustLabels = Annotated[
    bool, typer.Option("--trust-labels", help="Train even on labels that look swapped or of another scale.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Memory = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        max=1e6,
        metavar="GIB",
        help="Memory for computing; by default 1 on a CPU, half of what is free on a GPU.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1024,
        help="CPU threads; else what OMP_NUM_THREADS says, or the cores that a container or job may use.",
    ),
]
VoxelSize = Annotated[
    float | None, typer.Option(metavar="ANGSTROM", help="Voxel size of the tomograms, in the place of their headers'.")
]
Mask = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE|DIR", help="Learn and pick only where this volume is above 0; or a folder with TOMOGRAM_mask.mrc."
    ),
]
Slab = Annotated[
    tuple[float, float] | None,
    typer.Option(metavar="FROM TO", help="Learn and pick only between these distances along z, angstrom."),
]
Keep = Annotated[
    list[UnwantedName] | None,
    typer.Option(metavar="WHAT", help="Do not leave out: padding, empty (slices), gold or carbon. Repeat for more."),
]
WhichTomogram = Annotated[Which, typer.Option(help="Which tomograms of a tomograms.star.")]
Names = Annotated[Naming, typer.Option(help="Name tomograms by file, or by parent folder and file.")]
Binned = Annotated[
    bool | None,
    typer.Option("--binned/--unbinned", help="RELION coordinates are in voxels of the tomogram, or unbinned pixels."),
]
Threshold = Annotated[float | None, typer.Option(metavar="S", help="Score from which a candidate is a pick.")]
TargetPrecision = Annotated[
    float | None,
    typer.Option(metavar="P", help="Cut each tomogram where this share of the picks should be particles, such as 0.9."),
]
Top = Annotated[int | None, typer.Option(metavar="N", help="At most N picks a tomogram, the best ones.")]
TomogramFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--tomogram", "--tomograms-star", metavar="FILE", help="Tomogram or RELION 5 tomograms.star of the points."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace earlier results.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a training that was stopped, if there is one.")]
NoReport = Annotated[bool, typer.Option("--no-report", help="Leave out the report and its pictures.")]
Plots = Annotated[
    PlotKind | None, typer.Option(help="Draw charts and slices as files too, in plots/ beside the report.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]


def triple(text: str | None, option: str) -> tuple[float, float, float] | None:
    """Three numbers "X,Y,Z" as the user gave them to `option`, None for None.

    Raises:
        InputError: it is something else.
    """
    from cetpick.errors import InputError

    if text is None:
        return None
    try:
        x, y, z = (float(word) for word in text.split(","))
    except ValueError:
        raise InputError(
            f"unusable {option}", expected="three numbers X,Y,Z", found=text, cure=f"such as {option} 21,21,0"
        ) from None
    return x, y, z


def size(text: str | None, option: str) -> tuple[int, int, int] | None:
    """As `triple`, for whole numbers above 0."""
    from cetpick.errors import InputError

    numbers = triple(text, option)
    if numbers is None:
        return None
    if any(number < 1 or number % 1 for number in numbers):
        raise InputError(f"unusable {option}", expected="three whole numbers above 0", found=text)
    x, y, z = map(int, numbers)
    return x, y, z


def kept(names: Sequence[UnwantedName] | None) -> tuple[Unwanted, ...]:
    """What --keep names, each once, in the order of `UnwantedName`."""
    return tuple(name.value for name in UnwantedName if name in (names or ()))


def shown(value: Any) -> str:
    """A value of a report as text: numbers short, several values separated by commas."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value)) or "-"
    if isinstance(value, Mapping):
        return shown([f"{name}: {shown(item)}" for name, item in value.items()])
    return str(value)


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows, which all have the keys of the first, as aligned columns on stdout."""
    for line in _aligned(rows):
        typer.echo(f"  {line}")


def print_fields(values: Mapping[str, Any]) -> None:
    """Print a description, its first value as the heading; values with several parts take a line each."""
    (_, heading), *fields = values.items()
    typer.echo(heading)
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        lines = [shown(value)]
        if isinstance(value, Mapping):
            lines = [f"{key}: {shown(item)}" for key, item in value.items()] or ["-"]
        elif isinstance(value, list) and value and isinstance(value[0], str | Mapping):
            lines = _aligned(value) if isinstance(value[0], Mapping) else value
        for number, line in enumerate(lines):
            typer.echo(f"  {'' if number else name.replace('_', ' '):{width}}  {line}")


def tell_lacking(failures: Sequence[str], missing: Mapping[str, str]) -> None:
    """Name on stderr the tomograms that failed, and those that are missing, by the reason."""
    for failure in failures:
        typer.echo(f"failed: {failure}", err=True)
    for reason in dict.fromkeys(missing.values()):
        names = ", ".join(name for name, why in missing.items() if why == reason)
        typer.echo(f"missing ({reason}): {names}", err=True)


def tell_collected(summary: CollectSummary, *, as_json: bool) -> NoReturn:
    """Tell what has become of the results in a folder, and end with the exit code for it."""
    if as_json:
        print_json(vars(summary) | {"cut": vars(summary.cut)})
        raise typer.Exit(summary.exit_code)
    tell_lacking(summary.failures, summary.missing)
    lacking = {"failed": len(summary.failures), "missing": len(summary.missing)}
    told = "".join(f", {number} {what}" for what, number in lacking.items() if number)
    typer.echo(f"{sum(summary.picks.values())} picks in {len(summary.picks)} tomograms{told}")
    typer.echo(summary.told)
    typer.echo(f"results: {results(summary.output, summary.files)}")
    raise typer.Exit(summary.exit_code)


def results(output: Path, files: Sequence[Path]) -> str:
    """The files that a user opens first, in words."""
    return ", ".join(
        str(output / name) for name in ("particles.star", "run.json", "report.html") if output / name in files
    )


def print_json(values: Any) -> None:
    """Print `values` as one JSON document on stdout; NaN and infinite numbers become null."""
    from cetpick.io.to_json import to_json

    typer.echo(to_json(values, indent=2))


def _aligned(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of a table: names of the columns, then the rows; text to the left, numbers to the right."""
    names = list(rows[0])
    cells = [names, *([shown(row[name]) for name in names] for row in rows)]
    columns = []
    for column in zip(*cells, strict=True):
        width = max(map(len, column))
        is_text = any(cell[:1] not in "-+0123456789" for cell in column[1:])
        columns.append([cell.ljust(width) if is_text else cell.rjust(width) for cell in column])
    return ["  ".join(line).rstrip() for line in zip(*columns, strict=True)]
