#!/usr/bin/env bash
# Pick every tomogram of a folder with a model. Exit code 1 means: some failed, the others are done.
set -uo pipefail

folder=${1:?folder with tomograms}
model=${2:?model.safetensors}

cetpick pick "$folder"/*.mrc --model "$model" --output "$folder/picks" ${CETPICK_OPTIONS:-}
status=$?
if [ "$status" -gt 1 ]; then
    exit "$status"
fi
if [ "$status" -eq 1 ]; then
    echo "some tomograms failed; see \"failures\" in $folder/picks/run.json" >&2
fi

# Plain x y z text for a program that takes nothing else.
cetpick convert "$folder/picks/particles.star" "$folder/coords" --format coords --overwrite || exit
exit "$status"
