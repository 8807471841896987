#!/usr/bin/env bash
# Generates src/gen: the TypeScript of the API, and the descriptors that server reflection serves. Sets of descriptors
# merge by being appended: health's service, and the error details that answers carry.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/node_modules/.bin:$PATH"

buf generate
descriptors=src/gen/descriptors.binpb
google=node_modules/google-proto-files
{
  buf build --as-file-descriptor-set -o -
  buf build "$google" --path "$google/google/rpc/error_details.proto" --exclude-imports --as-file-descriptor-set -o -
  buf build node_modules/grpc-health-check/proto --as-file-descriptor-set -o -
} > "$descriptors"
