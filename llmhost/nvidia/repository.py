"""Where NVIDIA's own driver packages come from. Pure."""

from llmhost.system.apt_repository import Repository

# Keys of NVIDIA's repositories; a key's file is named after its last eight digits.
_KEYS = {
    "debian-13": "02182E60104FCDC26EAE1B8597A5D4CB8793F200",
    "ubuntu-26.04": "14BAFBC7562AD710CA04E69905FBB6DA60DF8A40",
}
_EARLIER_KEY = "EB693B3035CD5710E231E123A4B469963BF863CC"


def driver_repository(url: str, fingerprint: str | None, release: str, machine: str) -> Repository:
    """NVIDIA's repository for a release (`ubuntu-24.04`) and a machine (`x86_64`).

    `url` is the base of all of them, `fingerprint` that of a mirror's own key.
    """
    architecture = "sbsa" if machine == "aarch64" else machine
    uri = f"{url}/{release.replace('-', '').replace('.', '')}/{architecture}/"
    expected = fingerprint or _KEYS.get(release, _EARLIER_KEY)
    file_name = expected[-8:].lower() if expected == _EARLIER_KEY else expected[-8:]
    return Repository(
        label="nvidia-driver",
        uri=uri,
        suite="/",
        components=(),
        fingerprint=expected,
        key_url=f"{uri}{file_name}.pub",
        # cuda-keyring's list names the same source with another key, which apt refuses.
        replaces=(f"/etc/apt/sources.list.d/cuda-{uri.split('/')[-3]}-{architecture}.list",),
    )
