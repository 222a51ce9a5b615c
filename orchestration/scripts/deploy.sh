#!/usr/bin/env bash
# Deploy the checked-out commit to a Dokku host; each run makes what is missing, and changes nothing that is right already.
#
#     orchestration/scripts/deploy.sh --host dokku.example.org --domain airflow.example.org --site-domain data.example.org \
#         [--app catalunya] [--environment production] [--lake s3://bucket/prefix] [--email you@example.org] [--dry-run]
#
# DATABASE_URL and REDIS_URL in the environment name services outside of the host; without them the plugins of Dokku make and
# link their own. Secrets are made once, on this machine, and never printed. docs/deploy-dokku.md says what the host needs.
set -euo pipefail
cd "$(dirname "$0")/../.."
app=catalunya environment=production host='' domain='' site_domain='' lake='' email='' dry_run=''
say() { echo "deploy: $*" >&2; }
fail() {
    say "$*"
    exit 1
}
while [ $# -gt 0 ]; do
    case "$1" in
        --dry-run) dry_run=1 && shift ;;
        --app | --environment | --host | --domain | --site-domain | --lake | --email)
            name=$(echo "${1#--}" | tr - _)
            printf -v "$name" '%s' "${2:?$1 needs a value}"
            shift 2
            ;;
        *) fail "unknown option $1; see the first lines of $0" ;;
    esac
done
[ -n "$host" ] || fail "name the host: --host dokku.example.org"
[ -n "$domain" ] || fail "name the domain of Airflow: --domain airflow.example.org"
[ -n "$site_domain" ] || fail "name the domain of the public site: --site-domain data.example.org"
case "$environment:$lake" in
    production:s3://?*) ;;
    production:*) fail "the lake of production is in S3: --lake s3://bucket/prefix, or --environment development for a folder of the host" ;;
esac
site=$app-site
data=/var/lib/dokku/data/storage/$app

# Ask the host; nothing is changed.
dokku() { ssh -o BatchMode=yes "dokku@$host" "$@" </dev/null; }
# Change the host, unless this is a dry run. Values of variables are not shown.
change() {
    local shown=() word
    for word in "$@"; do
        case "$word" in [A-Z]*=*) shown+=("${word%%=*}=…") ;; *) shown+=("$word") ;; esac
    done
    say "${dry_run:+would run: }dokku ${shown[*]}"
    if [ -z "$dry_run" ]; then dokku "$@" >&2; fi
}
quoted() { printf "%q" "$1"; }

ssh -o BatchMode=yes "dokku@$host" version </dev/null >/dev/null || fail "dokku@$host does not answer: is your SSH key known there (dokku ssh-keys:add)?"
plugins=$(dokku plugin:list)
needs_plugin() { echo "$plugins" | grep -qE "^ *$1 " || fail "the host has no plugin $1: as root there, dokku plugin:install $2"; }

for one in "$app" "$site"; do
    dokku apps:exists "$one" >/dev/null 2>&1 || change apps:create "$one"
done

# Database and queue: those of the environment, or those of the host.
linked() {
    local kind=$1 url=$2
    [ -z "$url" ] || return 0
    needs_plugin "$kind" "https://github.com/dokku/dokku-$kind.git $kind"
    dokku "$kind:exists" "$app" >/dev/null 2>&1 || change "$kind:create" "$app"
    dokku "$kind:linked" "$app" "$app" >/dev/null 2>&1 || change "$kind:link" --no-restart "$app" "$app"
}
linked postgres "${DATABASE_URL:-}"
linked redis "${REDIS_URL:-}"

# Tasks report to the API server by the network of the app.
dokku network:exists "$app" >/dev/null 2>&1 || change network:create "$app"
change network:set "$app" attach-post-create "$app"

