#!/usr/bin/env bash
# Starts the service of a container, after a check of its settings and a wait for its database.
#
#     entrypoint.sh secrets | init | release | api-server | scheduler | dag-processor | triggerer | worker | cleanup | site | portal |
#         COMMAND…
#
# `secrets` creates the secrets and `init` the database, and both end; `release` does both on a host that links database and
# queue by DATABASE_URL and REDIS_URL. Any other command is run as it is.
set -euo pipefail

secrets=${CATALUNYA_SECRETS:-/run/catalunya}
wait_seconds=${CATALUNYA_WAIT_SECONDS:-60}
export ENVIRONMENT=${ENVIRONMENT:-demo}

# Logs are text, or JSON with one event a line, those of Airflow as well.
if [ "${CATALUNYA_LOG_FORMAT:-}" = json ]; then export AIRFLOW__LOGGING__JSON_LOGS=True; fi

say() {
    local text=$*
    if [ "${CATALUNYA_LOG_FORMAT:-}" = json ]; then
        text=${text//\\/\\\\}
        printf '{"event": "%s", "level": "info", "logger": "entrypoint"}\n' "${text//\"/\\\"}" >&2
    else
        echo "entrypoint: $text" >&2
    fi
}
fail() {
    say "$*"
    exit 1
}

# What may come from a file (NAME_FILE), or from the secrets backend of Airflow's settings (NAME_SECRET).
given_secrets=(AIRFLOW__CORE__FERNET_KEY AIRFLOW__API__SECRET_KEY AIRFLOW__API_AUTH__JWT_SECRET AIRFLOW_ADMIN_PASSWORD
    POSTGRES_PASSWORD REDIS_PASSWORD DATABASE_URL REDIS_URL SOCRATA_APP_TOKEN CATALUNYA_NOTIFY_URLS
    CATALUNYA_TRINO_PASSWORD AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN)
# The pipeline and the log-in read the files of these themselves.
read_by_others=(CATALUNYA_SIGNING_KEY CATALUNYA_HEARTBEAT_URL AIRFLOW_OIDC_CLIENT_SECRET AIRFLOW_LDAP_BIND_PASSWORD)

read_secret_files() {
    local name file
    for name in "${given_secrets[@]}"; do
        file=${name}_FILE
        [ -n "${!file:-}" ] || continue
        [ -z "${!name:-}" ] || fail "set $name or $file, not both"
        [ -r "${!file}" ] || fail "set $file to a file that user $(id -u) can read: ${!file} is none"
        export "$name=$(cat "${!file}")"
        unset "$file"
    done
}

# Ask Airflow's secrets backend (AIRFLOW__SECRETS__BACKEND), such as AWS Secrets Manager, for what it keeps.
read_secret_backend() {
    local name key pair keys=()
    for name in "${given_secrets[@]}" "${read_by_others[@]}"; do
        key=${name}_SECRET
        if [ -n "${!key:-}" ]; then
            [ -z "${!name:-}" ] || fail "set $name or $key, not both"
            keys+=("$name=${!key}")
        fi
    done
    [ "${#keys[@]}" -gt 0 ] || return 0
    [ -n "${AIRFLOW__SECRETS__BACKEND:-}" ] || fail "set AIRFLOW__SECRETS__BACKEND: it is asked for ${keys[0]%%=*}"
    while IFS= read -r -d '' pair; do
        [ "$pair" != failed ] || fail "no service starts without its secrets"
        export "${pair%%=*}=${pair#*=}"
        unset "${pair%%=*}_SECRET"
    done < <(python orchestration/docker/secret_backend.py ${keys[@]+"${keys[@]}"} || printf 'failed\0')
}

# Production starts only with its own secrets. The error names every variable that is wrong, not only the first.
check_production() {
    local wrong=0 name value
    complain() {
        say "$*"
        wrong=1
    }
    for name in AIRFLOW__CORE__FERNET_KEY AIRFLOW__API__SECRET_KEY AIRFLOW__API_AUTH__JWT_SECRET POSTGRES_PASSWORD \
        REDIS_PASSWORD AIRFLOW_ADMIN_PASSWORD CATALUNYA_LAKE; do
        value=${!name:-}
        case "$name:${DATABASE_URL:+database}:${REDIS_URL:+queue}" in
            # The URL has the password, which the host made.
            POSTGRES_PASSWORD:database:* | REDIS_PASSWORD:*:queue) continue ;;
            # Without a queue the scheduler runs the tasks.
            REDIS_PASSWORD:database:*) continue ;;
            CATALUNYA_LAKE:*) [ "$ENVIRONMENT" = production ] || continue ;;
        esac
        if [ -z "$value" ] && [ "$name" != CATALUNYA_LAKE ]; then
            complain "set $name: ${DATABASE_URL:+with DATABASE_URL }production has no default for it"
            continue
        fi
        case "$name=$value" in
            CATALUNYA_LAKE=s3://?*) ;;
            CATALUNYA_LAKE=*) complain "set CATALUNYA_LAKE to s3://bucket/prefix: the lake of production is in S3" ;;
            *=airflow | *=postgres | *=redis | *=admin | *=password | *=changeme)
                complain "set $name to a secret of your own: '$value' is a development password" ;;
            AIRFLOW__CORE__FERNET_KEY=*)
                python -c 'import sys; from cryptography.fernet import Fernet; Fernet(sys.argv[1])' "$value" \
                    2>/dev/null || complain "set AIRFLOW__CORE__FERNET_KEY to a Fernet key: 32 bytes in URL-safe base64" ;;
            *) [ "${#value}" -ge 16 ] || complain "set $name to a longer secret: it has ${#value} of at least 16 characters" ;;
        esac
    done
    case "${AIRFLOW_BIND:-127.0.0.1}" in
        127.* | ::1 | localhost) ;;
        *) complain "set AIRFLOW_BIND to 127.0.0.1 and put a proxy with TLS in front: '$AIRFLOW_BIND' is open to other machines" ;;
    esac
    [ "$wrong" = 0 ] || fail "$ENVIRONMENT does not start with these settings; nothing was changed"
}

