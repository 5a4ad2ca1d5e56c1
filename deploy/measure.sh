#!/usr/bin/env bash
# Makes the figures of docs/results from nothing: deploy/measure.sh RECIPE [DATA]
# Trains, exports, evaluates, writes docs/results/RECIPE.json, and puts the bundle where it ships.
set -eu
cd "$(dirname "$0")/.."
recipe=${1:?expected a recipe, such as digits or mnist}
[ -z "${2:-}" ] || export ADVSENTRY_DATA=$2
export OMP_NUM_THREADS=1
train=.venv/bin/advsentry-train
$train fit "$recipe" --out "runs/$recipe"
$train export "runs/$recipe" --out "bundles/$recipe" --force
$train evaluate "bundles/$recipe" --run "runs/$recipe" --out "reports/$recipe" --publish --result "docs/results/$recipe.json"
mkdir -p service/bundles
rm -rf "service/bundles/$recipe"
cp -r "bundles/$recipe" "service/bundles/$recipe"
