#!/usr/bin/env bash
# Train on train.mrc with 10 % of its particles and the diameter alone, pick val.mrc and val2.mrc, score them.
#   benchmarks/development_sets.sh DATA OUT [cetpick options, for instance --mode paper]
# DATA holds one folder a set: train.mrc, val.mrc, val2.mrc, their *_truth.csv and the labels.
#   SETS    folder:diameter:labels of each set
set -euo pipefail

data=${1:?folder of the sets}
out=${2:?output folder}
shift 2
sets=${SETS:-ribosome_cell:250:train_labels_10pct.mod ribosome_purified:250:train_labels_10pct.mod}

for entry in $sets; do
    IFS=: read -r set diameter labels <<<"$entry"
    start=$SECONDS
    cetpick pick "$data/$set/val.mrc" "$data/$set/val2.mrc" --diameter "$diameter" \
        --train "$data/$set/train.mrc" --labels "$data/$set/$labels" --output "$out/$set" --overwrite --quiet "$@"
    echo "$set: $((SECONDS - start)) s; particles in the training tomogram: $(($(wc -l <"$data/$set/train_truth.csv") - 1))"
    for tomogram in val val2; do
        cetpick evaluate "$out/$set/candidates/$tomogram.csv" --truth "$data/$set/${tomogram}_truth.csv" \
            --tomogram "$data/$set/$tomogram.mrc" --radius 5 --margin 21,21,0
    done
    cetpick evaluate "$out/$set" --truth "$data/$set" --radius 5 --margin 21,21,0
done
