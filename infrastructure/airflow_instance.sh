# What the instance does at its first boot, as root: its data volume, Docker, the sources, the settings, the containers.
# `airflow_instance.py` puts the variables and the line of the interpreter before it.
# shellcheck shell=bash
set -euo pipefail
: "${STACK:?}" "${RESOURCE:?}" "${REGION:?}" "${VOLUME:?}" "${SOURCES:?}" "${SEED:?}" "${PASSWORD:?}" "${SETTINGS:?}"
export AWS_DEFAULT_REGION=$REGION DEBIAN_FRONTEND=noninteractive PATH=$PATH:/snap/bin
root=${CATALUNYA_BOOT_ROOT:-} # of tests
home=$root/opt/catalunya
say() { echo "airflow-instance: $*"; }

# The stack of AWS waits for this: without it the deployment fails after its time-out.
signal() {
    local status=SUCCESS
    [ "$1" -eq 0 ] || status=FAILURE
    say "$status"
    aws cloudformation signal-resource --stack-name "$STACK" --logical-resource-id "$RESOURCE" \
        --unique-id "$instance" --status "$status" ||
        say "no deployment waits for this instance"
}

retry() {
    local try
    for try in $(seq "$1"); do
        if "${@:2}"; then return; fi
        [ "$try" -eq "$1" ] || sleep 5
    done
    say "given up after $1 tries: ${*:2}"
    return 1
}

metadata() {
    local token
    token=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
    curl -sf -H "X-aws-ec2-metadata-token: $token" "http://169.254.169.254/latest/meta-data/$1"
}

install_packages() {
    apt-get -o DPkg::Lock::Timeout=300 -qq update
    apt-get -o DPkg::Lock::Timeout=300 -qq -y --no-install-recommends install \
        docker.io docker-buildx docker-compose-v2 unzip
}

# The instance before may still hold the volume. Only an empty one gets a file system.
mount_data() {
    local device=$root/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_${VOLUME/-/} found=0
    retry 60 aws ec2 attach-volume --volume-id "$VOLUME" --instance-id "$instance" --device /dev/sdf
    retry 30 test -e "$device"
    head -c 1048576 "$device" >/dev/null
    blkid -p "$device" || found=$?
    case "$found" in
        0) ;;
        2) mkfs.ext4 -q -L catalunya "$device" ;;
        *) say "cannot tell what the volume $VOLUME holds (blkid: $found)" && return 1 ;;
    esac
    mkdir -p "$root/var/lib/docker" "$root/etc/systemd/system/docker.service.d"
    echo "LABEL=catalunya /var/lib/docker ext4 defaults,nofail 0 2" >>"$root/etc/fstab"
    # After a restart of the machine Docker waits for the volume.
    printf '[Unit]\nRequiresMountsFor=/var/lib/docker\n' >"$root/etc/systemd/system/docker.service.d/data.conf"
    systemctl daemon-reload
    mount /var/lib/docker
}

get_secret() { aws secretsmanager get-secret-value --secret-id "$1" --query SecretString --output text; }

# All keys are derived from one secret, so that every instance has the same: PostgreSQL keeps the first password.
write_settings() {
    local seed password
    seed=$(get_secret "$SEED")
    password=$(get_secret "$PASSWORD")
    umask 077
    {
        echo "$SETTINGS"
        printf 'AIRFLOW_ADMIN_USERNAME=admin\nAIRFLOW_ADMIN_PASSWORD=%s\n' "$password"
        printf 'AIRFLOW_BIND=127.0.0.1\nAIRFLOW_PORT=8080\nAIRFLOW_BASE_URL=http://localhost:8080\n'
        seed=$seed python3 -c '
import base64, hashlib, hmac, os
def derive(name):
    return hmac.new(os.environ["seed"].encode(), name.encode(), hashlib.sha256).digest()
fernet = "AIRFLOW__CORE__FERNET_KEY"
print(fernet, base64.urlsafe_b64encode(derive(fernet)).decode(), sep="=")
for name in ("AIRFLOW__API__SECRET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET", "POSTGRES_PASSWORD", "REDIS_PASSWORD"):
    print(name, derive(name).hex(), sep="=")'
    } >"$home/orchestration/config/environment/production.env"
    umask 022
}

start_airflow() {
    local files=(-f docker-compose.yml --env-file config/environment/production.env)
    cd "$home/orchestration"
    docker build --quiet --file Dockerfile --tag catalunya/airflow:latest ..
    scripts/up.sh "${files[@]}"
    docker image prune --force >/dev/null
    docker compose "${files[@]}" exec -T airflow-scheduler catalunya doctor --aws ||
        say "the doctor found what is wrong with the rights, above; Airflow runs"
}

instance=$(retry 12 metadata instance-id)
trap 'signal $?' EXIT
snap wait system seed.loaded
retry 6 snap install aws-cli --classic
mount_data
retry 12 install_packages
mkdir -p "$home"
aws s3 cp --only-show-errors "$SOURCES" "$home/sources.zip"
unzip -q -o "$home/sources.zip" -d "$home"
write_settings
start_airflow
