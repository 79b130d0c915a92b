"""cetpick pick."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cetpick.cli import options as opt


def pick(
    tomograms: opt.Tomograms,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder of the results.")],
    model: Annotated[
        Path | None, typer.Option("--model", "-m", readable=False, help="Model file; or train one, see below.")
    ] = None,
    train: Annotated[
        list[Path] | None,
        typer.Option("--train", readable=False, help="Tomogram to train on; by default those picked that have labels."),
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option("--labels", "-l", readable=False, help="Labels: one file for each --train, a folder, or a STAR."),
    ] = None,
    added: opt.Added = None,
    reject: opt.Reject = None,
    diameter: Annotated[
        float | None, typer.Option("--diameter", "-d", metavar="ANGSTROM", help="Of the particle; needed to train.")
    ] = None,
    mode: opt.Mode = opt.ModeName.default,
    trust_labels: opt.TrustLabels = False,
    steps: opt.Steps = None,
    count_hint: opt.CountHint = None,
    threshold: opt.Threshold = None,
    target_precision: opt.TargetPrecision = None,
    top: opt.Top = None,
    star: Annotated[
        opt.StarFlavour | None, typer.Option(help="Flavour of particles.star; told from the input.")
    ] = None,
    seed: opt.Seed = 0,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, cuda:N, or several as cuda:0,cuda:1: a process each. auto: all GPUs.")
    ] = "auto",
    threads: opt.Threads = None,
    memory: opt.Memory = None,
    voxel_size: opt.VoxelSize = None,
    which: opt.WhichTomogram = opt.Which.reconstructed,
    names: opt.Names = opt.Naming.file,
    binned: opt.Binned = None,
    mask: opt.Mask = None,
    slab: opt.Slab = None,
    keep: opt.Keep = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Pick the I-th of N parts of the tomograms; then `cetpick collect OUT`."),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help="Pick on a Dask cluster: local[:N] processes, slurm[:N] jobs (pbs, lsf, sge), tcp://HOST:PORT or a "
            "scheduler file; see docs/cluster.md.",
        ),
    ] = None,
    resume: opt.Resume = False,
    overwrite: opt.Overwrite = False,
    no_report: opt.NoReport = False,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Pick tomograms with a model, or train on labels first. Only the TOMOGRAMs named are picked.

    The same command again does what is missing or has changed.

    Examples:
      cetpick pick *.rec --train tomo1.rec --labels tomo1.mod --diameter 250 -o picks

      cetpick pick *.rec --model picks/model.safetensors -o more

      cetpick pick Tomograms/job007/tomograms.star --labels particles.star -d 250 -o picks

      cetpick pick *.rec --labels tomo1.mod --added round2/added.star --reject round2/rejected.star -d 250 -o picks2

      cetpick pick *.rec --model m.safetensors -o picks --shard 3/8

      cetpick pick *.rec --model m.safetensors -o picks --cluster slurm:8
    """
    from cetpick.cli.progress import reporting
    from cetpick.config import PickSettings, TrainSettings
    from cetpick.errors import InputError
    from cetpick.workflows.inputs import InputOptions
    from cetpick.workflows.pick import Training, run_pick
    from cetpick.workflows.runs import Shard

    training = None
    if model and (
        labels or train or added or diameter or steps or count_hint or resume or mode != opt.ModeName.default
    ):
        raise InputError(
            "--model goes without --train, --labels, --added, --diameter, --mode, --steps, --count-hint and --resume",
            cure="leave --model out to train, or the others to pick with the model",
        )
    if labels or train:
        if diameter is None:
            raise InputError("training needs the particle's diameter", cure="add --diameter ANGSTROM")
        settings = TrainSettings(mode=mode.value, diameter=diameter, steps=steps, count_hint=count_hint, seed=seed)
        training = Training(tomograms=train or [], labels=labels or [], added=added or [], settings=settings)
    with reporting(quiet=quiet) as reporter:
        summary = run_pick(
            tomograms, output=output, model=model, training=training, reject=reject or [],
            settings=PickSettings(threshold=threshold, precision=target_precision, top=top),
            star=star.value if star else None,
            options=InputOptions(
                voxel_size=voxel_size, which=which.value, names=names.value, binned=binned, mask=mask, slab=slab,
                keep=opt.kept(keep), trust_labels=trust_labels,
            ),
            device=device, threads=threads, memory=memory * 2**30 if memory else None,
            shard=Shard.parse(shard) if shard else None, cluster=cluster, resume=resume,
            overwrite=overwrite, report=not no_report, progress=reporter.step, say=reporter.say,
        )  # fmt: skip
    if as_json:
        values = vars(summary) | {"settings": summary.settings.to_dict(), "shard": shard}
        opt.print_json(values)
        raise typer.Exit(summary.exit_code)
    if training is not None:
        typer.echo(f"{summary.model}: {summary.settings.told}")
    for name, count in summary.picks.items():
        also = " (also trained on)" if name in summary.trained_on else ""
        left_out = f", {summary.rejected[name]} at rejected places left out" if name in summary.rejected else ""
        typer.echo(f"{name}: {count} picks of {summary.candidates[name]} candidates{left_out}{also}")
    opt.tell_lacking(summary.failures, summary.missing)
    done = {"done before": len(summary.done_before), "cut again": len(summary.cut_again)}
    done["picked"] = len(summary.picks) - sum(done.values())
    done |= {"failed": len(summary.failures), "missing": len(summary.missing)}
    typer.echo(", ".join(f"{number} {what}" for what, number in done.items() if number) or "nothing to do")
    results, named = opt.results(output, summary.files), shlex.quote(str(output))
    if summary.shard is not None:
        results = f"shard {summary.shard}; when all have ended: cetpick collect {named}"
    typer.echo(summary.told)
    typer.echo(f"results: {results}")
    if summary.shard is None and summary.picks:
        typer.echo(f"next, with RELION 5, Warp, Dynamo, IMOD, ChimeraX: `cetpick report {named}` tells the commands")
    raise typer.Exit(summary.exit_code)
