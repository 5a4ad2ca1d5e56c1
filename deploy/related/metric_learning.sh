#!/usr/bin/env bash
# Makes every published figure of robust metric learning from nothing: metric_learning.sh DATA [mnist|gtsrb]
# Runs that are finished and results that are there already are left alone. The two sets may be made side by side.
set -eu
cd "$(dirname "$0")/../.."
export ADVSENTRY_DATA=${1:?expected the folder of the data} OMP_NUM_THREADS=1

train() { # NAME RECIPE [key=value ...]
  for seed in 0 1 2; do
    start=()
    case $1 in gtsrb-metric-*) start=("train.start_from=runs/gtsrb-metric-s$seed") ;; esac
    .venv/bin/advsentry-train fit "$2" --out "runs/$1-s$seed" "train.seed=$seed" "${start[@]}" "${@:3}"
  done
}

for set in ${2:-mnist gtsrb}; do
  [ ! -e "docs/results/$set-retrieval.json" ] || continue
  names=("$set-metric" "$set-metric-robust" "$set-metric-hardness")
  train "$set-metric" "$set-metric"
  train "$set-metric-robust" "$set-metric-robust"
  train "$set-metric-hardness" "$set-metric-robust" metric.attack=hardness metric.ics_weight=0.5
  if [ "$set" = mnist ]; then
    names+=("$set-metric-contrastive" "$set-metric-contrastive-robust")
    train "$set-metric-contrastive" "$set-metric" metric.loss=contrastive
    train "$set-metric-contrastive-robust" "$set-metric-robust" metric.loss=contrastive
  fi
  runs=()
  for name in "${names[@]}"; do runs+=("runs/$name-s0" "runs/$name-s1" "runs/$name-s2"); done
  .venv/bin/advsentry-train retrieve "${runs[@]}" --out "docs/results/$set-retrieval.json"
done
