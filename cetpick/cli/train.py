"""cetpick train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cetpick.cli import options as opt


def train(
    tomograms: opt.Tomograms,
    labels: opt.Labels,
    diameter: opt.Diameter,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="MODEL.safetensors", help="The model file.")],
    added: opt.Added = None,
    reject: opt.Reject = None,
    mode: opt.Mode = opt.ModeName.default,
    trust_labels: opt.TrustLabels = False,
    steps: opt.Steps = None,
    count_hint: opt.CountHint = None,
    seed: opt.Seed = 0,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
    voxel_size: opt.VoxelSize = None,
    which: opt.WhichTomogram = opt.Which.reconstructed,
    names: opt.Names = opt.Naming.file,
    binned: opt.Binned = None,
    mask: opt.Mask = None,
    slab: opt.Slab = None,
    keep: opt.Keep = None,
    resume: opt.Resume = False,
    overwrite: opt.Overwrite = False,
    no_report: opt.NoReport = False,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Train on a few labelled particles and write one self-contained model file, and a report beside it.

    Examples:
      cetpick train tomo1.rec --labels tomo1.mod --diameter 250 -o ribosome.safetensors

      cetpick train tomo1.rec --labels tomo1.mod --added added.star --reject rejected.star -d 250 -o round2.safetensors

      cetpick train tomograms.star --labels particles.star -d 250 -o ribosome.safetensors
    """
    from cetpick.cli.progress import reporting
    from cetpick.config import TrainSettings
    from cetpick.workflows.inputs import InputOptions
    from cetpick.workflows.train import run_train

    settings = TrainSettings(mode=mode.value, diameter=diameter, steps=steps, count_hint=count_hint, seed=seed)
    inputs = InputOptions(
        voxel_size=voxel_size,
        which=which.value,
        names=names.value,
        binned=binned,
        mask=mask,
        slab=slab,
        keep=opt.kept(keep),
        trust_labels=trust_labels,
    )
    with reporting(quiet=quiet) as reporter:
        summary = run_train(
            tomograms, labels, settings, output=output, options=inputs, device=device, threads=threads,
            resume=resume, overwrite=overwrite, report=not no_report, reject=reject or [], added=added or [],
            progress=reporter.step, say=reporter.say,
        )  # fmt: skip
    if as_json:
        opt.print_json(
            {"model": summary.model, "record": summary.record, "report": summary.report, **summary.settings.to_dict()}
        )
    else:
        before = " before" if summary.done_before else ""
        rejected = f" and {summary.rejected} rejected places" if summary.rejected else ""
        typer.echo(f"{summary.model}: trained{before} on {summary.labels} labels{rejected}, {summary.settings.told}")
        if summary.report is not None:
            typer.echo(f"report: {summary.report}")
