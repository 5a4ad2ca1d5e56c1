#!/usr/bin/env bash
# Makes every published figure of localized training from nothing: deploy/related/localized.sh DATA [mnist|gtsrb]
# Runs that are finished and results that are there already are left alone. The two sets may be made side by side.
set -eu
cd "$(dirname "$0")/../.."
export ADVSENTRY_DATA=${1:?expected the folder of the data} OMP_NUM_THREADS=1
reports=reports/related/localized

measure() { # NAME RECIPE SEED ATTACKS MASK [key=value ...]
  local run=$1-s$3
  [ ! -e "$reports/$run.json" ] || return 0
  .venv/bin/advsentry-train fit "$2" --out "runs/$run" "train.seed=$3" "${@:6}"
  .venv/bin/advsentry-train robustness "runs/$run" --out "$reports/$run.json" --images 1000 --restarts 2 \
    --attacks "$4" --mask "$5"
}

regions=background_fgsm,background_pgd,foreground_fgsm,foreground_pgd
mnist() { # SEED
  digits() { measure "mnist-$1" mnist-localized "$seed" "fgsm,pgd_100,$regions" pixels "${@:2}"; }
  local seed=$1
  digits natural attack.name=none localized.region=none
  digits global localized.region=none
  digits localized
  digits once localized.fresh=false localized.start_epoch=2
}

gtsrb() { # SEED
  signs() { measure "gtsrb-$1" gtsrb-part "$seed" "pgd_20,pgd_100,margin_pgd,$regions" segment "${@:2}"; }
  local seed=$1
  signs global localized.region=none
  signs part
}

for set in ${2:-mnist gtsrb}; do
  for seed in 0 1 2; do "$set" "$seed"; done
  .venv/bin/python -m deploy.related.localized "$set" "$reports" --result "docs/results/$set-localized.json"
done