# The variables of the log-in, before the web interface is there: see docs/log-in.md.
check_log_in() {
    python orchestration/config/webserver_config.py || fail "the log-in cannot work with these settings"
}

# Threads of dbt and memory of DuckDB, from the limits of the container: 40 % of the memory in development, where other
# programs run too, 70 % in production.
size_dbt() {
    local memory cpus quota period share threads
    memory=$(cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || echo max)
    total=$(($(awk '/^MemTotal/ {print $2}' /proc/meminfo) * 1024))
    case "$memory" in max | ???????????????*) memory=$total ;; esac
    if [ -r /sys/fs/cgroup/cpu.max ]; then
        read -r quota period </sys/fs/cgroup/cpu.max
    else
        quota=$(cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || echo -1)
        period=$(cat /sys/fs/cgroup/cpu/cpu.cfs_period_us 2>/dev/null || echo 100000)
    fi
    cpus=$(nproc)
    case "$quota" in max | -1) ;; *) cpus=$(((quota + period - 1) / period)) ;; esac
    if [ "$ENVIRONMENT" = production ]; then
        share=70 threads=$cpus
    else
        share=40 threads=$((cpus < 2 ? cpus : 2))
    fi
    export CATALUNYA_DBT_THREADS=${CATALUNYA_DBT_THREADS:-$threads}
    export CATALUNYA_DUCKDB_MEMORY=${CATALUNYA_DUCKDB_MEMORY:-$((memory * share / 104857600))MB}
}

# The most connections of each service to the database: pool and overflow of SQLAlchemy, for the synchronous and for the
# asynchronous engine of a process. All services together stay below PostgreSQL's limit (POSTGRES_MAX_CONNECTIONS in
# docker-compose.yml).
size_pools() {
    local pool=2 overflow=1
    case "$ENVIRONMENT:$1" in
        production:api-server) pool=10 overflow=5 ;;
        production:scheduler) pool=6 overflow=4 ;;
        production:*) pool=3 overflow=2 ;;
        *:api-server) pool=5 overflow=3 ;;
        *:scheduler) pool=3 overflow=2 ;;
    esac
    export AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_SIZE=${AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_SIZE:-$pool}
    export AIRFLOW__DATABASE__SQL_ALCHEMY_MAX_OVERFLOW=${AIRFLOW__DATABASE__SQL_ALCHEMY_MAX_OVERFLOW:-$overflow}
    # The name of the service in pg_stat_activity.
    export PGAPPNAME=$1
}

