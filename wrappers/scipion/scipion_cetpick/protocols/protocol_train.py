from ..objects import CetpickModel
from .protocol_base import TRAINED, CetpickProtocol


class ProtCetpickTrain(CetpickProtocol):
    """Train cetpick on a few clicked particles.

    The model is for the protocol 'pick'. 20 to 50 coordinates in one tomogram are enough.
    """

    _label = "train"
    _possibleOutputs = {TRAINED: CetpickModel}

    def _defineParams(self, form):
        form.addSection(label="Input")
        self._defineTraining(form, "Empty: those that the coordinates were picked on.")
        self._defineComputing(form)

    def _insertAllSteps(self):
        self._insertTrainingSteps()

    def _validate(self):
        return self._validateTraining()
