"""Scipion plugin of cetpick, which it calls as a command: nothing of cetpick is imported here, nor torch."""

import os
import shlex
import shutil

import pwem
from pyworkflow import VarTypes
from pyworkflow.utils import Environ

__version__ = "0.1.0"
_logo = "icon.png"
_references = ["Huang2022"]

CETPICK_CMD = "CETPICK_CMD"


class Plugin(pwem.Plugin):
    """The command that all protocols call, and its environment."""

    _url = ""

    @classmethod
    def _defineVariables(cls):
        cls._defineVar(
            CETPICK_CMD,
            "cetpick",
            description="Command that runs cetpick: its full path, or that of the container's wrapper.",
            var_type=VarTypes.STRING,
        )

    @classmethod
    def getCommand(cls):
        """What to run in the place of `cetpick`, as a shell understands it."""
        return cls.getVar(CETPICK_CMD)

    @classmethod
    def getEnviron(cls):
        """The environment without what points at Scipion's own Python packages."""
        environ = Environ(os.environ)
        for name in ("PYTHONPATH", "PYTHONHOME"):
            environ.pop(name, None)
        return environ

    @classmethod
    def validateInstallation(cls):
        """Messages when the command is not there. One of several words is for the shell to judge, when it runs."""
        words = shlex.split(cls.getCommand() or "")
        if words and (len(words) > 1 or shutil.which(words[0])):
            return []
        return [
            f"cetpick was not found: {CETPICK_CMD} is '{cls.getCommand()}'.",
            f"Set {CETPICK_CMD} in Scipion's configuration to the full path of cetpick in the environment where it is "
            "installed, or of the container's wrapper (wrappers/docker/cetpick).",
        ]

    @classmethod
    def defineBinaries(cls, env):
        """Scipion installs none: cetpick has an environment, or an image, of its own."""
