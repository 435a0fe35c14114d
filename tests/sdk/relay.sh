#!/usr/bin/env bash
# Runs what the gateway passes on as it is with the official Python SDK; see run.sh, which also
# installs it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$here/run.sh" --install
exec "${CARGO_TARGET_DIR:-$here/../../target}/sdk/venv/bin/python" -u "$here/relay_sdk.py"
