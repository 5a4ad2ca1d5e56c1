#!/usr/bin/env bash
# Makes every figure of training on generated images from nothing: deploy/related/proxy.sh DATA
# Some four hours of one core, the diffusion model half an hour of them; results that are there already are left alone.
set -eu
cd "$(dirname "$0")/../.."
data=${1:?expected the folder of the data}
export OMP_NUM_THREADS=1
sets=runs/proxy train=.venv/bin/advsentry-train
measured=(-- --images 1000 --restarts 2 --queries 500 --attacks "fgsm,pgd_20,pgd_100,margin_pgd,aa_like")

generate() { # FILE GENERATOR IMAGES [option ...]
  [ -e "$sets/$1.npz" ] || "$train" proxy generate "$2" mnist-proxy --data "$data" --out "$sets/$1.npz" --images "$3" "${@:4}"
}

run() { # NAME SEED [key=value ...]
  deploy/robustness.sh "mnist-proxy-$1" mnist-proxy "$2" "$data" "${@:3}" "${measured[@]}"
}

# Every set is made once, of seed 0; the seeds below are those of training and of discriminators.
generate pca-gaussian pca-gaussian 20000
# First what is asked: 10,000 generated images beside the same real ones alone. Those get twice the epochs: as many
# steps, on as many images a step.
for seed in 0 1 2; do
  run real "$seed" proxy.gamma=1 train.epochs=160
  run pca-10000 "$seed" proxy.images=10000
done
generate pixel-gaussian pixel-gaussian 10000
arc() { # NAME SEED SETS...
  local name=mnist-proxy-arc-$1-$2
  [ -e "docs/results/$name.json" ] || "$train" proxy arc mnist-proxy --data "$data" --seed "$2" \
    --out "docs/results/$name.json" "${@:3}"
}
for seed in 0 1 2; do arc gaussian "$seed" "$sets"/{pca,pixel}-gaussian.npz; done
generate diffusion diffusion 10000 --weights "$sets/diffusion.pt"
generate unlabelled pca-gaussian 10000 --unlabelled
[ -e "$sets/selected.npz" ] || "$train" proxy select mnist-proxy "$sets/pca-gaussian.npz" --data "$data" --keep 0.5 \
  --out "$sets/selected.npz"

# Who labels: trained on the same 1,000 images, not attacked.
[ -e runs/mnist-proxy-labeller/checkpoint.pt ] || "$train" fit mnist-proxy --data "$data" --out runs/mnist-proxy-labeller \
  proxy.gamma=1 train.epochs=30 attack.name=none

for seed in 0 1 2; do
  arc every "$seed" "$sets"/{pca-gaussian,diffusion,selected,pixel-gaussian}.npz
done

for seed in 0 1 2; do
  for size in 1000 2000 5000 20000; do run "pca-$size" "$seed" "proxy.images=$size"; done
  run pixel-10000 "$seed" "proxy.set=$sets/pixel-gaussian.npz"
  run diffusion-10000 "$seed" "proxy.set=$sets/diffusion.npz"
  run selected-10000 "$seed" "proxy.set=$sets/selected.npz"
  run labelled-10000 "$seed" "proxy.set=$sets/unlabelled.npz" proxy.labeller=runs/mnist-proxy-labeller
  trades=(trades.weight=6 attack.loss=kl)
  run trades-real "$seed" proxy.gamma=1 train.epochs=160 "${trades[@]}"
  run trades-pca-10000 "$seed" proxy.images=10000 "${trades[@]}"
done
.venv/bin/python -m deploy.related.proxy_sweep
