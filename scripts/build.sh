#!/usr/bin/env bash
# Builds dist from nothing, so that no file outlives its source.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/codegen.sh
rm -rf dist
node_modules/.bin/tsc -p tsconfig.build.json
cp src/gen/descriptors.binpb dist/gen/
chmod +x dist/cli/main.js
