"""A sample site: one LLM server on the LAN. Copy it, then change the lines marked with "<-".

    pyinfra inventory/llm.py deploy.py

`llmhost plan inventory/llm.py` shows what a deploy would change, `llmhost verify inventory/llm.py`
checks the result. `llmhost docs options` lists all options; an option that is not set here has its
default. Do not write secrets into this file: it contains only digests of API keys.
"""

llm_servers = (
    [
        (
            "llm-server",
            {
                "ssh_hostname": "192.168.0.100",  # <- the server's address
                "ssh_user": "root",  # <- or a user that may use sudo, with "_sudo": True
                # "_sudo": True,
            },
        ),
    ],
    {
        "system_timezone": "Etc/UTC",  # <- such as "Asia/Seoul"
        # Networks for SSH and for the gateway. SSH from the address of the deploy is always
        # allowed, so that you cannot lock yourself out.
        "firewall_ssh_sources": ["192.168.0.0/24"],  # <- the administrators' networks
        "gateway_sources": ["192.168.0.0/24"],  # <- the clients' networks
        # Name of the server for clients and in its certificate.
        "gateway_names": ["llm-server"],  # <-
        # Services to run. The first one answers at the gateway's "/".
        "services": ["llamacpp"],
        # Models to bake into the images, pinned by commit and digest: `llmhost docs models`.
        "models": [
            {
                "name": "router",
                "service": "llamacpp",
                "source": "hf:bartowski/Llama-3.2-3B-Instruct-GGUF/Llama-3.2-3B-Instruct-Q8_0.gguf",
                "revision": "0" * 40,  # <- the repository's commit
                "sha256": "0" * 64,  # <- the file's SHA-256, shown on its page in the hub
                "context_tokens": 8192,
            },
        ],
        # Clients: `llmhost key new NAME` prints a key, once, and the line to add here.
        "api_clients": [
            {"name": "main-app", "sha256": "0" * 64},  # <- the line that it printed
        ],
    },
)
