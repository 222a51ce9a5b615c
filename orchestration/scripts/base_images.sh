#!/usr/bin/env bash
# Build replacements of the base images from Debian packages, under the same tags: for hosts without a container registry.
#
#     orchestration/scripts/base_images.sh          # as root; needs debootstrap and a running engine
#
# The packages come from the sources in /etc/apt, for example your own mirror. The images get the certificate authorities
# of the host, so that builds trust the same servers.
set -euo pipefail
cd "$(dirname "$0")/../docker/base"
docker=${DOCKER:-docker}
suite=bookworm
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
if [ "$(id -u)" != 0 ]; then
    echo "base_images: debootstrap needs root; run it with sudo" >&2
    exit 1
fi
command -v debootstrap >/dev/null || {
    echo "base_images: debootstrap is missing: apt-get install debootstrap" >&2
    exit 1
}
if ! "$docker" image inspect "catalunya/debian:$suite" >/dev/null 2>&1; then
    mirror=$({ cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null || true; } \
        | awk '/^URIs:/ {print $2; exit} /^deb / {for (i = 2; i <= NF; i++) if ($i ~ /^http/) {print $i; exit}}')
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$mirror" >"$root.log" 2>&1 || {
        tail -20 "$root.log" >&2
        echo "base_images: debootstrap failed on ${mirror:-no mirror}; is it a Debian mirror with $suite?" >&2
        exit 1
    }
    rm -f "$root.log"
    install -D -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    tar -C "$root" --numeric-owner -c . | "$docker" import \
        --change "ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt" \
        --change "ENV DEBIAN_FRONTEND=noninteractive" - "catalunya/debian:$suite" >/dev/null
fi
airflow=$(sed -n 's/^ARG AIRFLOW_IMAGE=//p' ../../Dockerfile)
for pair in postgres=postgres:15 redis=redis:7.2-alpine "airflow=$airflow"; do
    echo "base_images: ${pair#*=}"
    DOCKER_BUILDKIT=1 "$docker" build --quiet --target "${pair%%=*}" --tag "${pair#*=}" . >/dev/null
done
