#!/usr/bin/env bash
# Makes every published figure of robust metric learning from nothing: deploy/related/metric_learning.sh DATA
# Runs that are finished and results that are there already are left alone.
set -eu
cd "$(dirname "$0")/../.."
export ADVSENTRY_DATA=${1:?expected the folder of the data} OMP_NUM_THREADS=1

train() { # NAME RECIPE [key=value ...]
  for seed in 0 1 2; do
    .venv/bin/advsentry-train fit "$2" --out "runs/$1-s$seed" "train.seed=$seed" "${@:3}"
  done
}

for set in mnist gtsrb; do
  [ ! -e "docs/results/$set-retrieval.json" ] || continue
  train "$set-metric" "$set-metric"
  train "$set-metric-robust" "$set-metric-robust"
  train "$set-metric-hardness" "$set-metric-robust" metric.attack=hardness metric.ics_weight=0.5
  train "$set-metric-contrastive" "$set-metric" metric.loss=contrastive
  train "$set-metric-contrastive-robust" "$set-metric-robust" metric.loss=contrastive
  .venv/bin/advsentry-train retrieve runs/"$set"-metric{,-robust,-hardness,-contrastive,-contrastive-robust}-s{0,1,2} \
    --out "docs/results/$set-retrieval.json"
done
