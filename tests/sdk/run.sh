#!/usr/bin/env bash
# Runs the official SDKs, unmodified, against a running gateway:
#   SWITCHPOINT_URL          its address, ending in /v1
#   SWITCHPOINT_KEY          a key that may call every route
#   SWITCHPOINT_LIMITED_KEY  a key that may not call the route `not-allowed`
#   UPSTREAM_CONTROL         the scripted upstream's address
# What they need is installed once, below target/sdk/; `run.sh --install` does only that.
# `run.sh --matrix` runs each SDK with each provider instead:
#   SWITCHPOINT_MATRIX       the providers by SDK, as JSON (see tests/matrix.rs)
#   SWITCHPOINT_MATRIX_ONLY  runs only the cells whose line contains this
# `run.sh --openapi FILE` checks an OpenAPI document.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}/sdk
mkdir -p "$target/node"

# A stamp, so that a second run starts at once and a changed pin installs again.
stamp=$(cat "$here/requirements.txt" "$here/package-lock.json" | sha256sum)
if [[ $(cat "$target/stamp" 2>/dev/null) != "$stamp" ]]; then
  python3 -m venv --clear "$target/venv"
  "$target/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
  cp "$here/package.json" "$here/package-lock.json" "$target/node/"
  npm ci --prefix "$target/node" --no-audit --no-fund --loglevel=error
  echo "$stamp" >"$target/stamp"
fi
[[ ${1:-} != --install ]] || exit 0

if [[ ${1:-} == --openapi ]]; then
  exec "$target/venv/bin/python" "$here/openapi.py" "$2"
fi

# Node looks for packages beside the script, so the scripts go where they are.
cp -r "$here/node_sdk.mjs" "$here/matrix" "$target/node/"
if [[ ${1:-} == --matrix ]]; then
  failed=0
  for driver in "$here"/matrix/*_*.py; do
    "$target/venv/bin/python" -u "$driver" || failed=1
  done
  for driver in "$target"/node/matrix/*_*.mjs; do
    node "$driver" || failed=1
  done
  exit $failed
fi
"$target/venv/bin/python" -u "$here/python_sdk.py"
node "$target/node/node_sdk.mjs"
