import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_lower_layers_never_import_higher_ones() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert "1 kept, 0 broken" in run.stdout
