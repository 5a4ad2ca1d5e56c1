#!/usr/bin/env bash
# Makes every published figure of the training methods from nothing: deploy/methods.sh DATA
# About two hours of one core; results that are there already are left alone.
set -eu
cd "$(dirname "$0")/.."
data=${1:?expected the folder of the data}
signs=(-- --images 700 --restarts 2 --queries 500 --attacks "fgsm,pgd_20,pgd_100,pgd_100_150,margin_pgd,aa_like")
digits=(-- --images 1000 --restarts 20 --queries 1000 --attacks "fgsm,pgd_20,pgd_100,pgd_100_150,aa_like")

for seed in 0 1 2; do
  for method in at tla tla-sar; do
    deploy/robustness.sh "gtsrb-$method" "gtsrb-$method" "$seed" "$data" "${signs[@]}"
  done
done
deploy/robustness.sh gtsrb-natural gtsrb-at 0 "$data" attack.name=none attack.guard=false "${signs[@]}"
deploy/robustness.sh mnist-tla mnist-tla 0 "$data" "${digits[@]}"
