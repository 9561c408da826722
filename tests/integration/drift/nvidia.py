"""Driver, container toolkit and GPUs drift."""

from tests.integration.drift.case import ENGINE, OTHER_VERSION, drifts

_SMI = "nvidia-smi -i 0"
_SPEC = "/var/run/cdi/nvidia.yaml"
_TOOLKIT = "/etc/apt/sources.list.d/nvidia-container-toolkit.sources"

NVIDIA = (
    *drifts(
        "NVIDIA driver",
        "nvidia_driver.gpus-are-set-as-declared",
        ("power-limit-changed", f"{_SMI} -pl 300", "GPU 0 has a power limit of 300 W, not 250"),
        ("persistence-off", f"{_SMI} -pm 0", "GPU 0 is not in persistence mode"),
        ("gpu-unit-stopped", "systemctl stop llmhost-gpu", "llmhost-gpu.service is inactive"),
        (
            "gpu-unit-disabled",
            "systemctl disable llmhost-gpu",
            "llmhost-gpu.service does not start at boot",
        ),
        (
            "gpu-unit-edited",
            "sed -i s/250/300/ /etc/systemd/system/llmhost-gpu.service; systemctl daemon-reload",
            "llmhost-gpu.service has other content",
        ),
        (
            "persistence-daemon-stopped",
            "systemctl stop nvidia-persistenced",
            "nvidia-persistenced",
        ),
    ),
    *drifts(
        "NVIDIA driver",
        "nvidia_driver.driver-is-not-upgraded-automatically",
        ("driver-unheld", "apt-mark unhold libnvidia-ml1", "libnvidia-ml1 is not held"),
        (
            "driver-part-removed",
            "apt-get -y -qq remove --allow-change-held-packages nvidia-driver-cuda",
            "nvidia-driver-cuda is not installed",
        ),
        (
            "driver-updates-unblocked",
            "rm /etc/apt/apt.conf.d/52llmhost-nvidia",
            "52llmhost-nvidia is missing",
        ),
    ),
    *drifts(
        "NVIDIA driver",
        "nvidia_driver.nouveau-is-not-loaded",
        (
            "nouveau-allowed",
            "rm /etc/modprobe.d/llmhost-nvidia.conf",
            "llmhost-nvidia.conf is missing",
        ),
    ),
    *drifts(
        "NVIDIA driver",
        "nvidia_driver.nvml-works",
        (
            "probe-edited",
            "echo >>/usr/local/lib/llmhost/nvml/nvml_probe.py",
            "nvml_probe.py has other content",
        ),
    ),
    *drifts(
        "Container toolkit",
        "container_toolkit.all-four-packages-have-the-declared-version-and-are-held",
        (
            "toolkit-unheld",
            "apt-mark unhold libnvidia-container1",
            "libnvidia-container1 is not held",
        ),
        (
            "toolkit-version-changed",
            OTHER_VERSION.format(name="libnvidia-container-tools"),
            "libnvidia-container-tools is 999, not",
        ),
        (
            "toolkit-removed",
            "apt-get -y -qq remove --allow-change-held-packages nvidia-container-toolkit",
            "nvidia-container-toolkit is not installed",
        ),
    ),
    *drifts(
        "Container toolkit",
        "container_toolkit.apt-knows-the-toolkits-repository-once",
        ("toolkit-source-edited", f"echo '# mine' >>{_TOOLKIT}", "has other content"),
        (
            "toolkit-source-twice",
            "echo 'deb https://nvidia.github.io/libnvidia-container/stable/deb/amd64 /'"
            " >/etc/apt/sources.list.d/nvidia-container-toolkit.list",
            "nvidia-container-toolkit.list must not exist",
        ),
        (
            "toolkit-key-replaced",
            "cp /usr/share/keyrings/debian-archive-keyring.gpg"
            " /etc/apt/keyrings/nvidia-container-toolkit.gpg",
            "apt does not trust the key of nvidia-container-toolkit",
        ),
    ),
    *drifts(
        "Container toolkit",
        "container_toolkit.cdi-describes-exactly-the-installed-gpus",
        ("cdi-deleted", f"rm {_SPEC}", "no CDI spec describes GPU-"),
        (
            "cdi-stale",
            f"sed -i 's/name: GPU-......../name: GPU-00000000/' {_SPEC}",
            "no CDI spec describes GPU-",
        ),
        ("cdi-broken", f"echo '}}' >{_SPEC}", "cannot be read as a CDI spec"),
    ),
    *drifts(
        "Container toolkit",
        "container_toolkit.devices-and-files-of-cdi-exist-and-suffice-for-cuda",
        (
            "cdi-of-an-older-driver",
            f"sed -i 's|hostPath: .*|hostPath: /usr/lib/libnvidia-ml.so.535.1|' {_SPEC}",
            f"{_SPEC} names /usr/lib/libnvidia-ml.so.535.1, which does not exist",
        ),
        (
            "cdi-without-uvm",
            f"sed -i '/nvidia-uvm/d' {_SPEC}",
            f"{_SPEC} lacks /dev/nvidia-uvm",
        ),
    ),
    *drifts(
        "Container toolkit",
        "container_toolkit.cdi-specs-are-refreshed",
        (
            "cdi-refresh-stopped",
            "systemctl disable --now nvidia-cdi-refresh.path",
            "nvidia-cdi-refresh.path",
        ),
        (
            "cdi-not-made-at-boot",
            "systemctl disable nvidia-cdi-refresh.service",
            "nvidia-cdi-refresh.service does not start at boot",
        ),
    ),
    *drifts(
        "Container toolkit",
        "container_toolkit.docker-starts-after-the-specs-or-after-a-limited-wait",
        (
            "docker-before-the-specs",
            "rm /etc/systemd/system/docker.service.d/50-llmhost-gpu.conf; systemctl daemon-reload",
            "50-llmhost-gpu.conf is missing",
        ),
        (
            "docker-waits-without-limit",
            "sed -i /JobRunningTimeoutSec/d"
            " /etc/systemd/system/nvidia-cdi-refresh.service.d/50-llmhost.conf;"
            " systemctl daemon-reload",
            "50-llmhost.conf has other content",
        ),
    ),
    *drifts(
        "Container toolkit",
        "container_toolkit.docker-knows-the-runtime-and-does-not-use-it-by-default",
        (
            "docker-without-gpus",
            'sed -i \'s/"cdi": true/"cdi": false/\' /etc/docker/daemon.json',
            "daemon.json differs in features",
        ),
    ),
    *drifts(
        "Stack",
        "gpu.containers-may-open-the-devices-of-their-gpus",
        (
            "container-without-its-gpu",
            "systemctl set-property --runtime docker-$(docker inspect -f '{{.Id}}'"
            f" {ENGINE}).scope DevicePolicy=closed DeviceAllow=",
            "service llamacpp can no longer open its GPUs",
        ),
    ),
)
