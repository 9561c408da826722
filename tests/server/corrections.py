"""Which operation of a deploy corrects what a check finds, or why none can.

What `llmhost verify` checks and a deploy could correct, `llmhost plan` must find. A unit test
requires a row for each check, and compares the operations with those of real deploys.
"""

CORRECTED_BY: dict[str, tuple[str, ...]] = {
    "System: apt.settled": ("system.all-packages-are-fully-installed",),
    "System: files.present": (
        "system.apt-waits-for-another-package-manager",
        "system.unused-protocols-cannot-be-loaded",
        "system.security-fixes-install-themselves-without-a-reboot",
    ),
    "System: clock.right": (
        "system.clock-shows-the-declared-time-zone",
        "system.clock-is-synchronized",
    ),
    "System: sysctl.parameters": (
        "system.kernel-has-the-declared-parameters",
        "system.container-does-not-change-its-hosts-kernel",
    ),
    "System: systemd.starts_at_boot": ("system.sshd-starts-at-boot",),
    "System: audit.watched": ("system.changes-of-accounts-and-docker-are-audited",),
    "System: sshd.settings": (
        "system.sshd-has-the-settings-of-its-hardening",
        "system.sshd-offers-no-password-log-in",
    ),
    "System: systemd.without_overrides": ("system.no-unit-has-undeclared-overrides",),
    "Network: hostname.present": ("network.host-has-the-declared-name",),
    "Network: hosts_file.entries": ("network.declared-names-resolve-to-their-addresses",),
    "Network: network.addresses": (
        "network.host-has-its-addresses-permanently",
        "network.addresses-are-saved-and-confirmed",
    ),
    "Network: resolver.nameservers": ("network.host-uses-the-declared-name-servers",),
    "NVIDIA driver: nvidia_driver.present": (
        "nvidia_driver.nvml-works",
        "nvidia_driver.loaded-module-matches-the-libraries",
        "nvidia_driver.nvidia-smi-and-nvml-agree",
        "nvidia_driver.driver-has-no-known-security-hole",
        "nvidia_driver.driver-is-not-upgraded-automatically",
        "nvidia_driver.next-kernel-has-its-module",
        "nvidia_driver.nouveau-is-not-loaded",
        "nvidia_driver.gpus-are-set-as-declared",
        "nvidia_driver.fabric-manager-has-the-version-of-the-driver",
    ),
    "Docker: docker.engine": (
        "docker.compose-and-buildx-are-installed",
        "docker.pinned-version-is-installed-and-held",
    ),
    "Docker: docker.daemon": (
        "docker.every-declared-key-is-in-the-file",
        "docker.daemon-is-hardened",
        "docker.containers-on-the-default-bridge-are-apart",
    ),
    "Docker: containerd.rooted": ("docker.images-are-in-the-declared-directory",),
    "Docker: docker.api_socket": ("docker.api-is-for-root-on-the-host-only",),
    "Docker: docker.guarded": ("firewall.docker-starts-with-the-rules-of-ufw-first",),
    "Docker: systemd.service": (
        "docker.engine-runs-now-and-at-boot",
        "docker.daemon-runs-the-declared-configuration",
        "docker.daemon-was-started-after-its-configuration-changed",
    ),
    "Container toolkit: container_toolkit.present": (
        "container_toolkit.all-four-packages-have-the-declared-version-and-are-held",
        "container_toolkit.apt-knows-the-toolkits-repository-once",
        "container_toolkit.cdi-describes-exactly-the-installed-gpus",
        "container_toolkit.devices-and-files-of-cdi-exist-and-suffice-for-cuda",
        "container_toolkit.nvidia-smi-runs-in-a-throwaway-container",
        "container_toolkit.cdi-specs-are-refreshed",
        "container_toolkit.docker-starts-after-the-specs-or-after-a-limited-wait",
        "container_toolkit.no-unit-was-left-out-because-of-an-ordering-cycle",
        "container_toolkit.docker-knows-the-runtime-and-does-not-use-it-by-default",
    ),
    "Egress: nftables.table": (
        "egress.containers-connect-only-to-declared-addresses",
        "egress.rules-are-loaded-before-docker-starts",
    ),
    "Firewall: ufw.rules": (
        "firewall.ufw-is-active-and-starts-at-boot",
        "firewall.incoming-and-routed-packets-are-denied-by-default",
        "firewall.rules-are-loaded-in-netfilter",
        "firewall.exactly-the-declared-rules-exist",
        "firewall.published-ports-are-guarded-before-docker-opens-them",
        "firewall.undeclared-ports-are-refused-from-outside",
        "firewall.declared-ports-are-reached-from-outside",
    ),
    "Gateway: nginx.configuration": (
        "gateway.nginx-runs-and-starts-at-boot",
        "gateway.nginx-accepts-its-configuration",
        "gateway.nginx-listens-only-where-it-is-declared",
        "gateway.unknown-names-get-no-certificate",
        "gateway.key-of-the-certificate-is-readable-by-root-only",
        "gateway.digests-of-keys-are-readable-by-root-only",
        "gateway.every-route-is-closed-without-a-valid-key",
        "monitoring.metrics-need-a-key",
        "gateway.refusal-names-its-reason-and-not-the-server",
        "gateway.undeclared-routes-are-closed-to-clients-too",
        "gateway.client-reaches-the-engine",
        "gateway.key-in-the-address-is-refused",
        "gateway.models-are-listed-at-one-address",
        "gateway.each-place-of-models-answers-at-one-address",
        "gateway.unknown-model-is-refused",
        "open_webui.browsers-reach-it-on-its-own-port",
    ),
    "Gateway: systemd.service": (
        "gateway.access-log-is-rotated",
        "gateway.metrics-are-offered-only-on-the-host",
    ),
    "Stack: images.built": (
        "stack.images-were-built-here",
        "stack.weights-are-not-stored-twice",
    ),
    "Stack: compose.project": (
        "docker.networks-of-the-stack-publish-on-loopback",
        "egress.containers-look-up-names-of-services-alone",
        "gpu.containers-may-open-the-devices-of-their-gpus",
        "gpu.every-service-has-exactly-the-gpus-it-requests",
        "gpu.no-gpu-is-shared-unless-its-services-allow-it",
        "stack.compose-files-name-who-manages-them",
        "stack.containers-reach-only-what-is-declared",
        "stack.declared-weights-are-in-the-running-container",
        "stack.every-service-is-healthy",
        "stack.exactly-the-declared-services-run",
        "stack.logs-are-capped",
        "stack.no-process-is-root-or-can-become-root",
        "stack.no-volume-hides-what-is-baked",
        "stack.ports-are-published-on-the-loopback-only",
        "stack.root-file-systems-are-read-only",
        "stack.services-have-limits-in-proportion-to-the-server",
        "stack.services-come-back-after-a-reboot",
        "stack.service-that-an-operator-stopped-does-not-run",
    ),
    "Healing: files.present": (
        "healing.last-run-succeeded",
        "healing.containers-are-healed-as-soon-as-docker-runs",
    ),
    "Backup: files.present": ("backup.secrets-are-for-root-only",),
    "Backup: systemd.service": ("backup.timer-runs-where-it-is-declared",),
    "Monitoring: files.present": (
        "monitoring.metrics-listen-on-the-loopback-only",
        "monitoring.alert-rules-are-evaluated",
        "monitoring.every-target-is-read",
    ),
    "Monitoring: systemd.service": ("monitoring.metrics-of-the-host-are-offered-and-new",),
    "Healing: systemd.service": ("healing.timer-runs-where-it-is-declared",),
    "Receipt: receipt.written": (
        "receipt.receipt-is-of-these-settings",
        "receipt.receipt-names-the-models-by-hash",
        "receipt.receipt-names-the-images-that-run",
        "receipt.receipt-names-what-is-installed",
        "receipt.receipt-names-the-toolkit",
        "receipt.receipt-is-writable-only-by-root",
    ),
    "Application server: environment_file.present": (
        "app_server.environment-is-readable-only-by-its-owner",
        "app_server.environment-has-all-variables-that-a-program-needs",
    ),
    "Application server: hosts_file.entries": ("app_server.llm-server-resolves-by-its-name",),
    "Application server: ca_certificates.trusted": (
        "app_server.certificate-is-trusted-by-the-system",
    ),
}
"""Checks by component and operation."""

