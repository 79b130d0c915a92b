#!/usr/bin/env bash
# From about 20 labels in one tomogram to picks in another, and to a score where the truth is known.
set -euo pipefail

folder=${1:?folder with train.mrc, labels/train.mod and test.mrc}
diameter=${2:-210}   # angstrom

# Are the files what they should be?
cetpick info "$folder/train.mrc" "$folder/labels/train.mod"

# Train on one, pick the other. Add more tomograms after test.mrc; only those named there are picked.
cetpick pick "$folder/test.mrc" \
    --train "$folder/train.mrc" --labels "$folder/labels/train.mod" --diameter "$diameter" \
    --output "$folder/picks" ${CETPICK_OPTIONS:-}

# Look at them in IMOD: 3dmod test.mrc picks/test.mod (the scores are the points' values).
# Where the truth is known:
cetpick evaluate "$folder/picks" --truth "$folder/truth"
