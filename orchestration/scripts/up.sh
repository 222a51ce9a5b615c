#!/usr/bin/env bash
# Build and start the stack, wait until every service is healthy, and print the logs of those that are not.
#
#     orchestration/scripts/up.sh                                          # what `make up` runs
#     orchestration/scripts/up.sh --profile scale --scale airflow-worker=3
#
# `--profile NAME`, `--env-file FILE` and `--file FILE` go to `docker compose`, everything else to its `up`. Paths are
# those seen from orchestration/. It runs in bash 3.2, which macOS has.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { echo "up: $*" >&2; }
fail() {
    say "$*"
    exit 1
}

# Tell whether a version such as v2.26.1-4 is at least another one.
at_least() {
    awk -v found="${1#v}" -v needed="$2" 'BEGIN {
        split(found, f, /[.+-]/); split(needed, n, /[.]/)
        for (i = 1; i <= 3; i++) if (f[i] + 0 != n[i] + 0) exit f[i] + 0 < n[i] + 0
    }'
}

compose=(docker compose)
up=(up --build --wait --detach)
while [ $# -gt 0 ]; do
    case "$1" in
        --profile | --env-file | --file | -f) compose+=("$1" "${2:?$1 needs a value}") && shift 2 ;;
        *) up+=("$1") && shift ;;
    esac
done

docker info >/dev/null 2>&1 || fail "no container engine answers: start Docker (and see 'docker info'); without a registry see scripts/engine.sh"
version=$(docker compose version --short 2>/dev/null) || fail "docker compose is missing: install Compose 2.20.2 or newer"
at_least "$version" 2.20.2 || fail "Compose $version is too old: install Compose 2.20.2 or newer"
config=$("${compose[@]}" config) || fail "Compose cannot read these settings; see its message above"
case "$config" in
    # Compose before 2.37 has a BuildKit of its own.
    *"    build:"*)
        buildx=$(docker buildx version 2>/dev/null | awk '{print $2}') || buildx=
        if at_least "$version" 2.37.0 && ! at_least "${buildx:-0}" 0.17.0; then
            fail "Compose $version needs Docker's plugin buildx 0.17 or newer to build; found ${buildx:-none}: install or update it"
        fi
        ;;
esac
# The port of this machine at which a service is published.
published() {
    echo "$config" | awk -v service="  $1:" '$0 == service {found = 1; next} /^  [^ ]/ {found = 0}
        found && $1 == "published:" {gsub(/"/, "", $2); print $2}'
}
port=$(published airflow-apiserver)
for pair in "airflow-apiserver $port AIRFLOW_PORT=8090" "site $(published site) CATALUNYA_SITE_PORT=8091"; do
    read -r service number other <<<"$pair"
    if [ -z "$("${compose[@]}" ps --quiet "$service" 2>/dev/null)" ] && (exec 3<>"/dev/tcp/127.0.0.1/$number") 2>/dev/null; then
        fail "port $number is in use: stop what listens there, or choose another: $other make up"
    fi
done
if ! "${compose[@]}" "${up[@]}"; then
    for service in $("${compose[@]}" ps --all --format '{{.Service}} {{.State}} {{.ExitCode}} {{.Health}}' \
        | awk '($2 != "running" && $3 != 0) || $4 == "unhealthy" {print $1}'); do
        say "$service is not healthy; the end of its log:"
        "${compose[@]}" logs --no-log-prefix --tail 8 "$service" >&2
    done
    fail "the stack did not start; all logs: make logs"
fi
say "ready at http://localhost:$port (log in with airflow/airflow unless another user was set)"
say "the public site, after the first run: $(echo "$config" | awk '$1 == "CATALUNYA_SITE_URL:" {print $2; exit}')"
