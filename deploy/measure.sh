#!/usr/bin/env bash
# Makes the shipped bundles and their figures from nothing: deploy/measure.sh BUNDLE [DATA [options of evaluate ...]]
# A bundle (digits, mnist, gtsrb): trains its recipe, exports, evaluates, writes docs/results/BUNDLE.json, and puts the
# bundle where it ships; a run that deploy/robustness.sh has made already is not trained again.
# gtsrb-int8, and so on: the same of the shipped bundle's run in 8 bits, and for gtsrb also docs/results/int8.json, what that
# gains and loses; the run must be there.
# bench: times the shipped bundles, and a wide ResNet on GTSRB that is trained for one epoch only to be timed.
set -eu
cd "$(dirname "$0")/.."
bundle=${1:?expected a bundle, such as digits, mnist, gtsrb or gtsrb-int8, or bench}
[ -z "${2:-}" ] || export ADVSENTRY_DATA=$2
shift $(($# < 2 ? $# : 2))
train=.venv/bin/advsentry-train

if [ "$bundle" = bench ]; then
  OMP_NUM_THREADS=1 $train fit digits --out runs/gtsrb-bench data.set=gtsrb32 data.train=3000 data.fit=6000 \
    data.calibration=150 data.fusion=150 model.name=wide_resnet model.width=3 model.depth=10 model.embedding_dim=0 \
    train.epochs=1 attack.eps=8/255
  OMP_NUM_THREADS=1 $train export runs/gtsrb-bench --out bundles/gtsrb-bench --force
  exec .venv/bin/python -m deploy.bench --bundle digits --bundle mnist --bundle bundles/gtsrb-bench \
    --result docs/results/bench.json
fi

exact=${bundle%-int8}
case $exact in
  mnist) recipe=mnist-tla ;;
  *) recipe=$exact ;;
esac
run=runs/$recipe-s0
export OMP_NUM_THREADS=1
if [ "$bundle" = "$exact" ]; then
  $train fit "$recipe" --out "$run" train.seed=0
  $train export "$run" --out "bundles/$bundle" --force
else
  $train export "$run" --out "bundles/$bundle" --int8 --like "service/bundles/$exact" --force
fi
[ "$bundle" != gtsrb-int8 ] || .venv/bin/python -m deploy.int8_check "service/bundles/$exact" "bundles/$bundle" \
  --run "$run" --result docs/results/int8.json
$train evaluate "bundles/$bundle" --run "$run" --out "reports/$bundle" --publish \
  --result "docs/results/$bundle.json" "$@"
mkdir -p service/bundles
rm -rf "service/bundles/$bundle"
cp -r "bundles/$bundle" "service/bundles/$bundle"
