#!/usr/bin/env bash
# Check the set-up of dbt: versions, adapter, project, profile (orchestration/dbt), connection, extensions, lake. Say how
# to correct each fault. Install the environment from the lock if there is none.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ -x .venv/bin/catalunya ] || make --no-print-directory setup
exec .venv/bin/catalunya doctor --deep "$@"
