#!/usr/bin/env bash
# Makes every published figure of the training methods from nothing: deploy/methods.sh DATA
# Some ten hours of one core; results that are there already are left alone.
set -eu
cd "$(dirname "$0")/.."
data=${1:?expected the folder of the data}
signs=(-- --images 700 --restarts 2 --queries 500 --attacks "fgsm,pgd_20,pgd_100,pgd_100_150,margin_pgd,aa_like")
digits=(-- --images 1000 --restarts 20 --queries 1000 --attacks "fgsm,pgd_20,pgd_100,pgd_100_150,aa_like")

sign() { # NAME RECIPE SEED [key=value ...]
  deploy/robustness.sh "gtsrb-$1" "gtsrb-$2" "$3" "$data" "${@:4}" "${signs[@]}"
}

# Logit pairing stands in SAR's place, as strong as it: docs/training.md has the weights, for l2 with the r that SAR and TLA
# leave, logit_spectral_gap of gtsrb-tla-sar over 316, SAR's term at r = 1. at-ema tells what averaging gives alone.
for seed in 0 1 2; do
  for method in at tla sar tla-sar; do sign "$method" "$method" "$seed"; done
  for method in at tla tla-sar; do sign "$method-eps4" "$method" "$seed" attack.eps=4/255; done
  sign at-ema sar "$seed" sar.weight=0
  sign l1-pairing sar "$seed" sar.weight=0 pairing.weight=0.0092 pairing.distance=l1
  sign l2-pairing sar "$seed" sar.weight=0 pairing.weight=0.0139 pairing.distance=l2
  sign awp at "$seed" awp.weight=0.01
  sign trades at "$seed" trades.weight=6 attack.name=pgd attack.loss=kl attack.steps=3 attack.step=4/255 attack.guard=false
done
sign natural at 0 attack.name=none attack.guard=false

for method in at tla tla-sar; do
  deploy/robustness.sh "mnist-$method" "mnist-$method" 0 "$data" "${digits[@]}"
done

# What the papers say of spectra, kernels and distances, of the runs above.
[ -e docs/results/gtsrb-analysis.json ] || OMP_NUM_THREADS=1 .venv/bin/advsentry-train analyse \
  runs/gtsrb-natural-s0 runs/gtsrb-at-s{0,1,2} runs/gtsrb-tla-sar-s{0,1,2} --data "$data" --out reports/gtsrb-analysis \
  --result docs/results/gtsrb-analysis.json

# Whether kernels stay rough because the first convolution skips every other pixel: short runs with and without.
for stride in 1 2; do
  for method in natural at; do
    none=(); [ "$method" = at ] || none=(attack.name=none attack.guard=false)
    [ -e docs/results/gtsrb-stem-analysis.json ] || OMP_NUM_THREADS=1 .venv/bin/advsentry-train fit gtsrb-at --data "$data" \
      --out "runs/gtsrb-stem$stride-$method" train.epochs=6 "model.stem_stride=$stride" "${none[@]}"
  done
done
[ -e docs/results/gtsrb-stem-analysis.json ] || OMP_NUM_THREADS=1 .venv/bin/advsentry-train analyse \
  runs/gtsrb-stem{1,2}-{natural,at} --data "$data" --out reports/gtsrb-stem-analysis \
  --result docs/results/gtsrb-stem-analysis.json
