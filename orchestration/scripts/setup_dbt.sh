#!/usr/bin/env bash
# Find what is wrong with the dbt set-up (versions, adapter, project, profile, connection, extensions, lake)
# and say how to correct it. Installs the environment from the lock when there is none.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ -x .venv/bin/catalunya ] || make --no-print-directory setup
exec .venv/bin/catalunya doctor --deep "$@"
