from tomo.objects import SetOfCoordinates3D

from ..objects import CetpickModel
from .protocol_base import COORDINATES, MODEL, TRAINED, CetpickProtocol


class ProtCetpickTrainPick(CetpickProtocol):
    """Click 20 to 50 particles in one tomogram; cetpick learns from them and picks all tomograms.

    Each tomogram is a step: Continue picks what is missing. Scores are kept with the coordinates, and the model is an
    output that 'pick' takes for more tomograms.
    """

    _label = "train and pick"
    _possibleOutputs = {COORDINATES: SetOfCoordinates3D, TRAINED: CetpickModel}

    def _defineParams(self, form):
        form.addSection(label="Input")
        self._defineTomograms(form)
        self._defineTraining(form, "Empty: those to pick that have coordinates.")
        form.addSection(label="Picking")
        self._definePicking(form)
        self._defineComputing(form)

    def _insertAllSteps(self):
        asked, last = self._insertTrainingSteps()
        self._insertPickingSteps(self._getExtraPath(MODEL), asked, after=[last])

    def _trainingDefault(self):
        return self.inputTomograms.get()

    def _validate(self):
        return self._validateTraining() + self._validatePicking()
