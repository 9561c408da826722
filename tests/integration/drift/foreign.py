"""What is not ours, and is left alone."""

from tests.integration.drift.case import IMAGE, Foreign

FOREIGN = (
    Foreign(
        "a container of somebody else's",
        f"docker run -d --name mine --restart no {IMAGE} --model /models/tiny.gguf",
        "docker inspect -f '{{.Id}} {{.State.StartedAt}}' mine",
        "docker rm -f mine",
    ),
    Foreign(
        "a container that uses the stack's network",
        f"docker run -d --name guest --network llmhost_default {IMAGE} --model /models/tiny.gguf",
        "docker inspect -f '{{.Id}} {{.State.StartedAt}}' guest",
        "docker rm -f guest",
    ),
    Foreign(
        "an image of somebody else's",
        f"docker tag {IMAGE} mine:1",
        "docker image inspect -f '{{.Id}}' mine:1",
        "docker rmi mine:1",
    ),
    Foreign(
        "a volume and a network of somebody else's",
        "docker volume create mine; docker network create mine",
        "docker volume inspect mine; docker network inspect -f '{{.Id}}' mine",
        "docker volume rm mine; docker network rm mine",
    ),
    Foreign(
        "a key of daemon.json that is not ours",
        "sed -i '1s/{/{\"max-concurrent-uploads\": 2,/' /etc/docker/daemon.json",
        "grep -o '.max-concurrent-uploads.: 2' /etc/docker/daemon.json",
        "sed -i /max-concurrent-uploads/d /etc/docker/daemon.json",
    ),
    Foreign(
        "files next to ours",
        "for place in /etc/nginx/conf.d/mine.conf /etc/sysctl.d/70-mine.conf"
        " /etc/apt/apt.conf.d/70mine /opt/llmhost/notes.txt /etc/logrotate.d/mine; do"
        " echo '# mine' >$place; done",
        "cat /etc/nginx/conf.d/mine.conf /etc/sysctl.d/70-mine.conf /etc/apt/apt.conf.d/70mine"
        " /opt/llmhost/notes.txt /etc/logrotate.d/mine",
        "rm /etc/nginx/conf.d/mine.conf /etc/sysctl.d/70-mine.conf /etc/apt/apt.conf.d/70mine"
        " /opt/llmhost/notes.txt /etc/logrotate.d/mine",
    ),
    Foreign(
        "lines of /etc/hosts that are not ours",
        "echo '192.0.2.9 printer.example' >>/etc/hosts",
        "grep -n printer /etc/hosts",
        "sed -i /printer/d /etc/hosts",
    ),
    Foreign(
        "a kernel parameter that is not declared",
        "sysctl -qw net.ipv4.tcp_keepalive_intvl=42",
        "sysctl net.ipv4.tcp_keepalive_intvl",
        "sysctl -qw net.ipv4.tcp_keepalive_intvl=75",
    ),
    Foreign(
        "a package and its hold",
        "apt-mark hold tzdata",
        "apt-mark showhold | grep tzdata",
        "apt-mark unhold tzdata",
    ),
    Foreign(
        "a unit of somebody else's",
        "systemd-run -q --unit=mine sleep infinity",
        "systemctl show -P MainPID mine",
        "systemctl stop mine",
    ),
    Foreign(
        "chains of netfilter that other programs guard the host with",
        "iptables -N f2b-mine; iptables -A f2b-mine -s 192.0.2.66 -j DROP;"
        " iptables -I INPUT -p tcp --dport 22 -j f2b-mine",
        "iptables -S f2b-mine; iptables -S INPUT | grep f2b-mine",
        "iptables -D INPUT -p tcp --dport 22 -j f2b-mine; iptables -F f2b-mine;"
        " iptables -X f2b-mine",
    ),
    Foreign(
        "a table of nftables",
        "nft add table inet mine; nft add chain inet mine c",
        "nft list table inet mine",
        "nft delete table inet mine",
    ),
    Foreign("a user", "useradd -m mine", "id mine; ls -lad /home/mine", "userdel -r mine"),
)
"""What is nobody's drift. All of it is on the server while much of ours is corrected."""
