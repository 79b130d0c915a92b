"""What the protocols share: their parameters, how they call cetpick, and what they make of its results."""

import math
import shlex
from pathlib import Path
from subprocess import CalledProcessError

from pwem.protocols import EMProtocol
from pyworkflow import BETA
from pyworkflow.exceptions import PyworkflowException
from pyworkflow.protocol import STEPS_PARALLEL, params
from pyworkflow.utils import cleanPath
from tomo.objects import SetOfCoordinates3D

from .. import Plugin, convert
from ..objects import CetpickModel

MODEL, RECORD = "model.safetensors", "run.json"
TRAINING_FILES = (MODEL, "model.run.json", "model.report.html", "model.checkpoint")
COORDINATES = "output3DCoordinates"
TRAINED = "model"
SET_BY_FORM = {"--output", "-o", "--model", "-m", "--labels", "-l", "--train", "--voxel-size", "--diameter", "-d"}


class CetpickProtocol(EMProtocol):
    """Base of the protocols. A subclass trains, picks, or does both."""

    _devStatus = BETA
    stepsExecutionMode = STEPS_PARALLEL

    # --------------------------- parameters ---------------------------------
    def _defineComputing(self, form):
        form.addHidden(
            params.USE_GPU, params.BooleanParam, default=True, label="Use GPU?",
            help="No: compute on the CPU. Yes without a GPU that cetpick sees is an error, not a slow run.",
        )  # fmt: skip
        form.addHidden(
            params.GPU_LIST, params.StringParam, default="0", label="GPU IDs",
            help="Numbers, e.g. `0 1`. A command of cetpick uses one GPU. Several tomograms are picked at once, each "
            "on its own GPU, when there are also more Scipion threads than GPUs.",
        )  # fmt: skip
        form.addParallelSection(threads=1, mpi=0, binThreads=4, binThreadsHelp="CPU threads of each cetpick that runs.")

    def _defineTomograms(self, form):
        form.addParam(
            "inputTomograms", params.PointerParam, pointerClass="SetOfTomograms", important=True,
            label="Tomograms to pick", help="All of them are picked, each in a step of its own.",
        )  # fmt: skip

    def _defineTraining(self, form, tomogramsHelp):
        form.addParam(
            "inputCoordinates", params.PointerParam, pointerClass="SetOfCoordinates3D", important=True,
            label="Coordinates to train on",
            help="Centres of 20 to 50 particles in one tomogram or in a few. All have to be particles; what was not "
            "clicked is not taken for background. They may be at another sampling rate than the tomograms.",
        )  # fmt: skip
        form.addParam(
            "trainTomograms", params.PointerParam, pointerClass="SetOfTomograms", allowsNull=True,
            label="Tomograms to train on (opt.)",
            help=f"{tomogramsHelp} Coordinates belong to the tomogram with the same tsId.",
        )  # fmt: skip
        form.addParam(
            "diameter", params.FloatParam, allowsNull=True, label="Particle diameter (Å)",
            help="Of the sphere that encloses the particle.",
        )  # fmt: skip
        form.addParam(
            "countHint", params.IntParam, allowsNull=True, label="Particles in a tomogram (opt.)",
            expertLevel=params.LEVEL_ADVANCED,
            help="How many there are in a training tomogram, roughly, clicked or not. Estimated when empty.",
        )  # fmt: skip
        form.addParam(
            "mode", params.EnumParam, choices=["default", "paper"], default=0, label="Method",
            expertLevel=params.LEVEL_ADVANCED,
            help="*default*: cetpick's own. *paper*: the published one (Huang et al., ECCV 2022), to compare with.",
        )  # fmt: skip
        form.addParam(
            "seed", params.IntParam, default=0, label="Seed", expertLevel=params.LEVEL_ADVANCED,
            help="Of everything random. The same seed gives the same model.",
        )  # fmt: skip
        form.addParam(
            "trainOptions", params.StringParam, default="", label="More options of `cetpick train`",
            expertLevel=params.LEVEL_ADVANCED,
            help="As on a command line, e.g. `--steps 500`. See `cetpick train --help`.",
        )  # fmt: skip

    def _definePicking(self, form):
        form.addParam(
            "threshold", params.FloatParam, allowsNull=True, label="Threshold (opt.)",
            help="Score, 0 to 1, from which a candidate is a pick. Empty: the one that the training found. Lower gives "
            "more picks and more false ones. All candidates stay in the protocol's folder, under extra/picks.",
        )  # fmt: skip
        form.addParam(
            "top", params.IntParam, allowsNull=True, label="At most (picks a tomogram, opt.)",
            expertLevel=params.LEVEL_ADVANCED, help="The best ones are kept.",
        )  # fmt: skip
        form.addParam(
            "boxSize", params.IntParam, allowsNull=True, label="Box size (px, opt.)",
            help="Of the output coordinates, in voxels of the tomograms. Empty: 1.5 diameters of the particle, even.",
        )  # fmt: skip
        form.addParam(
            "pickOptions", params.StringParam, default="", label="More options of `cetpick pick`",
            expertLevel=params.LEVEL_ADVANCED, help="As on a command line. See `cetpick pick --help`.",
        )  # fmt: skip

    # --------------------------- steps ---------------------------------------
    def _insertTrainingSteps(self):
        """Insert conversion, training and its output; returns what the training depends on, and the last step.

        Scipion repeats a step when its own arguments have changed, and only then. What the training depends on is
        therefore an argument of every step that follows from it, used or not.
        """
        tomograms = convert.byTsId(self._trainingTomograms())
        files = {tsId: convert.tomogramFile(tomograms[tsId]) for tsId in self._labelled() if tsId in tomograms}
        asked = [self.inputCoordinates.get().getObjId(), files, self._trainingWords()]
        last = self._insertFunctionStep(self.convertInputStep, asked, prerequisites=[], needsGPU=False)
        # pyworkflow 3.11.7 loses one of its GPUs when a step with a low number gives its own back. No other step runs
        # while it trains, so it need not book one.
        last = self._insertFunctionStep(self.trainStep, asked, prerequisites=[last], needsGPU=False)
        last = self._insertFunctionStep(self.createModelStep, asked, prerequisites=[last], needsGPU=False)
        return asked, last

    def _insertPickingSteps(self, model, asked, after):
        """Insert a step a tomogram, and one that gathers the picks.

        Args:
            model: path of the model file.
            asked: what the model depends on.
            after: steps to wait for.
        """
        tomograms = self.inputTomograms.get()
        files = {tomogram.getTsId(): convert.tomogramFile(tomogram) for tomogram in tomograms.iterItems()}
        asked = [tomograms.getSamplingRate(), model, self._pickingWords(), asked]
        picks = [
            self._insertFunctionStep(
                self.pickStep, tsId, path, asked, prerequisites=after, needsGPU=self.usesGpu()
            )
            for tsId, path in files.items()
        ]  # fmt: skip
        self._insertFunctionStep(
            self.createCoordinatesStep, self.boxSize.get(), files, asked, prerequisites=picks, needsGPU=False
        )

    def convertInputStep(self, asked):
        """Write the coordinates as label files. A checkpoint of a training of anything else is of no use any more."""
        cleanPath(*(self._getExtraPath(name) for name in TRAINING_FILES), self._getExtraPath("labels"))
        _, files, _ = asked
        tomograms = convert.byTsId(self._trainingTomograms())
        for tsId, path in files.items():
            convert.linkTomogram(path, self._getExtraPath("training"), tsId)
            positions = convert.coordinatesOf(self.inputCoordinates.get(), tomograms[tsId])
            count = convert.writeLabels(self._labels(tsId), positions)
            self.info(f"{tsId}: {count} coordinates to train on")

    def trainStep(self, asked):
        """Train; a training that was stopped goes on where its last checkpoint is."""
        _, files, words = asked
        links = [convert.linkTomogram(path, self._getExtraPath("training"), tsId) for tsId, path in files.items()]
        labels = [word for tsId in files for word in ("--labels", self._labels(tsId))]
        rate = self._trainingTomograms().getSamplingRate()
        model = self._getExtraPath(MODEL)
        self._cetpick(
            "train", *links, *labels, "--voxel-size", repr(rate), "--output", model, "--resume", "--overwrite", *words
        )
        self._trainingRecord()  # a queue does not tell that its job failed
        return [model]

    def pickStep(self, tsId, path, asked):
        """Pick one tomogram. When that fails, the others are picked all the same, and the last step tells."""
        rate, model, words, _ = asked
        failure = self._failure(tsId)
        failure.unlink(missing_ok=True)
        folder = Path(self._getExtraPath("picks", tsId))
        link = convert.linkTomogram(path, self._getExtraPath("tomograms"), tsId)
        record = folder / RECORD
        before = record.stat().st_mtime_ns if record.exists() else None
        # the candidates that lie there are cut again, which takes no time, unless they are of another model
        anew = [] if convert.pickedWith(record, model) else ["--overwrite"]
        rate = ["--voxel-size", repr(rate)]
        try:
            self._cetpick("pick", link, "--model", model, *rate, "--output", str(folder), *anew, *words)
            if record.stat().st_mtime_ns == before:
                raise ValueError("cetpick did not end")  # a queue does not tell that its job failed
            return [self._picks(tsId)]
        except (CalledProcessError, OSError, ValueError) as error:
            record.unlink(missing_ok=True)  # Continue begins anew
            reason = f"exit code {error.returncode}" if isinstance(error, CalledProcessError) else str(error)
            failure.parent.mkdir(exist_ok=True)
            failure.write_text(reason)
            # Scipion repeats a step whose files are gone: the last step removes this one, so that Continue tries again
            return [str(failure)]

    def createModelStep(self, asked):  # noqa: ARG002
        """The trained model as an output."""
        record = self._trainingRecord()
        model = CetpickModel(self._getExtraPath(MODEL))
        labels = record["training"]["labels"]
        model.setTraining(record["model"]["classes"][0]["diameter"], self._trainingTomograms().getSamplingRate(),
                          sum(labels.values()))  # fmt: skip
        self._replaceOutput(TRAINED, model)
        self._defineSourceRelation(self.inputCoordinates, model)
        self._tell("trained", self._trainingSummary(record))

    def createCoordinatesStep(self, boxSize, files, asked):  # noqa: ARG002
        """The picks of all tomograms as coordinates.

        Raises:
            PyworkflowException: some tomograms could not be picked, or nothing was found.
        """
        tomograms = self.inputTomograms.get()
        failed, records = {}, {}
        output = SetOfCoordinates3D.create(self._getPath())
        output.setPrecedents(self.inputTomograms)
        output.setSamplingRate(tomograms.getSamplingRate())
        for tomogram in tomograms.iterItems():
            tsId = tomogram.getTsId()
            failure = self._failure(tsId)
            if failure.exists():
                failed[tsId] = failure.read_text()
                failure.unlink()
                continue
            records[tsId] = convert.readRecord(self._getExtraPath("picks", tsId, RECORD))
            for coordinate in convert.readPicks(self._picks(tsId), tomogram):
                output.append(coordinate)
        if records and output.getSize():
            diameter = next(iter(records.values()))["model"]["classes"][0]["diameter"]
            output.setBoxSize(boxSize or boxFor(diameter, tomograms.getSamplingRate()))
            self._replaceOutput(COORDINATES, output)
            self._defineSourceRelation(self.inputTomograms, output)
        self._tell("picked", self._pickingSummary(records, output, failed))
        if failed:
            listed = ", ".join(f"{tsId} ({reason})" for tsId, reason in failed.items())
            raise PyworkflowException(
                f"{len(failed)} of {tomograms.getSize()} tomograms could not be picked: {listed}. The reasons are in "
                "the log (run.stderr). The others are in the output; Continue tries only the failed ones again."
            )
        if not output.getSize():
            raise PyworkflowException(
                "No particle was found in any tomogram. Set a lower threshold and Continue; the candidates are in "
                f"{self._getExtraPath('picks')}."
            )

    # --------------------------- calling cetpick -----------------------------
    def _cetpick(self, command, *words):
        """Run a command of cetpick in the project's folder."""
        device = "cuda" if self.usesGpu() else "cpu"
        words = [*words, "--device", device, "--threads", str(self.binThreads.get())]
        self.runJob(Plugin.getCommand(), shlex.join([command, *words]), env=self._environment())

    def _environment(self):
        """The plugin's environment with the GPU of this step, so that cetpick's only one is the right one."""
        environ = Plugin.getEnviron()
        if self.usesGpu():
            gpu = str((self._stepsExecutor.getGpuList() or self._stepsExecutor.gpuList or [0])[0])
            given = environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
            # in a queue, Scipion counts those GPUs that the queue has given
            chosen = given[int(gpu)] if self.useQueue() and int(gpu) < len(given) and all(given) else gpu
            environ["CUDA_VISIBLE_DEVICES"] = chosen
        return environ

    def _trainingWords(self):
        words = ["--diameter", repr(self.diameter.get()), "--mode", self.getEnumText("mode")]
        words += ["--seed", str(self.seed.get())]
        if self.countHint.get() is not None:
            words += ["--count-hint", str(self.countHint.get())]
        return words + shlex.split(self.trainOptions.get() or "")

    def _pickingWords(self):
        words = []
        if self.threshold.get() is not None:
            words += ["--threshold", repr(self.threshold.get())]
        if self.top.get() is not None:
            words += ["--top", str(self.top.get())]
        return words + shlex.split(self.pickOptions.get() or "")

    # --------------------------- files and inputs ----------------------------
    def _trainingTomograms(self):
        """The tomograms to train on, when they are not named: those to pick, else those that were clicked in."""
        return self.trainTomograms.get() or self._trainingDefault()

    def _trainingDefault(self):
        return self.inputCoordinates.get().getPrecedents()

    def _labelled(self):
        """The tsIds of the coordinates, in order."""
        return sorted(tsId for tsId in self.inputCoordinates.get().getTSIds() if tsId)

    def _labels(self, tsId):
        return self._getExtraPath("labels", f"{tsId}.csv")

    def _picks(self, tsId):
        """The table of a tomogram's picks; cetpick tells what it called it."""
        folder = self._getExtraPath("picks", tsId)
        (name,) = convert.readRecord(Path(folder, RECORD))["tomograms"]
        return str(Path(folder, f"{name}.csv"))

    def _failure(self, tsId):
        """Where it is noted that a tomogram could not be picked."""
        return Path(self._getExtraPath("failed", f"{tsId}.txt"))

    def _trainingRecord(self):
        return convert.readRecord(self._getExtraPath("model.run.json"))

    def _replaceOutput(self, name, value):
        if self.hasAttribute(name):
            self.deleteOutput(getattr(self, name))
        self._defineOutputs(**{name: value})

    # --------------------------- information ---------------------------------
    def _validateTraining(self):
        errors = self._optionErrors(self.trainOptions)
        if not (self.diameter.get() or 0) > 0:  # Scipion's own check for this fails when there is no value
            errors.append("*Particle diameter (Å)* has to be given, in angstrom.")
        coordinates = self.inputCoordinates.get()
        tomograms = self._trainingTomograms() if coordinates else None
        if not tomograms:
            return errors  # Scipion tells of inputs that are empty
        labelled = self._labelled()
        if not labelled:
            errors.append("The coordinates name no tomogram (tsId).")
        elif not coordinates.getSamplingRate():
            errors.append("The coordinates have no sampling rate.")
        elif not convert.uniqueTsIds(tomograms):
            errors.append("Tomograms to train on need a tsId each, and no two the same.")
        elif not set(labelled) & set(tomograms.getTSIds()):
            errors.append(
                f"None of the coordinates is in a tomogram to train on: the coordinates are in {few(labelled)}, the "
                f"tomograms are {few(tomograms.getTSIds())} (tsId)."
            )
        return errors

    def _validatePicking(self):
        errors = self._optionErrors(self.pickOptions)
        tomograms = self.inputTomograms.get()
        if tomograms and not convert.uniqueTsIds(tomograms):
            errors.append("Tomograms to pick need a tsId each, and no two the same.")
        return errors

    def _optionErrors(self, param):
        try:
            words = {word.split("=")[0] for word in shlex.split(param.get() or "")}
        except ValueError as error:
            return [f"More options: {error}."]
        return [f"More options: {word} is set by the form." for word in sorted(words & SET_BY_FORM)]

    def _tell(self, what, lines):
        """Keep lines for the summary, in the place of what this step told before."""
        told = [line for line in self.summaryVar.get("").splitlines() if not line.startswith(f"*{what}*")]
        self.summaryVar.set("\n".join(told + [f"*{what}* {line}" for line in lines]))
        self._store(self.summaryVar)

    def _trainingSummary(self, record):
        labels = ", ".join(f"{count} in {tsId}" for tsId, count in record["training"]["labels"].items())
        missing = sorted(set(self._labelled()) - set(self._trainingTomograms().getTSIds()))
        lines = [f"on {labels}; {record['device']}, {record['seconds']['total']:.0f} s"]
        if missing:
            lines.append(f"without coordinates in {few(missing)}, which are not among the tomograms to train on")
        return lines + [f"warning: {warning}" for warning in record["warnings"]]

    def _pickingSummary(self, records, output, failed):
        lines = []
        if records:
            device, threshold = ({record[key] for record in records.values()} for key in ("device", "threshold"))
            lines.append(
                f"{output.getSize()} particles in {len(records)} tomograms, threshold "
                f"{', '.join(f'{value:.3g}' for value in sorted(threshold))}; {', '.join(sorted(device))}"
            )
        if failed:
            lines.append(f"failed: {few(failed)}")
        warnings = [warning for record in records.values() for warning in record["warnings"]]
        return lines + [f"warning: {warning}" for warning in warnings]

    def _summary(self):
        return self.summaryVar.get("").splitlines() or ["No results yet."]

    def _methods(self):
        if not self.isFinished():
            return []
        return [
            "Particles were picked with cetpick, which learns particle centres from a few labels and takes everything "
            "not labelled for unknown (after Huang et al., ECCV 2022)."
        ]


def boxFor(diameter, samplingRate):
    """Box size in voxels: 1.5 diameters (angstrom), even."""
    return 2 * math.ceil(1.5 * diameter / samplingRate / 2)


def few(names):
    """The first few of many names."""
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