# Write a secret: the value of the environment, else the one that exists, else a new one. $3 is the mode of the file.
store_secret() {
    local name=$1 given=$2 mode=$3 make=${4:-token}
    if [ -z "$given" ] && [ -s "$secrets/$name" ]; then return; fi
    if [ -z "$given" ]; then given=$($make); fi
    printf '%s' "$given" >"$secrets/.$name"
    chmod "$mode" "$secrets/.$name"
    mv "$secrets/.$name" "$secrets/$name"
}
token() { head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
fernet() { head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n'; }

# Percent-encode a password for a URL.
url_encode() {
    local LC_ALL=C text=$1 i byte
    for ((i = 0; i < ${#text}; i++)); do
        byte=${text:i:1}
        case "$byte" in
            [a-zA-Z0-9._~-]) printf '%s' "$byte" ;;
            *) printf '%%%02X' "$(($(printf '%d' "'$byte") & 255))" ;;
        esac
    done
}

create_secrets() {
    [ -w "$secrets" ] || fail "$secrets cannot be written by user $(id -u): change the owner of the volume to user 50000"
    # PostgreSQL and Redis read their passwords as other users; no other service mounts this folder.
    store_secret postgres_password "${POSTGRES_PASSWORD:-}" 0444
    store_secret redis_password "${REDIS_PASSWORD:-}" 0444
    store_secret fernet_key "${AIRFLOW__CORE__FERNET_KEY:-}" 0400 fernet
    store_secret api_secret_key "${AIRFLOW__API__SECRET_KEY:-}" 0400
    store_secret jwt_secret "${AIRFLOW__API_AUTH__JWT_SECRET:-}" 0400
    local password
    password=$(url_encode "$(cat "$secrets/postgres_password")")
    store_secret sql_alchemy_conn "postgresql+psycopg2://airflow:$password@postgres:5432/airflow" 0400
    store_secret sql_alchemy_conn_async "postgresql+asyncpg://airflow:$password@postgres:5432/airflow" 0400
    store_secret result_backend "db+postgresql://airflow:$password@postgres:5432/airflow" 0400
    store_secret broker_url "redis://:$(url_encode "$(cat "$secrets/redis_password")")@redis:6379/0" 0400
}

# A database, and a queue if there is one, outside of the stack. Where the folder of secrets is mounted for reading, its files
# are those of secrets-init, as in the stack; else each container writes its own. Afterwards no secret is in the environment.
use_links() {
    [ -n "${DATABASE_URL:-}" ] || return 0
    is_linked=yes
    if [ -w "$secrets" ]; then
        create_secrets
        python orchestration/docker/connections.py "$secrets" || exit 1
    fi
    read -r database_host database_port < <(python orchestration/docker/connections.py address "$DATABASE_URL")
    if [ -n "${REDIS_URL:-}" ]; then
        read -r queue_host queue_port < <(python orchestration/docker/connections.py address "$REDIS_URL")
    fi
    unset DATABASE_URL AIRFLOW__CORE__FERNET_KEY AIRFLOW__API__SECRET_KEY AIRFLOW__API_AUTH__JWT_SECRET
}

# What a host of a Procfile sets: the port of its proxy, the commit, and a queue where there are workers.
use_host() {
    [ -n "${DYNO:-}" ] || return 0
    export AIRFLOW__API__PORT=${PORT:-5000} CATALUNYA_REVISION=${CATALUNYA_REVISION:-${GIT_REV:-}}
    export AIRFLOW__CORE__EXECUTOR=${AIRFLOW__CORE__EXECUTOR:-${REDIS_URL:+CeleryExecutor}}
    export AIRFLOW__CORE__EXECUTOR=${AIRFLOW__CORE__EXECUTOR:-LocalExecutor}
    if [ -n "${AIRFLOW__API__BASE_URL:-}" ]; then
        export AIRFLOW__CORE__EXECUTION_API_SERVER_URL=${AIRFLOW__CORE__EXECUTION_API_SERVER_URL:-${AIRFLOW__API__BASE_URL%/}/execution/}
    fi
}

check_memory() {
    local needed=${CATALUNYA_LEAST_MEMORY_MB:-1500} free
    free=$(($(awk '/^MemAvailable/ {print $2}' /proc/meminfo) / 1024))
    [ "$free" -ge "$needed" ] || fail \
        "only $free MB of memory are free and the stack needs $needed: stop other programs, or give Docker more memory (CATALUNYA_LEAST_MEMORY_MB sets the limit)"
}

# A clone under umask 077 has files that only their owner can read; those of the repository are mounted in development.
check_code() {
    local unreadable
    unreadable=$(find "$CATALUNYA_HOME" -path '*/.venv' -prune -o ! -readable -print -quit 2>/dev/null)
    [ -z "$unreadable" ] || fail \
        "$unreadable cannot be read by user $(id -u): in the repository on the host run 'chmod -R go+rX src datasets dbt orchestration'"
}

check_lake() {
    case "$CATALUNYA_LAKE" in
        *://*) ;;
        *) [ -d "$CATALUNYA_LAKE" ] && [ -w "$CATALUNYA_LAKE" ] || fail \
            "the lake $CATALUNYA_LAKE cannot be written by user $(id -u): on the host run 'chown -R 50000:0' on the folder in CATALUNYA_LAKE_FOLDER" ;;
    esac
}

# The folder of the site, where it is no bucket.
check_site() {
    case "${CATALUNYA_SITE:-}" in
        "" | *://*) ;;
        *) [ -d "$CATALUNYA_SITE" ] && [ -w "$CATALUNYA_SITE" ] || fail \
            "the folder of the site $CATALUNYA_SITE cannot be written by user $(id -u): change its owner to user 50000" ;;
    esac
}

wait_for() {
    local host=$1 port=$2 until=$((SECONDS + wait_seconds))
    until (exec 3<>"/dev/tcp/$host/$port") 2>/dev/null; do
        [ "$SECONDS" -lt "$until" ] || fail "$host:$port did not answer within $wait_seconds s; see its log ('docker compose logs $host')"
        sleep 0.3
    done
}

# In the demo environment: use the container of the portals if there is one; else the library starts its own portals.
use_portal() {
    if [ "$ENVIRONMENT" = demo ] && [ -z "${CATALUNYA_SOCRATA_URL:-}" ] && [ "${CATALUNYA_DEMO_PORTAL:-0}" != 0 ]; then
        export CATALUNYA_SOCRATA_URL=http://demo-portal:8000 CATALUNYA_IDESCAT_URL=http://demo-portal:8000 \
            CATALUNYA_ICGC_URL=http://demo-portal:8000
    fi
}

# Docker's client can give every container the host's proxy. Services of the stack are reached without it, and so is the
# address that gives a machine on AWS its credentials.
spare_services() {
    local name given=${NO_PROXY:-},${no_proxy:-}
    for name in localhost 127.0.0.1 ::1 169.254.169.254 169.254.170.2 airflow-apiserver demo-portal postgres redis prometheus; do
        case ",$given," in *",$name,"* | *",*,"*) ;; *) given=$given,$name ;; esac
    done
    NO_PROXY=$(printf '%s' "$given" | tr -s ' ,' ',' | sed 's/^,//; s/,$//')
    export NO_PROXY no_proxy=$NO_PROXY
}

