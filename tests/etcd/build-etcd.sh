#!/usr/bin/env bash
# Builds a real etcd from its published Go modules, to compare with. Usage: build-etcd.sh VERSION PROGRAM, e.g. 3.6.16.
# Needs Go; a minute and a half of one processor, less when its modules are there already.
set -euo pipefail
version=$1 program=$(realpath -m "$2")
if [ -x "$program" ] && "$program" --version | grep -qx "etcd Version: $version"; then exit 0; fi
module=$(mktemp -d "${TMPDIR:-/tmp}/etcd-$version.XXXXXX")
trap 'rm -rf "$module"' EXIT
cd "$module"
printf 'module example.invalid/etcd\n\ngo 1.24\n' >go.mod
cat >main.go <<'GO'
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
GO
go get "go.etcd.io/etcd/server/v3@v$version"
go mod tidy
go build -trimpath -o "$program" .
"$program" --version | head -1