configure() {
    local one=$1 name wanted found pairs=()
    shift
    for name in "$@"; do
        wanted=${name#*=}
        name=${name%%=*}
        found=$(dokku config:get "$one" "$name" 2>/dev/null || true)
        if [ "$wanted" = "new-secret" ]; then
            [ -z "$found" ] || continue
            wanted=$(new_secret "$name")
        fi
        [ "$found" = "$wanted" ] || pairs+=("$name=$(quoted "$wanted")")
    done
    if [ "${#pairs[@]}" -gt 0 ]; then change config:set --no-restart "$one" ${pairs[@]+"${pairs[@]}"}; fi
}
new_secret() {
    case "$1" in
        *FERNET*) head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n' ;;
        *) head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' ;;
    esac
}
settings=(
    "ENVIRONMENT=$environment" "CATALUNYA_LAKE=${lake:-/var/lib/catalunya/lake}"
    CATALUNYA_SITE=/var/lib/catalunya/site "CATALUNYA_SITE_URL=https://$site_domain"
    "AIRFLOW__API__BASE_URL=https://$domain" "AIRFLOW__CORE__EXECUTION_API_SERVER_URL=http://$app.web:5000/execution/"
    AIRFLOW_ADMIN_USERNAME=admin AIRFLOW_ADMIN_PASSWORD=new-secret AIRFLOW__CORE__FERNET_KEY=new-secret
    AIRFLOW__API__SECRET_KEY=new-secret AIRFLOW__API_AUTH__JWT_SECRET=new-secret
)
for name in DATABASE_URL REDIS_URL CATALUNYA_NOTIFY_URLS SOCRATA_APP_TOKEN CATALUNYA_ENGINE AWS_REGION AWS_ACCESS_KEY_ID \
    AWS_SECRET_ACCESS_KEY; do
    [ -z "${!name:-}" ] || settings+=("$name=${!name}")
done
configure "$app" "${settings[@]}"

mounted() { dokku storage:list "$1" 2>/dev/null | grep -qF "$2" || change storage:mount "$1" "$2"; }
mounted "$app" "$data/logs:/opt/airflow/logs"
mounted "$app" "$data/site:/var/lib/catalunya/site"
case "$lake" in s3://*) ;; *) mounted "$app" "$data/lake:/var/lib/catalunya/lake" ;; esac
mounted "$site" "$data/site:/var/lib/catalunya/site:ro"

for one in "$app" "$site"; do
    change builder:set "$one" selected dockerfile
    change builder-dockerfile:set "$one" dockerfile-path orchestration/Dockerfile
    change ports:set "$one" http:80:5000
done
# The site is an app of its own, since the host's proxy leads to the process `web` of an app only.
change ps:set "$site" procfile-path orchestration/dokku/site.Procfile
change app-json:set "$site" appjson-path orchestration/dokku/site.app.json
change domains:set "$app" "$domain"
change domains:set "$site" "$site_domain"
# The old containers may end their tasks: they are asked to stop a minute after the new ones are healthy, and have two more.
change ps:set "$app" stop-timeout 120
# By default Dokku gives a process up after ten restarts, which a database that is down for some minutes takes.
for one in "$app" "$site"; do
    change ps:set "$one" restart-policy unless-stopped
done
change ps:scale --skip-deploy "$app" web=1 scheduler=1 dag-processor=1 triggerer=1 worker=1 cleanup=1 site=0

commit=$(git rev-parse HEAD)
for one in "$app" "$site"; do
    if [ "$(dokku config:get "$one" GIT_REV 2>/dev/null || true)" = "$commit" ]; then
        say "$one runs $commit already"
    else
        say "${dry_run:+would run: }git push dokku@$host:$one $commit:refs/heads/main"
        [ -n "$dry_run" ] || git push --quiet --force "dokku@$host:$one" "$commit:refs/heads/main"
    fi
done

if [ -n "$email" ]; then
    needs_plugin letsencrypt https://github.com/dokku/dokku-letsencrypt.git
    for one in "$app" "$site"; do
        if [ "$(dokku letsencrypt:active "$one" 2>/dev/null || true)" != true ]; then
            change letsencrypt:set "$one" email "$email"
            change letsencrypt:enable "$one"
        fi
    done
fi
say "Airflow: https://$domain (user admin; the password: ssh dokku@$host config:get $app AIRFLOW_ADMIN_PASSWORD)"
say "the public site, after the first run: https://$site_domain"
