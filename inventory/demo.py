"""The demo machine. `script/demo` creates it and writes .demo/site.json, which this file reads."""

import json
import os
from pathlib import Path

_demo = os.environ.get("LLMHOST_DEMO", ".demo")
_site = json.loads(Path(_demo, "site.json").read_text())
# The data that `script/demo --profile NAME` wrote, or one small model.
_stack = _site.get("stack") or {
    "services": ["llamacpp"],
    "stack_egress": "deny",
    "llamacpp_image": _site["engine"],
    "models": [_site["model"]],
}

demo = (
    [("llm-demo", {"ssh_config_file": f"{_demo}/ssh_config"})],
    {
        # A demo machine is small.
        "preflight_min_memory_gib": 1.0,
        "preflight_min_free_disk_gib": 3.0,
        # The engine comes from the demo's own registry, as at a site without Internet access.
        "docker_insecure_registries": [_site["registry"]],
        # Plain HTTP: the demo's network is local to this machine.
        "gateway_tls": "off",
        **_stack,
        # The demo may change a profile's documents.
        "api_clients": [
            {
                "name": "demo",
                "sha256": _site["client_sha256"],
                "scope": "admin" if _site.get("stack") else "inference",
            },
        ],
        # Simulated hardware: script/demo --flavour.
        **_site.get("data", {}),
    },
)
