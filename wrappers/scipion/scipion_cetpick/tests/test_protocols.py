"""The protocols in a Scipion project, with a stub in the place of cetpick; cetpick's own slow tests run a real one."""

import json
import os
import shlex
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import mrcfile
import numpy as np
from pyworkflow.protocol import MODE_RESUME
from pyworkflow.tests import BaseTest, setupTestProject
from tomo.constants import BOTTOM_LEFT_CORNER, SCIPION
from tomo.objects import SetOfTomograms
from tomo.protocols import ProtImportCoordinates3D, ProtImportTomograms, ProtTomoExtractCoords

from scipion_cetpick import Plugin
from scipion_cetpick.protocols import ProtCetpickPick, ProtCetpickTrain, ProtCetpickTrainPick

SIZE, FINE_SIZE = (40, 30, 20), (81, 61, 41)  # x, y, z
RATE, FINE_RATE = 10.0, 5.0
CLICKS = [(1.0, 2.0, 3.0), (10.5, 11.25, 12.125)]
PICKS = [(1.25, 2.5, 3.75, 0.9), (38.0, 0.0, 19.0, 0.625)]
STUB = f"{shlex.quote(sys.executable)} {shlex.quote(str(Path(__file__).with_name('stub.py')))}"


def following(words, option):
    return words[words.index(option) + 1]


