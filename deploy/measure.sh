#!/usr/bin/env bash
# Makes the figures of docs/results from nothing: deploy/measure.sh RECIPE [DATA], deploy/measure.sh bench DATA
# A recipe: trains, exports, evaluates, writes docs/results/RECIPE.json, and puts the bundle where it ships.
# bench: times the shipped bundles, and a wide ResNet on GTSRB that is trained for one epoch only to be timed.
set -eu
cd "$(dirname "$0")/.."
recipe=${1:?expected a recipe, such as digits or mnist, or bench}
[ -z "${2:-}" ] || export ADVSENTRY_DATA=$2
train=.venv/bin/advsentry-train

if [ "$recipe" = bench ]; then
  OMP_NUM_THREADS=1 $train fit digits --out runs/gtsrb-bench data.set=gtsrb32 data.train=3000 data.fit=6000 \
    data.calibration=150 data.fusion=150 model.name=wide_resnet model.width=2 model.depth=10 model.embedding_dim=0 \
    train.epochs=1 attack.eps=8/255
  OMP_NUM_THREADS=1 $train export runs/gtsrb-bench --out bundles/gtsrb-bench --force
  exec .venv/bin/python -m deploy.bench --bundle digits --bundle mnist --bundle bundles/gtsrb-bench \
    --result docs/results/bench.json
fi

export OMP_NUM_THREADS=1
$train fit "$recipe" --out "runs/$recipe"
$train export "runs/$recipe" --out "bundles/$recipe" --force
$train evaluate "bundles/$recipe" --run "runs/$recipe" --out "reports/$recipe" --publish --result "docs/results/$recipe.json"
mkdir -p service/bundles
rm -rf "service/bundles/$recipe"
cp -r "bundles/$recipe" "service/bundles/$recipe"
