"""What to do with the picks: the commands of the programs that take over, with their numbers filled in.

Sources: RELION 5.0.1, which was seen to read these files (`relion_tomo_subtomo`), and its tutorial of sub-tomogram
averaging ("Extract subtomos") for the names in its window; the documentation of WarpTools (`ts_export_particles`),
Dynamo (`dtcrop`, "Cropping table"), IMOD (`3dmod`) and ArtiaX ("file formats", "particles").
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cetpick.io.relion import Flavour, seen_from
from cetpick.io.tomograms import same_voxel_size, tomogram_name
from cetpick.records import TomogramInfo

BOX = 1.5
"""Side of an extracted box, diameters: the particle and some solvent around it."""
MULTIPLE = 8
"""Sides of boxes are so many pixels or a multiple: fast to transform."""
PADDED = 2
"""RELION extracts boxes so much larger before it crops them: the CTF spreads signal."""
EXPORTS = ("relion5.star", "warp.star", "dynamo.tbl", "dynamo.doc")
"""What the commands of `next_steps` write of all tomograms, in the folder of results; and NAME.coords of one."""
MOST_NAMED = 8
"""Tomograms that are named one by one in a command."""


@dataclass(frozen=True, kw_only=True)
class NextStep:
    """How a program takes over.

    Attributes:
        program: its name.
        text: what happens, in a sentence or two.
        commands: to be typed, in order.
        where: to type them.
    """

    program: str
    text: str
    commands: tuple[str, ...]
    where: str = "shell"


def next_steps(
    output: Path,
    infos: Sequence[TomogramInfo],
    *,
    star: Flavour,
    diameter: float,
    optimisation_set: Mapping[str, str] | None = None,
) -> list[NextStep]:
    """The commands for RELION 5, Warp, Dynamo, IMOD and ChimeraX.

    Args:
        output: folder of results.
        infos: tomograms with results, at least one.
        star: flavour of particles.star.
        diameter: of the particle, angstrom.
        optimisation_set: how optimisation_set.star names its files, None when there is none.
    """
    first = infos[0]
    voxel_size = first.grid.voxel_size
    sizes = [info.grid.voxel_size for info in infos]
    differ = not same_voxel_size(max(sizes), min(sizes))
    caution = f" Voxel sizes differ ({min(sizes):g} to {max(sizes):g} A); the numbers are those of {first.name}."
    note = caution if differ else ""
    side = box_side(diameter, voxel_size)
    particles = output / "particles.star"
    named = _naming(infos)
    return [
        _relion(output, infos, star, diameter, optimisation_set, note),
        NextStep(
            program="Warp",
            text="Export sub-tomograms (--3d) or image series (--2d) for RELION and M; choose the pixel size of the "
            "output (--output_angpix; here the tomogram's) and the box with it. Warp and IMOD may reconstruct a series "
            "mirrored along z: these picks are for tomograms that Warp made." + note,
            commands=(
                _line("cetpick", "convert", particles, output / "warp.star", "--format", "warp", *named, "--overwrite"),
                _line(
                    *("WarpTools", "ts_export_particles", "--settings", "warp_tiltseries.settings"),
                    *("--input_star", output / "warp.star", "--coords_angpix", f"{voxel_size:g}"),
                    *("--output_star", "relion/cetpick.star", "--output_angpix", f"{voxel_size:g}"),
                    *("--box", side, "--diameter", f"{diameter:.0f}", "--relative_output_paths", "--3d"),
                ),
            ),
        ),
        NextStep(
            program="Dynamo",
            text=f"The table and the list of tomograms beside it; boxes of {side} voxels ({side * voxel_size:.0f} A)."
            + (
                ""
                if named or len(infos) == 1
                else " The second line is MATLAB's; put the tomograms' paths into the .doc."
            )
            + note,
            commands=(
                _line("cetpick", "convert", particles, output / "dynamo.tbl", *named, "--overwrite"),
                f"dtcrop {_matlab(output / 'dynamo.doc')} {_matlab(output / 'dynamo.tbl')} cetpickData {side}",
            ),
            where="shell, then MATLAB",
        ),
        NextStep(
            program="IMOD",
            text="The picks on their tomogram, as spheres of the particle's size, scores as values of the points."
            + (f" The others alike: 3dmod TOMOGRAM {output / 'NAME.mod'}." if len(infos) > 1 else ""),
            commands=(_line("3dmod", first.path, output / f"{first.name}.mod"),),
        ),
        NextStep(
            program="ChimeraX with ArtiaX",
            text="The first line is the shell's, the others are typed in ChimeraX; a list is scaled by the voxel size. "
            "Lists are numbered #1.2.1, #1.2.2 as they are opened." + note,
            commands=(
                _line(
                    "cetpick", "convert", output / f"{first.name}.csv", output / f"{first.name}.coords", "--overwrite"
                ),
                "artiax start",
                f"open {_quoted(first.path)}",
                f"open {_quoted(output / f'{first.name}.coords')} format coords",
                f"artiax particles #1.2.1 originScaleFactor {voxel_size:g}",
                f"artiax particles #1.2.1 radius {diameter / 2:g}",
            ),
            where="shell, then ChimeraX",
        ),
    ]


def box_side(diameter: float, pixel_size: float) -> int:
    """Pixels along the side of a box for a particle, a multiple of MULTIPLE; diameter and pixel size in angstrom."""
    return MULTIPLE * max(1, -int(-(BOX * diameter / pixel_size) // MULTIPLE))


def _relion(
    output: Path,
    infos: Sequence[TomogramInfo],
    star: Flavour,
    diameter: float,
    optimisation_set: Mapping[str, str] | None,
    note: str,
) -> NextStep:
    first = infos[0]
    if star in ("relion5", "relion4") and first.relion is not None:
        binning = max(1, round(first.relion.binning))
        pixel = first.relion.pixel_size * binning
        side = box_side(diameter, pixel)
        if optimisation_set is None:
            project, stars = first.relion.project, {info.relion.star for info in infos if info.relion}
            files = [seen_from(project, path) for path in (output / "particles.star", first.relion.star)]
            given: tuple[object, ...] = ("--p", files[0], "--t", files[1])
            inputs = _direct_entries(files[0], files[1])
            if len(stars) > 1:
                note += f" This is for the tomograms of {first.relion.star}; pick those of each tomograms.star apart."
        else:
            file = Path(optimisation_set["particles"]).with_name("optimisation_set.star")
            given, inputs = ("--i", file), f"'Input optimisation set' {file}"
        return NextStep(
            program="RELION 5",
            text=f"Nothing to import. {_extracting(inputs, binning, side)} ({pixel:g} A a pixel). Or in the project "
            f"folder, as here.{note}",
            commands=(
                _line(
                    *("relion_tomo_subtomo", *given, "--o", "Extract/cetpick/"),
                    *("--b", PADDED * side, "--crop", side, "--bin", binning, "--stack2d"),
                ),
            ),
        )
    voxel_size, target = first.grid.voxel_size, output / "relion5.star"
    side = box_side(diameter, voxel_size)
    named = _naming(infos) or ["--voxel-size", f"{voxel_size:g}"]
    return NextStep(
        program="RELION 5",
        text="Convert first, as in the first line: these picks are in voxels of the tomograms, RELION 5 counts from "
        "their centre. TOMOGRAMS.star is the tomograms.star of its job 'Reconstruct tomograms', with the same tomogram "
        f"names, in any binning. {_extracting(_direct_entries(target, 'TOMOGRAMS.star'), 'BIN', side)}; BIN is the "
        f"voxel size {voxel_size:g} A over the pixel size of the tilt series. Or in the project folder, as in the "
        f"second line.{note}",
        commands=(
            _line("cetpick", "convert", output / "particles.star", target, "--format", "relion5", *named)
            + " --to-tomogram TOMOGRAMS.star --overwrite",
            _line("relion_tomo_subtomo", "--p", target)
            + f" --t TOMOGRAMS.star --o Extract/cetpick/ --b {PADDED * side} --crop {side} --bin BIN --stack2d",
        ),
    )


def _extracting(inputs: str, binning: int | str, side: int) -> str:
    """What to enter in RELION's window."""
    return (
        f"In RELION's window: job 'Extract subtomos', {inputs}; binning factor {binning}, box size {PADDED * side}, "
        f"cropped box size {side}"
    )