# Once a day: delete logs and records of runs that are older than AIRFLOW_RETENTION_DAYS.
clean_up() {
    local days=${AIRFLOW_RETENTION_DAYS:-90} logs=/opt/airflow/logs
    find "$logs" -mindepth 1 -type f -mtime "+$days" -delete
    find "$logs" -mindepth 1 -type d -empty -mtime +1 -delete
    airflow db clean --yes --skip-archive --error-on-cleanup-failure \
        --clean-before-timestamp "$(date -u -d "-$days days" +%Y-%m-%dT%H:%M:%S+00:00)"
    say "deleted logs and records of runs that are older than $days days"
}

case "$ENVIRONMENT" in
    demo | development | production) ;;
    *) fail "set ENVIRONMENT to demo, development or production, not '$ENVIRONMENT'" ;;
esac
# A host may start the release step by its path, with or without this script as the entrypoint.
case "${1:-}" in */entrypoint.sh) shift ;; esac
service=${1:-bash}
if [ "$service" = site ]; then
    # It reads no secret, and checks none.
    exec catalunya site serve --host 0.0.0.0 --port "${PORT:-8081}" --to "${CATALUNYA_SITE:-/var/lib/catalunya/site}"
fi
read_secret_files
read_secret_backend
if [ "$ENVIRONMENT" = production ] || [ -n "${DATABASE_URL:-}" ]; then check_production; fi
database_host=postgres database_port=5432 queue_host=redis queue_port=6379 is_linked=
use_links
use_host
unset REDIS_URL
size_dbt
size_pools "$service"
spare_services
use_portal
case "$service" in
    secrets)
        check_memory
        check_code
        check_lake
        check_log_in
        check_site
        # Those of a database outside of the stack are there already.
        [ -n "$is_linked" ] || create_secrets
        ;;
    init | release)
        if [ "$service" = release ]; then
            check_code
            check_lake
            check_site
        fi
        wait_for "$database_host" "$database_port"
        export AIRFLOW__LOGGING__LOGGING_LEVEL=WARNING AIRFLOW__LOGGING__FAB_LOGGING_LEVEL=ERROR
        airflow db migrate
        airflow users create --role Admin --username "${AIRFLOW_ADMIN_USERNAME:-airflow}" \
            --password "${AIRFLOW_ADMIN_PASSWORD:-airflow}" --firstname Catalunya --lastname Data \
            --email "${AIRFLOW_ADMIN_EMAIL:-airflow@localhost.invalid}"
        catalunya doctor
        say "ready: environment $ENVIRONMENT, lake $CATALUNYA_LAKE"
        ;;
    api-server | scheduler | dag-processor | triggerer | worker | cleanup)
        [ -r "$secrets/sql_alchemy_conn" ] || fail "there are no secrets in $secrets yet; secrets-init creates them"
        wait_for "$database_host" "$database_port"
        # Only the step that creates the first user needs it.
        unset AIRFLOW_ADMIN_PASSWORD
        case "$service" in
            api-server)
                check_log_in
                case "${AIRFLOW__API__BASE_URL:-}" in
                    https://*)
                        # Behind a proxy: this machine, and the networks that Docker makes.
                        export FORWARDED_ALLOW_IPS=${FORWARDED_ALLOW_IPS:-127.0.0.0/8,::1,172.16.0.0/12,192.168.0.0/16}
                        exec airflow api-server --proxy-headers
                        ;;
                esac
                exec airflow api-server
                ;;
            dag-processor) exec airflow dag-processor ;;
            triggerer) exec airflow triggerer --skip-serve-logs ;;
            cleanup)
                # Not at once, when all services start.
                sleep 600
                while true; do
                    # The health check looks for this file.
                    if (clean_up); then rm -f /tmp/failed; else touch /tmp/failed; fi
                    sleep 86400
                done
                ;;
        esac
        if [ "$service" = worker ]; then
            wait_for "$queue_host" "$queue_port"
            export AIRFLOW__CORE__EXECUTOR=CeleryExecutor
            exec airflow celery worker --skip-serve-logs
        fi
        # With workers, the scheduler sends tasks to them; healthy.py restarts it when workers appear or disappear.
        export AIRFLOW__CORE__EXECUTOR=${AIRFLOW__CORE__EXECUTOR:-$(python orchestration/docker/healthy.py executor)}
        say "$AIRFLOW__CORE__EXECUTOR, dbt on $CATALUNYA_DBT_THREADS threads, DuckDB with $CATALUNYA_DUCKDB_MEMORY"
        exec airflow scheduler --skip-serve-logs
        ;;
    portal)
        exec catalunya demo serve --host 0.0.0.0 --port 8000
        ;;
    *)
        exec "$@"
        ;;
esac
