#!/usr/bin/env bash
# Makes every published figure of deep pursuit from nothing: deploy/related/deep-pursuit.sh DATA [SEEDS]
# SEEDS: "0 1 2" unless told. Runs, attacked images and results that are there already are left alone.
set -eu
cd "$(dirname "$0")/../.."
export ADVSENTRY_DATA=${1:?expected the folder of the data} OMP_NUM_THREADS=1
seeds=${2:-0 1 2}
runs=() twins=()

train() { # NAME SEED [key=value ...]
  .venv/bin/advsentry-train fit mnist-pursuit --out "runs/mnist-pursuit-$1-s$2" "train.seed=$2" "${@:3}"
  runs+=("runs/mnist-pursuit-$1-s$2")
}

# Every network has the same number of parameters. T = 0 is the feed-forward twin, by whose gradients all are attacked too.
for seed in $seeds; do
  for sweeps in 0 1 2 5 10; do
    train "skips-t$sweeps" "$seed" "model.sweeps=$sweeps"
    train "plain-t$sweeps" "$seed" "model.sweeps=$sweeps" model.skips=false
  done
  for steps in 5 10; do
    train "layered-t$steps" "$seed" "model.sweeps=$steps" model.inference=layered model.skips=false
  done
  twins+=(--transfer "runs/mnist-pursuit-skips-t0-s$seed" --transfer "runs/mnist-pursuit-plain-t0-s$seed")
done
[ -e docs/results/mnist-pursuit.json ] || .venv/bin/advsentry-train curves "${runs[@]}" "${twins[@]}" \
  --out docs/results/mnist-pursuit.json --images 300 --restarts 3 --queries 1000

# With TLA and SAR on attacked images, beside its own feed-forward twin.
for seed in $seeds; do
  for inference in deep feed_forward; do
    deploy/robustness.sh "mnist-pursuit-tla-sar-$inference" mnist-pursuit-tla-sar "$seed" "$ADVSENTRY_DATA" \
      "model.inference=$inference" -- --images 300 --restarts 3 --queries 1000 \
      --attacks fgsm,pgd_20,pgd_100,margin_pgd,aa_like
  done
done
