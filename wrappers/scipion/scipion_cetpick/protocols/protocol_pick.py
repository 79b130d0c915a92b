from pathlib import Path

from pyworkflow.protocol import params
from tomo.objects import SetOfCoordinates3D

from .protocol_base import COORDINATES, CetpickProtocol

FROM_PROTOCOL, FROM_FILE = 0, 1


class ProtCetpickPick(CetpickProtocol):
    """Pick particles in tomograms with a trained model of cetpick.

    Each tomogram is a step: Continue picks what is missing. Scores are kept with the coordinates.
    """

    _label = "pick"
    _possibleOutputs = {COORDINATES: SetOfCoordinates3D}

    def _defineParams(self, form):
        form.addSection(label="Input")
        self._defineTomograms(form)
        form.addParam(
            "modelFrom", params.EnumParam, choices=["protocol", "file"], default=FROM_PROTOCOL, label="Model from",
            display=params.EnumParam.DISPLAY_HLIST, help="An output of 'train' or 'train and pick', or a file.",
        )  # fmt: skip
        form.addParam(
            "inputModel", params.PointerParam, pointerClass="CetpickModel", condition=f"modelFrom == {FROM_PROTOCOL}",
            allowsNull=True, important=True, label="Model", help="Output of 'train' or 'train and pick'.",
        )  # fmt: skip
        form.addParam(
            "modelFile", params.FileParam, condition=f"modelFrom == {FROM_FILE}", allowsNull=True, label="Model file",
            help="A `.safetensors` file that cetpick has trained, here or elsewhere.",
        )  # fmt: skip
        self._definePicking(form)
        self._defineComputing(form)

    def _insertAllSteps(self):
        model = self.inputModel.get()
        asked = model.getObjId() if self.modelFrom == FROM_PROTOCOL else Path(self.modelFile.get()).stat().st_mtime
        self._insertPickingSteps(self._modelFile(), asked, after=[])

    def _modelFile(self):
        """Path of the model, None when there is none."""
        if self.modelFrom == FROM_FILE:
            return self.modelFile.get()
        return self.inputModel.get().getFileName() if self.inputModel.get() else None

    def _validate(self):
        model = self._modelFile()
        if not model:
            return ["*Model* cannot be EMPTY."]
        missing = [] if Path(model).is_file() else [f"There is no model file {model}."]
        return missing + self._validatePicking()
