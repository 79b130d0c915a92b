#!/usr/bin/env bash
# Scipion and its plugin of wrappers/scipion, from PyPI, in a virtual environment of its own: its pins are not cetpick's.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=.venv-scipion
wanted=$(cat wrappers/scipion/pyproject.toml wrappers/scipion/constraints.txt)
if [ "$(cat $venv/.installed 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi
"${PYTHON:-python3}" -m venv --clear $venv
$venv/bin/pip install --quiet --disable-pip-version-check --constraint wrappers/scipion/constraints.txt \
    scipion-app --editable wrappers/scipion
printf '%s\n' "$wanted" >$venv/.installed
