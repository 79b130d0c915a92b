#!/usr/bin/env python
"""Tomograms and clicked coordinates in, picks out: a Scipion project without a window. See docs/scipion.md."""

import argparse
import sys
from pathlib import Path

from pyworkflow.project import Manager
from tomo.protocols import ProtImportCoordinates3D, ProtImportTomograms

from scipion_cetpick.protocols import ProtCetpickTrainPick


def run(project, protocol):
    """Run a protocol to its end; the program ends when it fails."""
    project.launchProtocol(protocol, wait=True)
    protocol = project.getProtocol(protocol.getObjId())
    print(f"{protocol.getRunName()}: {protocol.getStatus()}")
    for line in protocol.summary():
        print(f"    {line}")
    if not protocol.isFinished():
        sys.exit(f"{protocol.getErrorMessage()}\nThe logs are in {Path(protocol._getLogsPath()).absolute()}")
    return protocol


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", help="name of the new project")
    parser.add_argument("--tomograms", required=True, metavar="FOLDER")
    parser.add_argument("--pattern", default="*.mrc", help="of the tomograms' file names")
    parser.add_argument("--sampling-rate", required=True, type=float, metavar="Å", help="of the tomograms")
    parser.add_argument("--coordinates", required=True, metavar="FOLDER", help="text files `x y z`, named as tomograms")
    parser.add_argument("--coordinates-sampling-rate", type=float, metavar="Å", help="by default the tomograms'")
    parser.add_argument("--diameter", required=True, type=float, metavar="Å", help="of the particle")
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    parser.add_argument("--threads", type=int, default=4, help="CPU threads of cetpick (default: 4)")
    parser.add_argument("--train-options", default="", help="more options of `cetpick train`")
    given = parser.parse_args()
    tomograms, coordinates = (str(Path(folder).absolute()) for folder in (given.tomograms, given.coordinates))

    manager = Manager()
    manager.createProject(given.project)
    project = manager.loadProject(given.project)
    imported = run(
        project,
        project.newProtocol(
            ProtImportTomograms, filesPath=tomograms, filesPattern=given.pattern, samplingRate=given.sampling_rate
        ),
    )
    clicked = project.newProtocol(
        ProtImportCoordinates3D,
        filesPath=coordinates,
        filesPattern="*.txt",
        samplingRate=given.coordinates_sampling_rate,
    )
    clicked.importTomograms.set(imported.Tomograms)
    clicked = run(project, clicked)
    picking = project.newProtocol(
        ProtCetpickTrainPick, diameter=given.diameter, useGpu=not given.cpu, binThreads=given.threads,
        trainOptions=given.train_options,
    )  # fmt: skip
    picking.inputTomograms.set(imported.Tomograms)
    picking.inputCoordinates.set(clicked.outputCoordinates)
    picking = run(project, picking)
    print(f"{picking.output3DCoordinates}\nin {project.getPath()}")


if __name__ == "__main__":
    main()
