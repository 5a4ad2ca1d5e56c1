#!/usr/bin/env bash
# Makes every published figure of deep pursuit from nothing: deploy/related/deep-pursuit.sh DATA [SEEDS]
# SEEDS are "0 1 2" unless told. Hours of a core, two of them at work at once. Runs, attacked images and results that are
# there already are left alone: the same command goes on where it was stopped.
set -eu
cd "$(dirname "$0")/../.."
export ADVSENTRY_DATA=${1:?expected the folder of the data} OMP_NUM_THREADS=1
seeds=${2:-0 1 2}
strength=(--images 300 --restarts 3 --queries 1000)

# Networks of equally many parameters: T sweeps, 0 being the feed-forward net, two without skips, and layered pursuit.
natural() { # SEED: lines of NAME key=value ...
  for sweeps in 0 1 2 5 10; do echo "mnist-pursuit-skips-t$sweeps-s$1 train.seed=$1 model.sweeps=$sweeps"; done
  for sweeps in 0 5; do echo "mnist-pursuit-plain-t$sweeps-s$1 train.seed=$1 model.sweeps=$sweeps model.skips=false"; done
  echo "mnist-pursuit-layered-t5-s$1 train.seed=$1 model.sweeps=5 model.skips=false model.inference=layered"
}

curves() { # FILE NAME...: all are attacked by way of the feed-forward networks among them too
  local file=$1 runs=() twins=()
  for name in "${@:2}"; do
    runs+=("runs/$name")
    case $name in *-t0-s*) twins+=(--transfer "runs/$name") ;; esac
  done
  .venv/bin/advsentry-train curves "${runs[@]}" "${twins[@]}" --out "$file" $STRENGTH
}

clean() { # SEED: trains its networks and attacks them, so that the call for all finds the attacked images
  local names=() name words
  while read -r name words; do
    # shellcheck disable=SC2086
    .venv/bin/advsentry-train fit mnist-pursuit --out "runs/$name" $words
    names+=("$name")
  done < <(natural "$1")
  curves "runs/mnist-pursuit-s$1.json" "${names[@]}"
}

attacked() { # SEED: with TLA and SAR on attacked images, beside its own feed-forward twin
  for inference in deep feed_forward; do
    # shellcheck disable=SC2086
    deploy/robustness.sh "mnist-pursuit-tla-sar-$inference" mnist-pursuit-tla-sar "$1" "$ADVSENTRY_DATA" \
      "model.inference=$inference" -- $STRENGTH --attacks fgsm,pgd_20,pgd_100,margin_pgd,aa_like
  done
}

export STRENGTH="${strength[*]}"
export -f natural curves clean attacked
printf '%s\n' $seeds | xargs -P 2 -I{} bash -euc 'clean {}'
if [ ! -e docs/results/mnist-pursuit.json ]; then
  names=()
  for seed in $seeds; do
    while read -r name _; do names+=("$name"); done < <(natural "$seed")
  done
  curves docs/results/mnist-pursuit.json "${names[@]}"
fi
printf '%s\n' $seeds | xargs -P 2 -I{} bash -euc 'attacked {}'
