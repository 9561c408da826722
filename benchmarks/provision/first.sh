# What the demo's server is made of, as somebody would type it: packages, files, services, image.
# Runs as root on the server, in a directory with the files to be declared (tools.py, `declare`).
# shellcheck disable=SC2154 # what is not set here comes with the environment
set -eu
export DEBIAN_FRONTEND=noninteractive

put() { tar -cp "$@" | tar -xp --no-same-owner -C /; }
install_packages() { apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }

put etc/apt/apt.conf.d/zz-llmhost
apt-get update -qq
install_packages apparmor ca-certificates tzdata unattended-upgrades
put etc/sysctl.d/60-llmhost.conf
sysctl -q -p /etc/sysctl.d/60-llmhost.conf
systemctl -q enable ssh

mkdir -p /etc/docker
put etc/docker/daemon.json
install_packages docker.io docker-cli docker-compose docker-buildx
systemctl -q enable --now containerd docker

install_packages ufw
put etc/default/ufw etc/ufw
ufw --force enable >/dev/null

install_packages nginx libnginx-mod-http-perl logrotate openssl mtail
put etc/nginx etc/logrotate.d/llmhost-gateway etc/default/mtail etc/mtail
nginx -q -t
systemctl -q enable nginx mtail
systemctl restart nginx mtail

install_packages curl nftables
. ./images/names
tar --create --numeric-owner --owner=0 --group=0 --mode=0444 --mtime=@0 \
    --directory images/model "$model_file" |
    docker import --change "LABEL llmhost.inputs=$model_inputs" - "$model" >/dev/null
docker pull --quiet "$engine" >/dev/null
docker buildx build --builder default --provenance=false --quiet \
    --label "llmhost.inputs=$service_inputs" --tag "$service" images/service >/dev/null
put opt/llmhost
(cd /opt/llmhost && docker compose --progress quiet up -d --wait)

put usr/local/sbin/llmhost-heal etc/systemd/system/llmhost-heal.service \
    etc/systemd/system/llmhost-heal.timer
systemctl daemon-reload
systemctl -q enable --now llmhost-heal.timer
put var/lib/llmhost/receipt.json
