#!/usr/bin/env bash
# Builds the binary and runs a three-member cluster of local processes: `scripts/local-cluster.sh [--dir DIR] [--nodes N] ...`
# Ctrl-C stops all members; a second start on the same folder continues with its data.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --quiet --package binnacle
exec target/release/binnacle local-cluster "$@"
