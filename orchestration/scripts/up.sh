#!/usr/bin/env bash
# Build and start the stack, wait until every service is healthy, and print the logs of those that are not.
#
#     orchestration/scripts/up.sh                                          # what `make up` runs
#     orchestration/scripts/up.sh --profile scale --scale airflow-worker=3
#
# `--profile NAME` and `--env-file FILE` go to `docker compose`, everything else to its `up`.
set -euo pipefail
cd "$(dirname "$0")/.."
port=${AIRFLOW_PORT:-8080}
say() { echo "up: $*" >&2; }
fail() {
    say "$*"
    exit 1
}

compose=(docker compose)
options=()
while [ $# -gt 0 ]; do
    case "$1" in
        --profile | --env-file | --file | -f) compose+=("$1" "${2:?$1 needs a value}") && shift 2 ;;
        *) options+=("$1") && shift ;;
    esac
done

docker info >/dev/null 2>&1 || fail "no container engine answers: start Docker (and see 'docker info'); without a registry see scripts/engine.sh"
docker compose version >/dev/null 2>&1 || fail "docker compose is missing: install Compose 2.20 or newer"
if [ -z "$("${compose[@]}" ps --quiet airflow-apiserver 2>/dev/null)" ] && (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    fail "port $port is in use: stop what listens there, or choose another: AIRFLOW_PORT=8081 make up"
fi
if ! "${compose[@]}" up --build --wait --detach "${options[@]}"; then
    for service in $("${compose[@]}" ps --all --format '{{.Service}} {{.State}} {{.ExitCode}} {{.Health}}' \
        | awk '($2 != "running" && $3 != 0) || $4 == "unhealthy" {print $1}'); do
        say "$service is not healthy; the end of its log:"
        "${compose[@]}" logs --no-log-prefix --tail 8 "$service" >&2
    done
    fail "the stack did not start; all logs: make logs"
fi
say "ready at http://localhost:$port (log in with airflow/airflow unless another user was set)"
