"""The state of a server in comparable lines: equal lines, equal servers.

Left out is what differs between two servers that are as declared: times, keys that each makes for
itself, ids that Docker draws, counters, and who deployed when.
"""

import hashlib

from testbed import Machine

_SCRIPT = r"""
LC_ALL=C; export LC_ALL
tell() { sed "s/^/$1 /"; }

find /etc/nginx /etc/ufw /etc/docker /etc/mtail /etc/default/ufw /etc/default/mtail \
  /etc/sysctl.d /etc/apt /etc/systemd /etc/logrotate.d /etc/modprobe.d /etc/hosts /etc/hostname \
  /etc/localtime /etc/timezone /etc/resolv.conf /opt/llmhost /usr/local /var/lib/llmhost \
  /var/log/nginx/gateway.json ! -path '/var/lib/llmhost/receipts*' ! -name '*history.jsonl' \
  -printf '%y %u:%g %m %l %p\n' 2>/dev/null | sed 's|/deploys/[0-9].*|/deploys/TIME.tar|' |
  sort -k5 | tell file
find /etc/nginx /etc/ufw /etc/docker /etc/mtail /etc/default/ufw /etc/default/mtail \
  /etc/sysctl.d /etc/apt /etc/systemd /etc/logrotate.d /etc/modprobe.d /etc/hosts /etc/hostname \
  /etc/timezone /etc/resolv.conf /opt/llmhost /usr/local /var/lib/llmhost -type f \
  ! -path '/var/lib/llmhost/receipt*' ! -path '/var/lib/llmhost/deploys/*' \
  ! -name '*history.jsonl' ! -name tls.pem \
  ! -name status.conf -print0 2>/dev/null | sort -z | xargs -0r sha256sum | tell content
grep -v '"time"' /var/lib/llmhost/receipt.json | grep -v sha256: | tell receipt

systemctl list-unit-files --no-legend --plain | awk '$2 != "transient" { print $1, $2 }' |
  tell unit
systemctl list-units --failed --no-legend --plain | tell failed
for unit in docker docker.socket containerd nginx ufw mtail ssh llmhost-heal.timer \
  apt-daily.timer apt-daily-upgrade.timer logrotate.timer; do
  echo "$unit $(systemctl show -P ActiveState $unit) $(systemctl show -P NeedDaemonReload $unit)"
done | tell runs

dpkg-query -W -f '${db:Status-Abbrev}${Package} ${Version}\n' | tell package
dpkg --audit | tell broken
ls /var/lib/dpkg/updates | tell journal

ufw status verbose | tell ufw
for family in iptables ip6tables; do
  $family -S | grep -E '^-P|^-A (INPUT|DOCKER-USER|ufw)' | sort | tell $family
done

for container in $(docker ps -aq); do
  docker inspect -f '{{.Name}} {{.Config.Image}} {{.State.Status}} {{.State.Health.Status}}
{{index .Config.Labels "com.docker.compose.config-hash"}}
{{json .Config.Cmd}} {{json .HostConfig}}' "$container" |
    sed 's/:\[\]/:null/g' | tr '\n' ' '  # as Docker writes it once it was started again
  # Compose gives variables in any order.
  docker inspect -f '{{range .Config.Env}}{{println .}}{{end}}' "$container" | sort | tr '\n' ' '
  echo
done | sort | tell container
docker image ls --format '{{.Repository}}:{{.Tag}}' | sort | while read -r image; do
  echo "$image $(docker image inspect -f '{{index .Config.Labels "llmhost.inputs"}}' "$image")"
done | tell image
docker network ls --format '{{.Name}} {{.Driver}} {{.Label "com.docker.compose.project"}}' |
  sort | tell network
docker volume ls --format '{{.Name}} {{.Driver}}' | sort | tell volume

sysctl net.core.somaxconn net.ipv4.tcp_keepalive_time net.ipv4.ip_forward | tell sysctl
ls -A /run/llmhost-firewall /run/llmhost-network 2>/dev/null | tell trial
"""


def state_lines(machine: Machine) -> list[str]:
    """What matters of a server, line by line: the first word says what kind of thing it is."""
    return machine.ssh("sh -s", input=_SCRIPT).stdout.splitlines()


def state_digest(machine: Machine) -> str:
    """One hash of it all."""
    return hashlib.sha256("\n".join(state_lines(machine)).encode()).hexdigest()
