"""What an operator does when a check fails. A check without an entry has its component's."""

OF_COMPONENTS = {
    "connection": "Try `ssh` to the server by hand, as the user of the inventory.",
    "container_toolkit": "Deploy again. Then see `journalctl -u nvidia-cdi-refresh` on the server.",
    "docker": "Deploy again. Then see `systemctl status docker` and `journalctl -u docker`.",
    "firewall": "`llmhost plan INVENTORY` names the rules that differ; deploy to correct them.",
    "gateway": "`llmhost plan INVENTORY` names what differs. Then see `nginx -t`, "
    "`systemctl status nginx` and `/var/log/nginx/error.log`.",
    "gpu": "See docs/nvidia.md, and `docker inspect` of the service's container.",
    "nvidia_driver": "`llmhost plan INVENTORY` names what differs and whether a reboot is due; "
    "docs/nvidia.md tells the rules.",
    "receipt": "Deploy again: the receipt is the last thing that a complete deploy writes.",
    "stack": "`docker compose -p llmhost ps --all` and `docker logs` tell why; then deploy again.",
    "system": "`llmhost plan INVENTORY` names what differs; deploy to correct it.",
}
"""By component: the next step where a check has none of its own."""

OF_A_SERVICE = (
    "See `docker logs llmhost-{service}-1` on the server; a deploy restores container and image."
)

NEXT_STEPS = {
    "connection.server-answers-and-commands-run-as-root": "Try `ssh` to the server by hand, as "
    "the inventory's `ssh_user`. Not root: set `_sudo`, and let that user use sudo without a "
    "password.",
    "container_toolkit.specs-are-kept-fresh": "Deploy again, then see "
    "`systemctl status nvidia-cdi-refresh.path`.",
    "container_toolkit.docker-knows-the-runtime-and-does-not-use-it-by-default": "Look for "
    "`default-runtime` in `docker_daemon_options` and in /etc/docker/daemon.json; deploy again.",
    "docker.daemon-is-younger-than-its-configuration": "Deploy again: it restarts the daemon. "
    "Where `live-restore` is on, containers go on running.",
    "docker.api-is-for-root-on-the-host-alone": "Somebody opened Docker's API: remove `hosts` "
    "from daemon.json and `-H tcp://` from drop-ins of docker.service. Whoever reaches it is root.",
    "docker.no-port-is-published-beyond-loopback": "A container that is not llmhost's publishes "
    "a port: `docker ps` names it. Publish on 127.0.0.1 (`-p 127.0.0.1:PORT:PORT`).",
    "docker.networks-of-the-stack-publish-on-loopback": "Deploy again: it makes the network anew.",
    "docker.pinned-version-is-installed-and-held": "Deploy again. If apt does not find the "
    "version, `apt-cache madison docker-ce` lists those that are there.",
    "firewall.ufw-is-active-and-starts-at-boot": "Deploy again: it switches ufw on, with your "
    "own connection admitted.",
    "firewall.no-change-of-rules-waits-for-confirmation": "A deploy is changing the rules just "
    "now, or broke off: wait for `firewall_confirm_seconds`, then deploy again.",
    "firewall.undeclared-ports-are-refused-from-outside": "Find who listens with "
    "`ss -ltnp`, at once: engines know no keys. If the port is meant to be open, declare it in "
    "`firewall_rules`; if not, deploy again.",
    "firewall.declared-ports-are-reached-from-outside": "Something between the two machines "
    "filters, or another firewall runs on the server (`nft list ruleset`).",
    "gateway.nginx-finds-its-configuration-sound": "`nginx -t` names file and line. Files that "
    "llmhost manages are corrected by a deploy; a file of your own in /etc/nginx is yours.",
    "gateway.nginx-listens-where-it-is-declared-and-nowhere-else": "Nothing listens: nginx is "
    "down, and a deploy starts it. Another port: `nginx -T | grep listen` names it.",
    "gateway.key-of-the-certificate-is-readable-by-root-only": "Deploy again to set the mode; "
    "if others could read the key, replace the certificate.",
    "gateway.digests-of-keys-are-readable-by-root-only": "Deploy again to set the mode.",
    "gateway.every-route-is-closed-without-a-valid-key": "If a route answered a stranger, take the "
    "server off the network, and see what `llmhost plan INVENTORY` names. If nothing answered, see "
    "`systemctl status nginx`.",
    "gateway.client-reaches-the-engine": "Ask the engine itself: `docker logs` of the first "
    "service. 401: `LLMHOST_API_KEY` is no key of a declared client.",
    "gateway.log-is-json-without-keys": "If a log holds a key, remove the log and rotate that "
    "client's key: `llmhost key rotate NAME FILE`. If nothing was logged, see `systemctl status "
    "nginx`.",
    "gpu.completion-is-computed-on-the-gpus-that-the-service-was-given": "The service answers "
    "without its GPU: see its `docker logs` for CUDA errors, and recreate it by a deploy.",
    "nvidia_driver.nvml-works": "Run `nvidia-smi` on the server. 'Driver/library version "
    "mismatch' asks for a reboot.",
    "nvidia_driver.every-gpu-on-the-bus-is-listed-by-the-driver": "`dmesg | grep -i nvrm` tells "
    "why a GPU was not taken: seat, power, or a driver branch that does not know it.",
    "nvidia_driver.loaded-module-is-the-one-of-the-libraries": "Reboot the server: its module "
    "and its libraries differ.",
    "nvidia_driver.driver-has-no-known-security-hole": "Deploy again: it lifts the hold for the "
    "fixed version. If `nvidia_driver_branch` is set, choose a maintained one.",
    "nvidia_driver.no-linux-driver-is-installed-on-wsl": "Remove it: "
    "`apt-get purge 'nvidia-*' 'libnvidia-*'`. On WSL the driver is Windows's.",
    "receipt.receipt-is-of-these-settings": "The inventory has changed since the last deploy: "
    "`llmhost plan INVENTORY` shows what is outstanding.",
    "stack.every-service-is-healthy": "`docker inspect -f '{{json .State.Health}}' CONTAINER` "
    "shows what its check said, `docker logs CONTAINER` why.",
    "stack.no-process-is-root-or-can-become-it": "The container was not made by llmhost's "
    "Compose files, or by older ones: deploy again.",
    "stack.declared-weights-are-in-the-running-container": "Another image runs than the "
    "inventory declares: deploy again.",
    "stack.exactly-the-declared-services-run": "Deploy again. A container that is not declared "
    "was started by hand in llmhost's project: remove it, or give it a project of its own.",
    "system.something-keeps-the-clock-right": "Deploy again; `timedatectl` shows what keeps it.",
    "system.sshd-starts-at-boot": "`systemctl enable ssh`, or nobody gets in after a reboot.",
    "system.packages-are-all-in-order": "`dpkg --audit` names them; `dpkg --configure -a` and "
    "`apt-get -f install` finish what was interrupted.",
}
"""By the id of a check."""
