#!/usr/bin/env bash
# Trains recipes and measures them under attack: deploy/robustness.sh NAME RECIPE SEED DATA [key=value ...] [-- options]
# Writes runs/NAME-sSEED and docs/results/NAME-sSEED.json; a result that is there already is left alone.
# What stands behind -- goes to `advsentry-train robustness`, such as --restarts 20.
set -eu
cd "$(dirname "$0")/.."
name=${1:?expected a name for the results}-s${3:?expected a seed} recipe=${2:?expected a recipe} seed=$3
export ADVSENTRY_DATA=${4:?expected the folder of the data} OMP_NUM_THREADS=1
shift 4
overrides=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do overrides+=("$1"); shift; done
[ $# -eq 0 ] || shift
[ ! -e "docs/results/$name.json" ] || { echo "docs/results/$name.json is there already" >&2; exit 0; }
.venv/bin/advsentry-train fit "$recipe" --out "runs/$name" "train.seed=$seed" "${overrides[@]}"
.venv/bin/advsentry-train robustness "runs/$name" --out "docs/results/$name.json" "$@"
