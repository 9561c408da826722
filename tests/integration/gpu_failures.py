"""Ways in which GPUs fail."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Failure:
    """A way in which GPUs fail: commands that cause and undo it, what a deploy reports, data of
    the inventory, and whether `llmhost plan` sees it, which changes nothing."""

    cause: str
    undo: str
    reported: str
    data: dict[str, object] = field(default_factory=dict)
    foreseen: bool = True


_SMI, _CTK = "/usr/bin/nvidia-smi", "/usr/bin/nvidia-ctk"
_KEEP = "cp -a {0} /root/kept"
_RESTORE = "cp -a /root/kept {0}"
_SAY = "printf '#!/bin/sh\\necho \"{1}\"; exit 255\\n' >{0}"
_PCI = "/etc/llmhost-double/pci/0000:0[12]:00.*"
_OLD = "sed -i s/595[.]91[.]07/470.256.02/ /usr/bin/nvidia-smi /proc/driver/nvidia/version"

FAILURES = {
    "all GPUs are gone": Failure(
        f"mkdir /root/gone; mv {_PCI} /root/gone/",
        "mv /root/gone/* /etc/llmhost-double/pci/",
        "no NVIDIA GPU is on this host",
    ),
    "one GPU is lost": Failure(
        "mkdir -p /run/llmhost-double; touch /run/llmhost-double/1.lost",
        "rm /run/llmhost-double/1.lost",
        "nvidia-smi says 'GPU is lost'",
    ),
    "the next kernel has no module": Failure(
        "touch /boot/vmlinuz-9.1.0-1-amd64",
        "rm /boot/vmlinuz-9.1.0-1-amd64",
        "linux-headers-9.1.0-1-amd64",
    ),
    "the driver is too old": Failure(
        _OLD,
        "sed -i s/470[.]256[.]02/595.91.07/ /usr/bin/nvidia-smi /proc/driver/nvidia/version",
        "needs driver branch 580",
        {"nvidia_driver_managed": False, "llamacpp_cuda": "13.0"},
    ),
    "NVML fails": Failure(
        f"{_KEEP} && {_SAY}".format(_SMI, "Failed to initialize NVML: Unknown Error"),
        _RESTORE.format(_SMI),
        "Failed to initialize NVML: Unknown Error",
    ),
    "the CDI spec fails": Failure(
        f"{_KEEP} && {_SAY} && rm /var/run/cdi/nvidia.yaml".format(_CTK, "no spec"),
        f"{_RESTORE} && systemctl reset-failed 'nvidia-cdi-refresh.*'".format(_CTK),
        "nvidia-cdi-refresh.service",
        foreseen=False,
    ),
    "its packages cannot be installed": Failure(
        "dpkg --remove --force-depends nvidia-persistenced && rm -r /var/lib/apt/lists/* &&"
        " echo 'Acquire::http::Proxy \"http://127.0.0.1:9\";' >/etc/apt/apt.conf.d/99broken",
        "rm /etc/apt/apt.conf.d/99broken",
        "nvidia-persistenced",
        foreseen=False,
    ),
}