_SERVICE = "Stack: compose.project"
"""What runs in a container is decided by its image and its Compose file."""

SERVICES = (
    *("chroma", "docling", "embeddings", "grafana", "llamacpp", "ollama", "open_webui"),
    *("qdrant", "redis", "search_api", "vllm"),
)

NOT_CORRECTED = {
    "app_server.llm-server-admits-only-requests-with-the-key": "the other server decides",
    "backup.last-backup-is-not-late": "a backup has its own time",
    "connection.server-answers-and-commands-run-as-root": "a deploy needs the connection itself",
    "docker.no-port-is-published-beyond-loopback": "the container is not llmhost's",
    "firewall.no-change-of-rules-waits-for-confirmation": "the host undoes the change by itself",
    "gateway.log-is-json-without-keys": "what is in the log stays there until it is rotated",
    "gpu.completion-is-computed-on-the-gpus-of-its-service": "the engine decides",
    "gpu.engine-reports-that-it-computes-on-the-gpu": "the engine decides",
    "gpu.processes-on-the-gpus-belong-to-their-services": "the process is foreign",
    "llamacpp.adapter-changes-the-answers": "the adapter itself has no effect",
    "nvidia_driver.every-gpu-on-the-bus-is-listed-by-the-driver": "a GPU has failed",
    "nvidia_driver.no-linux-driver-is-installed-on-wsl": "the packages are not llmhost's",
    "ollama.adapters-change-the-answers": "the adapter itself has no effect",
    "vllm.adapters-change-the-answers": "the adapter itself has no effect",
}
"""Checks that no deploy can satisfy, with the reason."""


def correction(check: str) -> str:
    """The component and operation that correct what a check finds; a KeyError without a row."""
    for operation, checks in CORRECTED_BY.items():
        if check in checks:
            return operation
    if check in NOT_CORRECTED:
        return f"no deploy: {NOT_CORRECTED[check]}"
    if check.partition(".")[0] in SERVICES:
        return _SERVICE
    raise KeyError(check)
