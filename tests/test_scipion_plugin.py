"""What can be told of the Scipion plugin without Scipion; tests/slow/test_scipion.py runs it."""

import ast
import json
import sys
from pathlib import Path

PLUGIN = Path(__file__).parent.parent / "wrappers/scipion"
SOURCES = [*PLUGIN.rglob("*.py")]
SCIPION = {"mrcfile", "numpy", "pwem", "pyworkflow", "scipion_cetpick", "tomo"}


def test_imports_nothing_but_scipion() -> None:
    imported = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(), feature_version=(3, 9))):
            if isinstance(node, ast.Import):
                imported |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).split(".")[0])
    assert "pwem" in imported
    assert imported <= SCIPION | sys.stdlib_module_names


def test_every_parameter_has_a_label_and_a_help_text() -> None:
    calls = [
        node
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("addParam", "addHidden")
    ]
    assert len(calls) >= 15
    for call in calls:
        assert {"label", "help"} <= {keyword.arg for keyword in call.keywords}


def test_scipions_tree_names_the_protocols() -> None:
    text = (PLUGIN / "scipion_cetpick/protocols.conf").read_text()
    (section,) = json.loads(text.split("Tomography = ")[1])
    (group,) = section["children"]
    assert {entry["value"] for entry in group["children"]} == {
        "ProtCetpickTrainPick",
        "ProtCetpickTrain",
        "ProtCetpickPick",
    }
