"""A sample site: one LLM server on the LAN. Copy it, then change what is marked with "<-".

    pyinfra inventory/llm.py deploy.py

`llmhost plan inventory/llm.py` shows what that would change, `llmhost verify inventory/llm.py`
proves what came of it. docs/options.md lists every option with its default; one that is not
written here has its default. No secret belongs into this file: of an API key it holds the digest.
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
        # Who may log in, and who may reach the gateway. The address that a deploy comes from is
        # always admitted for SSH, so nobody locks themselves out.
        "firewall_ssh_sources": ["192.168.0.0/24"],  # <- the administrators' networks
        "gateway_sources": ["192.168.0.0/24"],  # <- the clients' networks
        # The name that clients call the server by; its certificate is made for it.
        "gateway_names": ["llm-server"],  # <-
        # What runs. The first service answers at the gateway's "/".
        "services": ["llamacpp"],
        # What is baked into the images, pinned by commit and by hash: see docs/models.md.
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
        # Who may call: `llmhost key new NAME` prints a key once, and the line for here.
        "api_clients": [
            {"name": "main-app", "sha256": "0" * 64},  # <- the line that it printed
        ],
    },
)
