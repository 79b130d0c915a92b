"""What passes between the protocols besides Scipion's own objects."""

from pwem.objects import EMFile
from pyworkflow.object import Float, Integer


class CetpickModel(EMFile):
    """A trained model: the file, and of the training the diameter (angstrom), sampling rate and number of labels."""

    def __init__(self, filename=None, **kwargs):
        super().__init__(filename, **kwargs)
        self._diameter = Float()
        self._samplingRate = Float()
        self._labels = Integer()

    def setTraining(self, diameter, samplingRate, labels):
        """Note what it was trained on."""
        self._diameter.set(diameter)
        self._samplingRate.set(samplingRate)
        self._labels.set(labels)

    def getDiameter(self):
        """Of the particle, angstrom."""
        return self._diameter.get()

    def getFiles(self):
        """The model file."""
        return {self.getFileName()}

    def __str__(self):
        return (
            f"CetpickModel (particle of {self._diameter.get():g} Å, {self._labels.get()} labels, "
            f"{self._samplingRate.get():g} Å/px)"
        )
