#!/usr/bin/env bash
# Run a command with a container engine, on a Debian host without an engine and without a container registry.
#
#     orchestration/scripts/engine.sh make test-stack     # as root
#
# Installs the engine and Compose from Debian packages, starts a new, empty daemon, builds replacements of the base images,
# runs the command, stops the daemon and removes its data. If an engine with Compose runs already, the command uses that.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if docker compose version >/dev/null 2>&1 && docker info >/dev/null 2>&1; then
    exec "$@"
fi
say() { echo "engine: $*" >&2; }
if [ "$(id -u)" != 0 ]; then
    say "no engine answers, and starting one needs root: start Docker, or run this with sudo"
    exit 1
fi
work=$(mktemp -d /var/tmp/catalunya-engine.XXXXXX)
export DOCKER_CONFIG="$work/config"
plugins="$DOCKER_CONFIG/cli-plugins"
mkdir -p "$plugins"
apt() { apt-get -qq -o DPkg::Lock::Timeout=400 "$@"; }

if [ ! -x /usr/sbin/dockerd ] || ! command -v iptables debootstrap ip >/dev/null; then
    say "installing the engine"
    apt update
    DEBIAN_FRONTEND=noninteractive apt install -y --no-install-recommends \
        docker.io iptables debootstrap ca-certificates iproute2 >/dev/null
fi
# Debian 12 has Compose 1; version 2 comes from the next release and is unpacked outside of the system.
say "fetching Compose 2"
lists="$work/apt"
mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial"
mirror=$(awk '/^URIs:/ {print $2; exit}' /etc/apt/sources.list.d/debian.sources)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$lists/trixie.list"
own=(-o "Dir::Etc::sourcelist=$lists/trixie.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$lists/lists"
    -o "Dir::Cache=$lists/cache" -o APT::Sandbox::User=root)
apt "${own[@]}" update
(cd "$lists" && apt "${own[@]}" download docker-compose >/dev/null && dpkg-deb -x docker-compose_*.deb x)
install -m 0755 "$(find "$lists/x" -type f -name docker-compose -perm -u+x | head -1)" "$plugins/docker-compose"

# Debian's client comes first, so that client and daemon have the same version.
export PATH="/usr/bin:$PATH" DOCKER_HOST="unix://$work/docker.sock"
say "starting dockerd"
/usr/sbin/dockerd --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/pid" --host "$DOCKER_HOST" \
    >"$work/dockerd.log" 2>&1 &
daemon=$!
stop() {
    status=$?
    kill -TERM "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
    rm -rf "$work"
    exit "$status"
}
trap stop EXIT
for _ in $(seq 60); do
    docker info >/dev/null 2>&1 && break
    if ! kill -0 "$daemon" 2>/dev/null; then
        tail -5 "$work/dockerd.log" >&2
        say "dockerd does not start here; it needs root, cgroups and iptables"
        exit 1
    fi
    sleep 0.5
done
say "building the base images"
"$here/base_images.sh" >&2
"$@"
