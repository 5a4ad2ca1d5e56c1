#!/usr/bin/env bash
# Makes every published figure of min-max over domains from nothing: deploy/related/min-max.sh DATA
# Some three hours of one core; results that are there already are left alone.
set -eu
cd "$(dirname "$0")/../.."
data=${1:?expected the folder of the data}
export OMP_NUM_THREADS=1
train=.venv/bin/advsentry-train results=docs/results
networks=(perceptron all_cnn lenet two_convolutions)

together() { # NAME KIND SEED RUNS... [-- options]
  local name=$1-s$3 kind=$2
  shift 3
  local runs=()
  while [ $# -gt 0 ] && [ "$1" != -- ]; do runs+=("$1"); shift; done
  [ $# -eq 0 ] || shift
  [ -e "$results/$name.json" ] || "$train" minmax "$kind" "${runs[@]}" --out "$results/$name.json" --data "$data" "$@"
}

for seed in 0 1 2; do
  runs=()
  for network in "${networks[@]}"; do
    run=runs/mnist-$network-s$seed
    runs+=("$run")
    [ -e "$results/mnist-ensemble-s$seed.json" ] ||
      "$train" fit mnist-natural --out "$run" --data "$data" "model.name=$network" "train.seed=$seed"
  done
  together mnist-ensemble ensemble "$seed" "${runs[@]}" -- --images 200
  for norm in l2 l1 l0; do together "mnist-ensemble-$norm" ensemble "$seed" "${runs[@]}" -- --images 100 --norm "$norm"; done
  together mnist-universal universal "$seed" "${runs[2]}" -- --images 500
  together mnist-transforms transforms "$seed" "${runs[2]}" -- --images 200 --eps 0.2
done

# Against one norm, against all in several ways; all measured in all.
norms() { # NAME SEED [key=value ...]
  deploy/robustness.sh "mnist-norms-$1" mnist-norms "$2" "$data" "${@:3}" -- \
    --images 500 --restarts 2 --norms linf=0.2,l2=1.5,l1=8 --attacks norms_linf,norms_l2,norms_l1
}
for seed in 0 1 2; do
  norms learned "$seed"
  for combine in average max msd; do norms "$combine" "$seed" "minmax.combine=$combine"; done
  norms linf "$seed" 'minmax.norms=["linf"]' 'minmax.eps=[0.2]'
  norms l2 "$seed" 'minmax.norms=["l2"]' 'minmax.eps=[1.5]' attack.norm=l2 attack.eps=1.5
  norms l1 "$seed" 'minmax.norms=["l1"]' 'minmax.eps=[8]'
done
