from .protocol_pick import ProtCetpickPick
from .protocol_train import ProtCetpickTrain
from .protocol_train_pick import ProtCetpickTrainPick

__all__ = ["ProtCetpickPick", "ProtCetpickTrain", "ProtCetpickTrainPick"]
