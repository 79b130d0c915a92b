"""A command in the place of cetpick: notes how it was called, and leaves known results at once.

In the folder STUB it finds what to pick (picks.csv) and notes its calls (calls.jsonl). It fails for a tomogram when a
file fail_<name> is there, and in training when fail_train is.
"""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path


def main():
    folder = Path(os.environ["STUB"])
    command, *words = sys.argv[1:]
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
    with (folder / "calls.jsonl").open("a") as file:
        file.write(json.dumps({"command": command, "words": words, "gpus": gpus}) + "\n")
    output = Path(words[words.index("--output") + 1])
    name = Path(words[0]).stem
    record = {"device": "stub", "seconds": {"total": 0}, "warnings": [], "model": {"classes": [{"diameter": 210.0}]}}
    if command == "train":
        if (folder / "fail_train").exists():
            output.with_name("model.checkpoint").write_text("state")
            sys.exit("stub: fails in training")
        output.write_text(" ".join(words))  # other settings, another model
        record["training"] = {"labels": {name: 2}}
        output.with_name("model.run.json").write_text(json.dumps(record))
        return
    if (folder / f"fail_{name}").exists():
        print(f"stub: fails for {name}", file=sys.stderr)
        sys.exit(2)
    output.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "picks.csv", output / f"{name}.csv")
    model = words[words.index("--model") + 1]
    hashed = {"sha256": hashlib.sha256(Path(model).read_bytes()).hexdigest()}
    record |= {"threshold": 0.5, "tomograms": {name: {}}, "model_file": model, "inputs": {model: hashed}}
    (output / "run.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main()