def _direct_entries(particles: Path, tomograms: Path | str) -> str:
    """Two files in the place of an optimisation set, as RELION's window takes them."""
    return f"'OR: use direct entries?' Yes, 'Input particle set' {particles}, 'Input tomogram set' {tomograms}"


def _naming(infos: Sequence[TomogramInfo]) -> list[object]:
    """Options of `convert` that name the tomograms, when that is short."""
    stars = dict.fromkeys(info.relion.star if info.relion else None for info in infos)
    given: list[Path] = []
    if None not in stars:
        given = [star for star in stars if star is not None]
    elif len(infos) <= MOST_NAMED:
        given = [info.path for info in infos]
    by_folder = any(not info.relion and info.name != tomogram_name(info.path) for info in infos)
    words: list[object] = [word for path in given for word in ("--tomogram", path)]
    return [*words, "--names", "parent"] if words and by_folder else words


def _line(*words: object) -> str:
    return shlex.join(map(str, words))


def _quoted(path: Path) -> str:
    """A path as ChimeraX reads it."""
    return f'"{path}"' if " " in str(path) else str(path)


def _matlab(path: Path) -> str:
    """A path as MATLAB's commands read it."""
    quoted = str(path).replace("'", "''")
    return str(path) if re.fullmatch(r"[\w./-]+", quoted) else f"'{quoted}'"
