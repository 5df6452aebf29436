#!/usr/bin/env bash
# Takes the kubectl program out of the Python package that carries it: unpack-kubectl.sh VENV TARGET
set -euo pipefail
archive=$(find "$1" -path '*lambda_layer_kubectl*' -name '*.jsii.tgz' | head -1)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar xzf "$archive" -C "$work"
python3 - "$work/package/lib/layer.zip" "$2" <<'PY'
import os, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as layer, open(sys.argv[2], "wb") as target:
    target.write(layer.read("kubectl/kubectl"))
os.chmod(sys.argv[2], 0o755)
PY
"$2" version --client
