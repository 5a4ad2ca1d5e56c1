#!/bin/sh
# Installs the model servers of others, each into a virtual environment of its own: build/peers/mlserver and
# build/peers/kserve. Run it from anywhere; PYTHON names the interpreter, python3 by default.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
peers=$here/../../build/peers
for name in mlserver kserve; do
    test -x "$peers/$name/bin/python" || "${PYTHON:-python3}" -m venv "$peers/$name"
    "$peers/$name/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements-$name.txt"
    touch "$peers/$name/ready"
done
