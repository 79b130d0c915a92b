#!/usr/bin/env bash
# Train on train.mrc with 10 % of its particles and the diameter alone, pick val.mrc and val2.mrc, score them.
#   benchmarks/development_sets.sh DATA OUT [cetpick options, for instance --mode paper]
# DATA holds one folder a set: train.mrc, val.mrc, val2.mrc, train_labels_10pct.mod, val_truth.csv, val2_truth.csv.
set -euo pipefail

data=${1:?folder of the sets}
out=${2:?output folder}
shift 2
sets=${SETS:-ribosome_cell:250 ribosome_purified:250}

for entry in $sets; do
    set=${entry%%:*} diameter=${entry##*:}
    /usr/bin/env time -f "$set: %e s wall, %U s user, %M KiB peak" \
        cetpick pick "$data/$set/val.mrc" "$data/$set/val2.mrc" --diameter "$diameter" \
        --train "$data/$set/train.mrc" --labels "$data/$set/${LABELS:-train_labels_10pct.mod}" \
        --output "$out/$set" --overwrite --quiet "$@"
    for tomogram in val val2; do
        echo "$set $tomogram"
        cetpick evaluate "$out/$set/candidates/$tomogram.csv" --truth "$data/$set/${tomogram}_truth.csv" \
            --tomogram "$data/$set/$tomogram.mrc" --radius 5 --margin 21,21,0 \
            --threshold "$(python3 -c "import json,sys; print(json.load(open(sys.argv[1]))['threshold'])" "$out/$set/run.json")"
    done
done