class TestCetpick(BaseTest):
    @classmethod
    def setUpClass(cls):
        setupTestProject(cls)
        temporary = TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.data = Path(temporary.name)
        for folder, size, names in (("coarse", SIZE, ("TS_1", "TS_2")), ("fine", FINE_SIZE, ("TS_1",))):
            (cls.data / folder).mkdir()
            for name in names:
                with mrcfile.new(cls.data / folder / f"{name}.mrc") as file:
                    file.set_data(np.zeros(size[::-1], np.float32))  # the header tells no voxel size
            np.savetxt(cls.data / folder / "TS_1.txt", CLICKS, fmt="%g")
        cls.tomograms = cls.imported("coarse", RATE)
        cls.clicks = cls.clicked("coarse", cls.tomograms)

    def setUp(self):
        temporary = TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.stub = Path(temporary.name)
        self.find(PICKS)
        os.environ.update(STUB=str(self.stub), CETPICK_CMD=STUB)

    @classmethod
    def imported(cls, folder, rate):
        protocol = cls.newProtocol(
            ProtImportTomograms, filesPath=str(cls.data / folder), filesPattern="*.mrc", samplingRate=rate
        )
        return cls.launchProtocol(protocol).Tomograms

    @classmethod
    def clicked(cls, folder, tomograms, rate=None):
        protocol = cls.newProtocol(
            ProtImportCoordinates3D, filesPath=str(cls.data / folder), filesPattern="*.txt", samplingRate=rate
        )
        protocol.importTomograms.set(tomograms)
        return cls.launchProtocol(protocol).outputCoordinates

    def protocol(self, kind, tomograms=None, clicks=None, **values):
        protocol = self.newProtocol(kind, **{"useGpu": False, **values})
        if tomograms is not None:
            protocol.inputTomograms.set(tomograms)
        if clicks is not None:
            protocol.inputCoordinates.set(clicks)
            protocol.diameter.set(values.get("diameter", 210.0))
        return protocol

    def goOn(self, protocol):
        protocol.runMode.set(MODE_RESUME)
        return self.launchProtocol(protocol)

    def failing(self, protocol):
        """Launch a protocol that fails; returns its message."""
        with self.assertRaisesRegex(Exception, "execution failed"):
            self.launchProtocol(protocol)
        return protocol.getErrorMessage()

    def find(self, picks):
        """Let the stub find these."""
        rows = "".join(f"{x},{y},{z},{score},particle\n" for x, y, z, score in picks)
        (self.stub / "picks.csv").write_text("x,y,z,score,class\n" + rows)

    def calls(self):
        """How the stub was called since this was asked last."""
        log = self.stub / "calls.jsonl"
        calls = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        log.unlink(missing_ok=True)
        return calls

    def labels(self, protocol):
        return np.loadtxt(protocol._getExtraPath("labels", "TS_1.csv"), delimiter=",", skiprows=1)

    def test_picks_are_coordinates_of_their_tomograms(self):
        protocol = self.launchProtocol(self.protocol(ProtCetpickTrainPick, self.tomograms, self.clicks))
        output = protocol.output3DCoordinates
        self.assertSetSize(output, 4)
        self.assertEqual(output.getSamplingRate(), RATE)
        self.assertEqual(output.getBoxSize(), 32)  # 1.5 x 210 angstrom
        for name in ("TS_1", "TS_2"):
            found = output.iterCoordinates(volume=output.getPrecedents()[{"_tsId": name}])  # one object, ever changing
            for coordinate, (x, y, z, score) in zip(found, PICKS):
                np.testing.assert_allclose(coordinate.getPosition(BOTTOM_LEFT_CORNER), (x, y, z), atol=1e-6)
                np.testing.assert_allclose(coordinate.getPosition(SCIPION), (x - 20, y - 15, z - 10), atol=1e-6)
                self.assertAlmostEqual(coordinate.getScore(), score)

        train, *picks = calls = self.calls()
        self.assertEqual([call["command"] for call in calls], ["train", "pick", "pick"])
        for call in calls:
            self.assertEqual(following(call["words"], "--voxel-size"), "10.0")
            self.assertEqual(following(call["words"], "--device"), "cpu")
        self.assertEqual([Path(call["words"][0]).stem for call in picks], ["TS_1", "TS_2"])
        self.assertEqual(following(train["words"], "--diameter"), "210.0")
        np.testing.assert_allclose(self.labels(protocol), CLICKS, atol=1e-3)

        self.assertEqual(protocol.model.getDiameter(), 210.0)
        self.assertIn("4 particles in 2 tomograms", "\n".join(protocol.summary()))
        self.assertIn("10.1007/978-3-031-19803-8_38", "\n".join(protocol.citations()))
        self.assertIn("cetpick", "\n".join(protocol.methods()))

    def test_train_then_pick_with_its_model_or_the_file(self):
        train = self.launchProtocol(self.protocol(ProtCetpickTrain, clicks=self.clicks, countHint=50, mode=1, seed=3))
        (call,) = self.calls()
        for option, value in (("--count-hint", "50"), ("--mode", "paper"), ("--seed", "3")):
            self.assertEqual(following(call["words"], option), value)
        self.assertIn("2 labels", str(train.model))

        values = {"threshold": 0.25, "top": 7, "boxSize": 24, "pickOptions": "--names 'file'"}
        pick = self.protocol(ProtCetpickPick, self.tomograms, **values)
        pick.inputModel.set(train.model)
        self.launchProtocol(pick)
        self.assertSetSize(pick.output3DCoordinates, 4)
        self.assertEqual(pick.output3DCoordinates.getBoxSize(), 24)
        words = self.calls()[0]["words"]
        for option, value in (("--threshold", "0.25"), ("--top", "7"), ("--names", "file")):
            self.assertEqual(following(words, option), value)
        self.assertEqual(following(words, "--model"), train.model.getFileName())

        file = str(Path(train.model.getFileName()).resolve())
        pick = self.launchProtocol(self.protocol(ProtCetpickPick, self.tomograms, modelFrom=1, modelFile=file))
        self.assertSetSize(pick.output3DCoordinates, 4)
        self.assertEqual(following(self.calls()[0]["words"], "--model"), file)

    def test_clicks_imported_at_another_sampling_rate(self):
        clicks = self.clicked("coarse", self.tomograms, rate=FINE_RATE)  # the import scales them to the tomograms
        protocol = self.launchProtocol(self.protocol(ProtCetpickTrain, clicks=clicks))
        np.testing.assert_allclose(self.labels(protocol), np.array(CLICKS) / 2, atol=1e-3)

    def test_clicks_on_tomograms_at_another_sampling_rate(self):
        clicks = self.clicked("fine", self.imported("fine", FINE_RATE))
        protocol = self.launchProtocol(self.protocol(ProtCetpickTrainPick, self.tomograms, clicks))
        middle, fine_middle = np.array(SIZE) / 2, np.array(FINE_SIZE) / 2
        np.testing.assert_allclose(self.labels(protocol), (CLICKS - fine_middle) / 2 + middle, atol=1e-3)
        self.assertEqual(following(self.calls()[0]["words"], "--voxel-size"), "10.0")

        own = self.newProtocol(ProtTomoExtractCoords)  # Scipion's own conversion
        own.inputSubTomos.set(clicks)
        own.inputTomos.set(self.tomograms)
        positions = [
            own.extractCoordFromItem(click, 10, FINE_RATE / RATE, 1).getPosition(BOTTOM_LEFT_CORNER)
            for click in clicks.iterCoordinates()
        ]
        np.testing.assert_allclose(self.labels(protocol), positions, atol=1e-3)

    def test_failed_tomograms_and_changed_settings_are_repeated_and_nothing_else(self):
        (self.stub / "fail_TS_1").touch()
        protocol = self.protocol(ProtCetpickTrainPick, self.tomograms, self.clicks)
        self.assertIn("1 of 2 tomograms could not be picked: TS_1 (exit code 2)", self.failing(protocol))
        self.assertSetSize(protocol.output3DCoordinates, 2)  # those of the other one
        self.assertIn("failed: TS_1", "\n".join(protocol.summary()))
        self.assertEqual([call["command"] for call in self.calls()], ["train", "pick", "pick"])

        (self.stub / "fail_TS_1").unlink()
        self.goOn(protocol)
        self.assertSetSize(protocol.output3DCoordinates, 4)
        self.assertEqual(sorted(protocol.output3DCoordinates.getTSIds()), ["TS_1", "TS_2"])
        (call,) = self.calls()
        self.assertEqual(Path(call["words"][0]).stem, "TS_1")
        self.assertIn("--overwrite", call["words"])  # begun anew
        self.assertNotIn("failed", "\n".join(protocol.summary()))

        self.find(PICKS[:1])
        for name, value, commands, anew in (
            ("threshold", 0.1, ["pick", "pick"], 0),  # what was found is cut again
            ("diameter", 180.0, ["train", "pick", "pick"], 2),
        ):
            getattr(protocol, name).set(value)
            self.goOn(protocol)
            calls = self.calls()
            self.assertEqual([call["command"] for call in calls], commands)
            self.assertEqual(sum("--overwrite" in call["words"] for call in calls if call["command"] == "pick"), anew)
            self.assertSetSize(protocol.output3DCoordinates, 2)

    def test_a_stopped_training_goes_on_unless_its_settings_changed(self):
        (self.stub / "fail_train").touch()
        protocol = self.protocol(ProtCetpickTrain, clicks=self.clicks)
        self.assertIn("exit status 1", self.failing(protocol))
        checkpoint = Path(protocol._getExtraPath("model.checkpoint"))
        self.assertTrue(checkpoint.exists())
        (self.stub / "fail_train").unlink()
        self.goOn(protocol)
        self.assertIn("--resume", self.calls()[-1]["words"])
        self.assertTrue(checkpoint.exists())  # for the --resume; the stub does not remove it
        protocol.seed.set(1)
        self.goOn(protocol)
        self.assertFalse(checkpoint.exists())

    def test_a_command_that_fails_is_a_failed_protocol(self):
        for command, message in (
            ("/bin/false", "exit status 1"),
            ("/bin/true", "model.run.json"),  # nothing is there though all is well, as after a failed job of a queue
            ("/not/there/cetpick", "cetpick was not found: CETPICK_CMD is '/not/there/cetpick'"),
        ):
            os.environ["CETPICK_CMD"] = command
            self.assertIn(message, self.failing(self.protocol(ProtCetpickTrainPick, self.tomograms, self.clicks)))

    def test_no_particle_at_all_is_an_error(self):
        self.find([])
        protocol = self.protocol(ProtCetpickTrainPick, self.tomograms, self.clicks)
        self.assertIn("No particle was found", self.failing(protocol))
        self.assertFalse(protocol.hasAttribute("output3DCoordinates"))

    def test_gpus(self):
        values = {"useGpu": True, "gpuList": "1 3"}
        self.launchProtocol(self.protocol(ProtCetpickTrainPick, self.tomograms, self.clicks, **values))
        calls = self.calls()
        self.assertEqual([call["gpus"] for call in calls], ["1", "1", "1"])  # one after another
        self.assertEqual({following(call["words"], "--device") for call in calls}, {"cuda"})

        values.update(numberOfThreads=3, binThreads=6)
        self.launchProtocol(self.protocol(ProtCetpickTrainPick, self.tomograms, self.clicks, **values))
        train, *picks = self.calls()
        self.assertEqual(train["gpus"], "1")
        self.assertEqual({call["gpus"] for call in picks}, {"1", "3"})  # at the same time
        self.assertEqual(following(train["words"], "--threads"), "6")

    def test_validation(self):
        self.addCleanup(Plugin._vars.update, CETPICK_CMD=Plugin.getCommand())
        Plugin._vars["CETPICK_CMD"] = STUB
        good = self.protocol(ProtCetpickTrainPick, self.tomograms, self.clicks)
        self.assertEqual(good.validate(), [])
        self.assertEqual(self.protocol(ProtCetpickTrain, clicks=self.clicks).validate(), [])
        for protocol, message in (
            (self.protocol(ProtCetpickTrainPick), "Tomograms to pick* cannot be EMPTY"),
            (self.protocol(ProtCetpickTrain), "Coordinates to train on* cannot be EMPTY"),
            (self.protocol(ProtCetpickTrain, clicks=self.clicks, diameter=None), "Particle diameter"),
            (self.protocol(ProtCetpickTrain, clicks=self.clicks, trainOptions="--output x"), "--output is set by"),
            (self.protocol(ProtCetpickTrain, clicks=self.clicks, trainOptions="'"), "No closing quotation"),
            (self.protocol(ProtCetpickPick, self.tomograms), "Model* cannot be EMPTY"),
            (self.protocol(ProtCetpickPick, self.tomograms, modelFrom=1, modelFile="m"), "no model file m"),
        ):
            errors = "\n".join(protocol.validate())
            self.assertIn(message, errors)
            self.assertNotIn("Protocol validation failed", errors)  # Scipion's words for a bug in it

        others = SetOfTomograms(filename=str(self.data / "others.sqlite"))
        others.setSamplingRate(RATE)
        for name in ("other", "other"):
            tomogram = self.tomograms.getFirstItem().clone()
            tomogram.cleanObjId()
            tomogram.setTsId(name)
            others.append(tomogram)
            good.trainTomograms.set(others)
            message = "coordinates is in a tomogram to train on: the coordinates are in TS_1, the tomograms are other"
            self.assertIn(message if others.getSize() == 1 else "no two the same", "\n".join(good.validate()))

        Plugin._vars["CETPICK_CMD"] = "nosuchcetpick"
        self.assertIn("cetpick was not found", "\n".join(good.validate()))


del BaseTest  # or unittest runs it, too
