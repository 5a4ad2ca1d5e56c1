#!/usr/bin/env bash
# Installs the wheel into an empty environment, serves a bundle that ships with it and has an image judged:
#   deploy/test_wheel.sh [WHEEL]
# Without WHEEL it is built first. Takes the versions of constraints.txt; needs the package registry.
set -eu
cd "$(dirname "$0")/.."
root=$PWD python=${PYTHON:-.venv/bin/python} wheel=${1:-}
place=$(mktemp -d)
server=
finish() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  rm -rf "$place"
}
trap finish EXIT
fail() { echo "test_wheel: $1" >&2; exit 1; }

if [ -z "$wheel" ]; then
  "$python" -m build --no-isolation --outdir "$place/dist" . >"$place/build.log" 2>&1 || { cat "$place/build.log" >&2; exit 1; }
  wheel=$(echo "$place"/dist/*.whl)
fi
wheel=$(realpath "$wheel")
"$python" -m venv "$place/venv"
unset PYTHONPATH
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt "$wheel"
cd "$place"  # so that nothing of the checkout is imported
bin=$place/venv/bin
version=$("$bin/advsentry" --version)
echo "$version from $(basename "$wheel")"
"$bin/python" -c 'import sys, service; sys.exit(not service.__file__.startswith(sys.prefix))' || fail "the checkout was imported"
"$bin/python" -c 'import torch' 2>/dev/null && fail "torch was installed"

"$bin/advsentry" serve --bundle digits --port 0 --metrics-port 0 >serving 2>log & server=$!
for _ in $(seq 300); do
  grep -q '^serving ' serving && break
  kill -0 "$server" 2>/dev/null || { cat log >&2; fail "the server ended"; }
  sleep 0.2
done
target=$(sed -n 's/^serving grpc=\([^ ]*\).*/\1/p' serving)
[ -n "$target" ] || { cat log >&2; fail "the server was not ready in a minute"; }
"$bin/advsentry" health --target "$target"
"$bin/python" -c 'from PIL import Image; Image.linear_gradient("L").resize((8, 8)).save("image.png")'
"$bin/advsentry" detect image.png --target "$target" --json | tee answer
grep -q '"verdict": *"\(clean\|adversarial\)"' answer || fail "the answer has no verdict"
kill -TERM "$server"
status=0
wait "$server" || status=$?
server=
[ "$status" = 0 ] || { cat log >&2; fail "the server ended with status $status"; }
echo "test_wheel: passed"
