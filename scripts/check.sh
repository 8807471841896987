#!/usr/bin/env bash
# Format, lint, types and the API, side by side; prints what each says, and fails if one does.
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/node_modules/.bin:$PATH"

scripts/codegen.sh || exit 1
eslint . --max-warnings 0 &
lint=$!
status=0
for check in check:format check:types check:proto check:breaking; do npm run --silent "$check" || status=1; done
wait "$lint" || status=1
exit "$status"
