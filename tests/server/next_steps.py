"""What to do when a check fails: one entry for each check, by its id."""

NEXT_STEPS = {
    # Services
    "chroma.heartbeat-is-answered": "Run `docker logs llmhost-chroma-1` on the server. Restart it "
    "with `docker restart llmhost-chroma-1`.",
    "chroma.collections-can-be-listed": "If `docker logs llmhost-chroma-1` reports a damaged "
    "database, restore the volume `llmhost_chroma-data` from a backup: `llmhost restore"
    " INVENTORY HOST`.",
    "chroma.reset-is-forbidden": "The container runs with other settings than the inventory's. "
    "Deploy again: `docker inspect llmhost-chroma-1` must not show `ALLOW_RESET`.",
    "docling.document-becomes-text": "Run `docker logs llmhost-docling-1`: a missing model is "
    "named there. Add it to `models`, then deploy again.",
    "docling.document-becomes-chunks": "The tokenizer `sentence-transformers/all-MiniLM-L6-v2` may "
    "be missing. Add it to `models` for docling, then deploy again.",
    "docling.formulas-are-read": "Run `docker logs llmhost-docling-1`: it names the model that "
    "docling did not find. Compare the model's `source` with docs/models.md.",
    "docling.pictures-are-described": "Run `docker logs llmhost-docling-1`: it names the model "
    "that docling did not find. Compare the model's `source` with docs/models.md.",
    "docling.no-model-hub-is-contacted": "The log shows which model docling looked for. Add it to "
    "`models` so that it is baked into the image.",
    "embeddings.models-are-offered-under-their-declared-names": "Compare `models` with "
    "`curl http://127.0.0.1:PORT/v1/models` on the server, then deploy again.",
    "embeddings.equal-texts-have-equal-vectors-and-others-do-not": "The model file may be "
    "damaged or have the wrong `task`. Compare its SHA-256 with the lock file.",
    "embeddings.long-texts-are-embedded-completely": "Raise `context_tokens` of the model, up to "
    "what it was trained for.",
    "embeddings.texts-are-ordered-by-relevance": "Check that the model is a reranker and has "
    '`task = "rerank"`.',
    "embeddings.undeclared-model-is-unknown": "Another server answers on this port. Find it with "
    "`ss -ltnp` on the server.",
    "llamacpp.model-is-offered-under-its-declared-name": "Run `docker logs llmhost-llamacpp-1`: "
    "it names the model that was loaded.",
    "llamacpp.every-request-has-the-declared-context": "llama.cpp shrank the context, usually "
    "for lack of GPU memory. Run `llmhost vram INVENTORY`.",
    "llamacpp.chat-streams-token-by-token": "Something buffers the answer. Compare the gateway "
    "with the engine's own port on the server: `curl -N http://127.0.0.1:PORT/v1/completions`.",
    "llamacpp.adapter-changes-the-answers": "`gguf-dump ADAPTER` shows its tensors: llama.cpp "
    "ignores those of norms. If there are others, it was trained too little: train it with more "
    "epochs, convert it again, or remove `adapter` from the model.",
    "llamacpp.slots-and-web-interface-are-closed": "Remove `--slots` and `--webui` from "
    "`llamacpp_extra_arguments`, then deploy again: slots show other clients' prompts.",
    "ollama.every-role-is-a-separate-model": "Run `docker exec llmhost-ollama-1 ollama list` "
    "and compare it with `models`, then deploy again.",
    "ollama.resident-models-are-loaded-before-the-first-request": "Run "
    "`docker exec llmhost-ollama-1 ollama ps`. If a model is missing, or is not there forever, run "
    "`llmhost vram INVENTORY`: it may not fit.",
    "ollama.system-prompt-and-parameters-are-in-the-model": "The container runs an older "
    "image. Deploy again.",
    "ollama.weights-that-run-are-the-pinned-ones": "A volume, or an image from elsewhere, replaced "
    "the file. Remove the image with `docker image rm`, then deploy again.",
    "ollama.every-role-answers-in-a-stream": "Run `docker logs llmhost-ollama-1`: it says why the "
    "model was not loaded.",
    "ollama.adapters-change-the-answers": "`ps -C llama-server -o args` on the server shows "
    "whether Ollama passes `--lora` on; if not, use the default `ollama_image`. If it does, the "
    "adapter was trained too little, or changes norms only: train it again, or remove `adapter`.",
    "ollama.json-is-answered-with-json": "The model ignores the schema. Try a larger one, or "
    "raise `max_tokens` in the request.",
    "ollama.baked-models-cannot-be-changed": "The store is writable. Deploy again to recreate "
    "the container with a read-only file system.",
    "open_webui.it-is-ready-and-its-database-answers": "Run `docker logs llmhost-open_webui-1`. "
    "If its database is damaged, restore the volume `llmhost_open_webui-data` from a backup:"
    " `llmhost restore INVENTORY HOST`.",
    "open_webui.first-administrator-exists-and-sign-up-is-closed": "Switch sign-up off in "
    "Open WebUI's admin settings or deploy again. Remove accounts that you do not know.",
    "open_webui.models-require-a-login": "Set `WEBUI_AUTH` back to true: deploy "
    "again. Until then, close the port with `firewall_rules`.",
    "open_webui.settings-of-the-inventory-apply": "Set `open_webui_persistent_settings = False`, "
    "or change the setting in Open WebUI itself.",
    "open_webui.settings-in-use-are-those-it-was-started-with": "An administrator changed a "
    "setting. `llmhost plan INVENTORY` names it; a deploy restores it.",
    "open_webui.no-outside-service-is-contacted": "The log names the address. Switch off the"
    " feature that contacts it, in Open WebUI's"
    " admin settings.",
    "open_webui.data-is-in-a-volume-beside-the-models-of-the-image": "Deploy again to recreate "
    "the container with its volume. Back up `docker cp llmhost-open_webui-1:/app/backend/data` "
    "first.",
    "open_webui.browsers-reach-it-on-its-own-port": "Check `open_webui_ui_port` and "
    "`open_webui_ui_sources`, then `nginx -t` on the server.",
    "qdrant.collections-can-be-listed": "Run `docker logs llmhost-qdrant-1`. If a collection is "
    "damaged, restore the volume `llmhost_qdrant-data` from a backup: `llmhost restore"
    " INVENTORY HOST`.",
    "qdrant.telemetry-is-off": "Deploy again: the container runs without "
    "`QDRANT__TELEMETRY_DISABLED`.",
    "redis.value-is-kept-and-expires": "Run `docker logs llmhost-redis-1`. `OOM` means that "
    "`redis_memory_mib` is too small.",
    "redis.memory-limit-is-the-declared-one": "Someone changed `maxmemory` at run time. "
    "`docker restart llmhost-redis-1` restores it.",
    "redis.data-is-written-to-the-disk-only-if-declared": "Compare `redis_persistent` with "
    "`docker inspect llmhost-redis-1`, then deploy again.",
    "search_api.question-is-answered": "Check its parts in turn: `docker logs` of search_api, "
    "embeddings and qdrant.",
    "search_api.second-answer-comes-from-the-cache": "Run `docker logs llmhost-redis-1`: the "
    "search API answers without its cache when Redis is down.",
    "search_api.error-has-the-declared-shape": "The container runs an older image. Deploy again.",
    "search_api.default-collection-is-described": "Run `docker logs llmhost-search_api-1`: a "
    "collection of an earlier release must be re-embedded.",
    "search_api.page-needs-no-key-but-its-requests-do": "Check `search_api_ui_port` and "
    "`search_api_ui_sources`, then deploy again: it rewrites the gateway's configuration.",
    "search_api.metrics-are-offered": "Run `docker logs llmhost-search_api-1`; then restart it.",
    "vllm.model-is-offered-under-its-declared-name": "Run `docker logs llmhost-vllm-1`: it names "
    "the model that was loaded.",
    "vllm.chat-streams-token-by-token": "Something buffers the answer. Compare the gateway with "
    "vLLM's own port on the server: `curl -N http://127.0.0.1:PORT/v1/completions`.",
    "vllm.adapters-change-the-answers": "vLLM ignores modules that the model lacks. Compare the "
    "names in `adapter_model.safetensors` with those of the model's weights: often one of them has "
    "a further prefix, such as `language_model.`, and the adapter must be trained on the model as "
    "vLLM loads it. If the names fit, it was trained too little: train it with more epochs, or "
    "remove it from `adapters`.",
    "vllm.other-model-is-unknown": "Another server answers on this port. Find it with "
    "`ss -ltnp` on the server.",
    "vllm.no-model-hub-is-reachable": "Deploy again: the container runs without `HF_HUB_OFFLINE`.",
    # Application servers
    "app_server.environment-is-readable-only-by-its-owner": "Deploy again to restore owner and "
    "mode. If other users could read the file, rotate the key: `llmhost key rotate NAME FILE`.",
    "app_server.environment-has-all-variables-that-a-program-needs": "Deploy again: it rewrites "
    "the file at `app_server_environment_file`.",
    "app_server.llm-server-resolves-by-its-name": "Deploy again to restore the block in "
    "/etc/hosts. `getent hosts NAME` shows what the host resolves.",
    "app_server.llm-server-admits-only-requests-with-the-key": "401: the key in "
    "`app_server_api_key` belongs to no declared client. No answer: check the firewall of the LLM "
    "server.",
    "app_server.certificate-is-trusted-by-the-system": "Deploy again; then "
    "`update-ca-certificates` on the host shows whether the authority was added.",
    # The server itself
    "connection.server-answers-and-commands-run-as-root": "Run `llmhost doctor INVENTORY`: it"
    " says why the login fails. If the login user is"
    " not root, set `_sudo` and allow sudo without a password.",
    "container_toolkit.all-four-packages-have-the-declared-version-and-are-held": "Deploy again. "
    "`apt-mark showhold` on the server lists what is held.",
    "container_toolkit.apt-knows-the-toolkits-repository-once": "Remove other entries for "
    "nvidia.github.io from /etc/apt/sources.list.d, then deploy again.",
    "container_toolkit.cdi-describes-exactly-the-installed-gpus": "Run "
    "`systemctl start nvidia-cdi-refresh` on the server and compare `nvidia-ctk cdi list` with "
    "`nvidia-smi -L`.",
    "container_toolkit.devices-and-files-of-cdi-exist-and-suffice-for-cuda": "Run "
    "`modprobe nvidia-uvm` and `systemctl restart nvidia-cdi-refresh` on the server, then deploy "
    "again.",
    "container_toolkit.nvidia-smi-runs-in-a-throwaway-container": "Run `nvidia-smi` on the server. "
    "If it works there, run `systemctl restart nvidia-cdi-refresh`; its journal names what the CDI "
    "spec lacks.",
    "container_toolkit.cdi-specs-are-refreshed": "Deploy again, then run "
    "`systemctl status nvidia-cdi-refresh.path`.",
    "container_toolkit.docker-starts-after-the-specs-or-after-a-limited-wait": "Deploy again. "
    "`systemctl cat docker.service nvidia-cdi-refresh.service` shows the drop-ins of llmhost.",
    "container_toolkit.no-unit-was-left-out-because-of-an-ordering-cycle": "Run "
    "`journalctl -b _PID=1 -g 'ordering cycle'`. It names the units; remove the drop-in that "
    "orders one of them, then reboot.",
    "container_toolkit.docker-knows-the-runtime-and-does-not-use-it-by-default": "Remove "
    "`default-runtime` from `docker_daemon_options` and /etc/docker/daemon.json, then deploy "
    "again.",
    "docker.engine-runs-now-and-at-boot": "Run `journalctl -u docker -n 50` on the server for the "
    "cause, then deploy again.",
    "docker.compose-and-buildx-are-installed": "Deploy again: it installs the plugins.",
    "docker.daemon-runs-the-declared-configuration": "`llmhost plan INVENTORY` names the keys of "
    "daemon.json that differ; a deploy restores them and restarts Docker.",
    "docker.images-are-in-the-declared-directory": "`llmhost plan INVENTORY` prints the steps to "
    "move containerd's data.",
    "docker.daemon-was-started-after-its-configuration-changed": "Deploy again: it "
    "restarts the daemon. With `live-restore`, containers keep running.",
    "docker.containers-on-the-default-bridge-are-apart": "Reboot, or stop all containers and "
    "restart Docker: it keeps the default bridge as it is while containers run.",
    "docker.daemon-is-hardened": "Deploy again. If your own containers need another value, set"
    " the key in"
    " `docker_daemon_options`.",
    "docker.every-declared-key-is-in-the-file": "Deploy again: someone removed keys from "
    "/etc/docker/daemon.json.",
    "docker.api-is-for-root-on-the-host-only": "Remove `hosts` from daemon.json and "
    "`-H tcp://…` from drop-ins of docker.service, now: access to Docker's API is root access.",
    "docker.no-port-is-published-beyond-loopback": "A container that llmhost does not manage "
    "publishes a port; `docker ps` names it. Publish it on 127.0.0.1 (`-p 127.0.0.1:PORT:PORT`).",
    "docker.networks-of-the-stack-publish-on-loopback": "Deploy again: it recreates the network.",
    "docker.pinned-version-is-installed-and-held": "Deploy again. If apt does not find the "
    "version, `apt-cache madison docker-ce` lists the available ones.",
    "egress.containers-connect-only-to-declared-addresses": "`llmhost plan INVENTORY` names rules "
    "that are gone; deploy to load them. Declare what a container needs in `stack_egress_allow`.",
    "egress.containers-look-up-names-of-services-alone": "Deploy again: it recreates"
    " containers that use other name servers. Declare a name"
    " that a container needs in `stack_egress_allow`.",
    "egress.rules-are-loaded-before-docker-starts": "Deploy again. `nft list table inet "
    "llmhost_egress` shows the loaded rules, `systemctl cat docker` what loads them at boot.",
    "firewall.ufw-is-active-and-starts-at-boot": "Deploy again: it enables ufw and admits your "
    "own connection.",
    "firewall.incoming-and-routed-packets-are-denied-by-default": "Deploy again. "
    "`ufw status verbose` shows the default policies.",
    "firewall.rules-are-loaded-in-netfilter": "Run `ufw reload` on the server; if it fails, "
    "`nft list ruleset` shows which other program loads rules.",
    "firewall.exactly-the-declared-rules-exist": "`llmhost plan INVENTORY` names the rules "
    "that differ. Declare those that you need in `firewall_rules`; a deploy removes the others.",
    "firewall.no-change-of-rules-waits-for-confirmation": "A deploy is changing the rules, or "
    "was interrupted. Wait for `firewall_confirm_seconds`, then deploy again.",
    "firewall.published-ports-are-guarded-before-docker-opens-them": "Deploy again. If it still "
    "fails, `iptables -S FORWARD` shows which rule comes first; another program adds it.",
    "firewall.docker-starts-with-the-rules-of-ufw-first": "Deploy again: it restores the drop-in "
    "`50-llmhost-firewall.conf` of `docker.service`.",
    "firewall.undeclared-ports-are-refused-from-outside": "Find the listener with `ss -ltnp`, "
    "now: engines check no keys. To open the port, declare it in `firewall_rules`; to close it, "
    "deploy again.",
    "firewall.declared-ports-are-reached-from-outside": "A device between the two machines"
    " filters the traffic, or another firewall runs on"
    " the server. Run `nft list ruleset` there.",
    "gateway.nginx-runs-and-starts-at-boot": "Run `nginx -t` and `journalctl -u nginx -n 50` on "
    "the server for the cause, then deploy again.",
    "gateway.nginx-accepts-its-configuration": "`nginx -t` names file and line. A deploy "
    "restores the files that llmhost manages; correct your own files in /etc/nginx by hand.",
    "gateway.nginx-listens-only-where-it-is-declared": "If nothing listens, deploy "
    "again to start nginx. If another port is open, `nginx -T | grep listen` names the file.",
    "gateway.unknown-names-get-no-certificate": "A server block of another "
    "file answers for unknown names. `nginx -T | grep -n default_server` finds it.",
    "gateway.key-of-the-certificate-is-readable-by-root-only": "Deploy again to restore the mode. "
    "If other users could read the key, replace the certificate.",
    "gateway.digests-of-keys-are-readable-by-root-only": "Deploy again to restore the mode of "
    "the key maps in /etc/nginx/llmhost.",
    "gateway.every-route-is-closed-without-a-valid-key": "If a route answered, disconnect the "
    "server and run `llmhost plan INVENTORY`. If nothing answered, run `systemctl status nginx`.",
    "gateway.refusal-names-its-reason-and-not-the-server": "Another proxy answers in front of the "
    "gateway, or nginx runs an older configuration. Deploy again.",
    "gateway.undeclared-routes-are-closed-to-clients-too": "The client reached a route outside "
    "its scope. Check its `scope` in `api_clients`, then deploy again.",
    "gateway.client-reaches-the-engine": "401: `LLMHOST_API_KEY` belongs to no declared client. "
    "502: run `docker logs` of the first service.",
    "gateway.models-are-listed-at-one-address": "Deploy again: model-routes.conf in "
    "/etc/nginx/llmhost differs from the inventory.",
    "gateway.each-place-of-models-answers-at-one-address": "Run `docker logs` of "
    "the model's service; behind a gateway, verify the server that runs it.",
    "gateway.unknown-model-is-refused": "Deploy again: model-routes.conf in "
    "/etc/nginx/llmhost differs from the inventory.",
    "gateway.key-in-the-address-is-refused": "Deploy again, and rotate keys that clients sent in "
    "an address: they are in logs.",
    "gateway.access-log-is-rotated": "Run `logrotate -d /etc/logrotate.d/llmhost-gateway` on the "
    "server: it names the mistake.",
    "gateway.metrics-are-offered-only-on-the-host": "Run `systemctl status mtail` on the server.",
    "gateway.log-is-json-without-keys": "If the log holds a key, delete the log and rotate that "
    "key: `llmhost key rotate NAME FILE`. If nothing was logged, check the disk with `df -h`.",
    "gpu.every-service-has-exactly-the-gpus-it-requests": "Deploy again: it recreates the "
    "container with its GPUs. `llmhost plan INVENTORY` names what differs.",
    "gpu.no-gpu-is-shared-unless-its-services-allow-it": "Give each service its own GPUs, or set "
    "`SERVICE_gpu_shared` for both.",
    "gpu.containers-may-open-the-devices-of-their-gpus": "The container lost its devices, often "
    "after `systemctl daemon-reload`. Deploy again: it recreates the container.",
    "gpu.processes-on-the-gpus-belong-to-their-services": "`nvidia-smi` names the "
    "process. Stop it, or move it to a GPU that no service uses.",
    "gpu.completion-is-computed-on-the-gpus-of-its-service": "No process of the "
    "service holds memory on the GPU, or none computes there. Look for CUDA errors in its `docker "
    "logs`, then deploy again. If NVML lists no processes at all, update the driver. For vLLM, "
    "`vllm_tensor_parallel` decides how many GPUs compute.",
    "gpu.engine-reports-that-it-computes-on-the-gpu": "The engine fell back to the CPU. Its "
    "`docker logs` name the cause: an image without CUDA, a driver that is too old, or too "
    "little memory.",
    "grafana.its-database-works": "Run `docker logs llmhost-grafana-1`. If its database is "
    "damaged, restore the volume `llmhost_grafana-data` from a backup: `llmhost restore`.",
    "grafana.nothing-is-shown-without-a-login": "Deploy again: the container runs with other "
    "variables. If the password is `admin`, change it in Grafana.",
    "grafana.nobody-can-sign-up": "Deploy again: the container runs without "
    "`GF_USERS_ALLOW_SIGN_UP`. Remove accounts that you do not know.",
    "grafana.browsers-reach-it-on-its-own-port": "Check `grafana_ui_port` and "
    "`grafana_ui_sources`, then `nginx -t` on the server.",
    "backup.last-backup-is-not-late": "Run `llmhost backup INVENTORY HOST`, with `--create` the "
    "first time; it says why it fails. With a schedule, see `journalctl -u llmhost-backup`.",
    "backup.timer-runs-where-it-is-declared": "Deploy again, then run "
    "`systemctl status llmhost-backup.timer` on the server.",
    "backup.secrets-are-for-root-only": "Deploy again, and change the password of the repository: "
    "`restic key passwd`.",
    "monitoring.metrics-of-the-host-are-offered-and-new": "Run `systemctl status "
    "prometheus-node-exporter llmhost-metrics` on the server, then deploy again.",
    "monitoring.metrics-listen-on-the-loopback-only": "Deploy again: the arguments in "
    "`/etc/default/prometheus*` are not the declared ones.",
    "monitoring.metrics-need-a-key": "Deploy again at once: the gateway admits strangers.",
    "monitoring.every-target-is-read": "The output names host, metrics and error. `401` or `403`: "
    "deploy that host with the same `monitoring_key`. No answer: check `monitoring_address` and "
    "`gateway_sources`.",
    "monitoring.alert-rules-are-evaluated": "Run `journalctl -u prometheus -u "
    "prometheus-alertmanager -n 50` on the server, then deploy again.",
    "healing.timer-runs-where-it-is-declared": "Deploy again, then run "
    "`systemctl status llmhost-heal.timer`.",
    "healing.containers-are-healed-as-soon-as-docker-runs": "Deploy again: until then a container "
    "that Docker could not start at boot waits for the timer.",
    "healing.last-run-succeeded": "`journalctl -u llmhost-heal -n 50` names the container that "
    "it could not restart.",
    "network.host-has-the-declared-name": "Deploy again. Cloud images may reset the name: set "
    "`preserve_hostname: true` for cloud-init.",
    "network.declared-names-resolve-to-their-addresses": "Deploy again to restore the block in "
    "/etc/hosts; `getent hosts NAME` shows what the host resolves.",
    "network.host-has-its-addresses-permanently": "`ip address` shows what the interface has. If "
    "DHCP gave another address, a second network manager is active: `networkctl list`.",
    "network.addresses-are-saved-and-confirmed": "A deploy was interrupted before it "
    "confirmed the addresses. Deploy again.",
    "network.host-uses-the-declared-name-servers": "`resolvectl status` shows who sets the name "
    "servers. DHCP may override them: set `network_interface`.",
    "nvidia_driver.nvml-works": "Run `nvidia-smi` on the server. 'Driver/library version "
    "mismatch' means that it needs a reboot.",
    "nvidia_driver.every-gpu-on-the-bus-is-listed-by-the-driver": "`dmesg | grep -i nvrm` says "
    "why: a seating or power problem, or a driver branch that does not support the GPU.",
    "nvidia_driver.nvidia-smi-and-nvml-agree": "A second libnvidia-ml.so.1 is installed. "
    "`ldconfig -p | grep nvidia-ml` lists them.",
    "nvidia_driver.loaded-module-matches-the-libraries": "Reboot the server: the loaded "
    "kernel module and the installed libraries have different versions.",
    "nvidia_driver.driver-has-no-known-security-hole": "Deploy again: it installs the fixed "
    "version. To keep the driver for now, set `nvidia_driver_accept_vulnerable_until`.",
    "nvidia_driver.no-linux-driver-is-installed-on-wsl": "Run "
    "`apt-get purge 'nvidia-*' 'libnvidia-*'`: on WSL, Windows provides the driver.",
    "nvidia_driver.driver-is-not-upgraded-automatically": "Deploy again to hold the "
    "packages that it names.",
    "nvidia_driver.next-kernel-has-its-module": "Deploy again: it releases the "
    "modules that are held.",
    "nvidia_driver.nouveau-is-not-loaded": "Reboot the server: nouveau is blacklisted from the "
    "next boot.",
    "nvidia_driver.gpus-are-set-as-declared": "Run `systemctl status llmhost-gpu` on the server: "
    "some GPUs refuse a power limit.",
    "nvidia_driver.fabric-manager-has-the-version-of-the-driver": "Deploy again. Until the "
    "versions match, CUDA fails on this server with error 802.",
    "receipt.receipt-is-of-these-settings": "The inventory changed after the last deploy. "
    "`llmhost plan INVENTORY` shows what is outstanding.",
    "receipt.receipt-names-the-models-by-hash": "The models changed after the last deploy. "
    "Deploy again.",
    "receipt.receipt-names-the-images-that-run": "A container was recreated without llmhost. "
    "`docker ps` shows its image; a deploy restores it.",
    "receipt.receipt-names-what-is-installed": "Packages were upgraded after the last deploy: see "
    "/var/log/apt/history.log. A deploy records the new versions.",
    "receipt.receipt-names-the-toolkit": "Another version of llmhost deployed this server. "
    "`llmhost history INVENTORY HOST` shows who did.",
    "receipt.receipt-is-writable-only-by-root": "Someone changed owner or mode. Deploy again, and "
    "do not trust what the old receipt says.",
    "stack.exactly-the-declared-services-run": "Deploy again. A container that is not declared "
    "was started by hand in llmhost's project: remove it, or give it its own project.",
    "stack.service-that-an-operator-stopped-does-not-run": "It was started without llmhost. Run "
    "`llmhost start SERVICE INVENTORY` to keep it, or deploy to stop it again.",
    "stack.every-service-is-healthy": "`docker inspect -f '{{json .State.Health}}' CONTAINER` "
    "shows what its health check said, and `docker logs CONTAINER` why.",
    "stack.services-come-back-after-a-reboot": "Deploy again to restore the restart policy, and "
    "`systemctl enable docker`.",
    "stack.no-process-is-root-or-can-become-root": "The container was not created from llmhost's "
    "Compose files, or from older ones. Deploy again.",
    "stack.containers-reach-only-what-is-declared": "The container was changed by hand. "
    "`llmhost plan INVENTORY` names what was added; deploy to recreate the container.",
    "stack.services-have-limits-in-proportion-to-the-server": "Deploy again; `docker inspect` "
    "shows the limits of a container.",
    "stack.root-file-systems-are-read-only": "Remove `read_only: false` from your own Compose "
    "overrides, then deploy again.",
    "stack.ports-are-published-on-the-loopback-only": "Deploy again, now: the engine answers "
    "without a key on the address that the check names.",
    "stack.logs-are-capped": "Deploy again to recreate the container with its log limit. "
    "`docker system df` shows the disk space in use.",
    "stack.declared-weights-are-in-the-running-container": "The container runs another image than "
    "the inventory declares. Deploy again.",
    "stack.no-volume-hides-what-is-baked": "Remove the volume or mount that the check names: it "
    "covers the models in the image.",
    "stack.weights-are-not-stored-twice": "Run `llmhost prune INVENTORY HOST` to free the space.",
    "stack.images-were-built-here": "The image came from elsewhere. Remove it with "
    "`docker image rm`, then deploy again.",
    "stack.compose-files-name-who-manages-them": "Deploy again: the files were replaced by hand.",
    "system.clock-shows-the-declared-time-zone": "Deploy again. `timedatectl` shows the time zone.",
    "system.clock-is-synchronized": "Deploy again; `timedatectl` shows which service "
    "synchronizes the clock.",
    "system.apt-waits-for-another-package-manager": "Deploy again to restore "
    "/etc/apt/apt.conf.d/zz-llmhost.",
    "system.security-fixes-install-themselves-without-a-reboot": "Deploy again; "
    "`unattended-upgrade --dry-run -v` on the server shows what it would install.",
    "system.kernel-has-the-declared-parameters": "Another file in /etc/sysctl.d sets the "
    "parameter. `sysctl --system` shows the order.",
    "system.container-does-not-change-its-hosts-kernel": "Deploy again: it removes the"
    " parameters from /etc/sysctl.d/60-llmhost.conf.",
    "system.sshd-starts-at-boot": "Run `systemctl enable ssh`. Otherwise no one can log in after "
    "a reboot.",
    "system.changes-of-accounts-and-docker-are-audited": "Deploy again; `journalctl -u auditd` and "
    "`auditctl -l` show why rules are not loaded.",
    "system.unused-protocols-cannot-be-loaded": "Deploy again to restore "
    "/etc/modprobe.d/llmhost-protocols.conf.",
    "system.sshd-has-the-settings-of-its-hardening": "Deploy again. If /etc/ssh has changes that "
    "sshd has not loaded, run `sshd -t && systemctl restart ssh` and log in again first.",
    "system.sshd-offers-no-password-log-in": "Deploy again with a key. If you need password "
    "login, set `system_ssh_password_login`.",
    "system.no-unit-has-undeclared-overrides": "`llmhost plan INVENTORY` names them; a deploy "
    "removes them. List those that must stay in `system_accepted_overrides`.",
    "system.all-packages-are-fully-installed": "`dpkg --audit` names them. `dpkg --configure -a` "
    "and `apt-get -f install` finish an interrupted installation.",
}
"""By the id of a check."""
