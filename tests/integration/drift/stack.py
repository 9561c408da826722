"""The stack drifts."""

from tests.integration.drift.case import APP, ENGINE, IMAGE, UP, drifts

_RECREATED = (
    "labels=$(docker inspect -f '{{{{range $key, $value := .Config.Labels}}}}--label"
    " {{{{$key}}}}={{{{$value}}}} {{{{end}}}}' {engine}); image={image}; docker rm -f {engine};"
    " docker run -d --name {engine} --network llmhost_default --restart unless-stopped $labels"
    " {options} $image --model /models/tiny.gguf"
)


def _recreated(options: str) -> str:
    """The engine's container created again by hand, with Compose's labels and these options."""
    return _RECREATED.format(engine=ENGINE, image=IMAGE, options=options)


STACK = (
    *drifts(
        "Stack",
        "stack.every-service-is-healthy",
        ("container-stopped", f"docker stop -t 1 {ENGINE}", "service llamacpp is exited"),
        ("container-killed", f"docker kill {ENGINE}", "service llamacpp is exited"),
        ("container-paused", f"docker pause {ENGINE}", "service llamacpp is paused"),
        ("container-removed", f"docker rm -f {ENGINE}", "service llamacpp is not running"),
        (
            "container-by-hand",
            f"image={IMAGE}; docker rm -f {ENGINE}; docker run -d --name {ENGINE} --network"
            " host $image --model /models/tiny.gguf --host 0.0.0.0 --port 9000",
            f"container {ENGINE} was not created by Compose",
        ),
        (
            "container-renamed",
            f"docker rename {ENGINE} mine",
            f"the container of llamacpp is called mine, not {ENGINE}",
        ),
    ),
    *drifts(
        "Stack",
        "stack.exactly-the-declared-services-run",
        (
            "container-extra",
            "printf 'services: {extra: {image: %s, entrypoint: [curl, --version]}}'"
            f' "{IMAGE}" >/root/extra.yaml; docker compose -p llmhost -f /root/extra.yaml up -d',
            "container llmhost-extra-1 is not declared",
        ),
        (
            "compose-file-extra",
            "echo 'services: {}' >/opt/llmhost/services/extra.yaml",
            "/opt/llmhost/services/extra.yaml must not exist",
        ),
        (
            "compose-project-renamed",
            "echo COMPOSE_PROJECT_NAME=other >/opt/llmhost/.env",
            "/opt/llmhost/.env must not exist",
        ),
    ),
    *drifts(
        "Stack",
        "stack.compose-files-name-who-manages-them",
        ("compose-file-deleted", "rm /opt/llmhost/compose.yaml", "compose.yaml is missing"),
        (
            "compose-file-writable",
            "chmod 0666 /opt/llmhost/services/llamacpp.yaml",
            "llamacpp.yaml has mode 0666",
        ),
        (
            "compose-file-with-a-secret-readable",
            "chmod 0644 /opt/llmhost/services/notes.yaml",
            "notes.yaml has mode 0644",
        ),
        ("compose-directory-writable", "chmod 0777 /opt/llmhost", "/opt/llmhost has mode 0777"),
    ),
    *drifts(
        "Stack",
        "stack.no-process-is-root-or-can-become-root",
        (
            "container-environment-changed",
            f"sed -i 's/PLAIN: .*/PLAIN: \"no\"/' /opt/llmhost/services/notes.yaml; {UP}",
            "notes.yaml has other content",
        ),
        (
            "container-with-more-rights",
            f"cp -p /opt/llmhost/services/notes.yaml /root/kept; sed -i 's/- ALL/- NET_RAW/'"
            f" /opt/llmhost/services/notes.yaml; {UP};"
            " cp -p /root/kept /opt/llmhost/services/notes.yaml",
            "service notes runs with another configuration",
        ),
    ),
    *drifts(
        "Stack",
        "stack.containers-reach-only-what-is-declared",
        (
            "container-on-another-network",
            f"docker network create other; docker network connect other {ENGINE}",
            "service llamacpp has undeclared networks (other)",
        ),
        (
            "container-with-a-directory-of-the-host",
            _recreated("--volume /etc:/host:ro"),
            "undeclared mounts (/host)",
        ),
        (
            "container-with-a-capability",
            _recreated("--cap-add NET_ADMIN --user 0"),
            "capabilities (",
        ),
        ("container-with-a-device", _recreated("--device /dev/null:/dev/x"), "devices (/dev/null)"),
        ("container-privileged", _recreated("--privileged"), "privileges (Privileged True)"),
    ),
    *drifts(
        "Stack",
        "stack.logs-are-capped",
        (
            "container-with-an-endless-log",
            _recreated("--log-driver json-file"),
            "the size of its log is not limited as declared",
        ),
    ),
    *drifts(
        "Stack",
        "stack.root-file-systems-are-read-only",
        ("container-that-is-writable", _recreated("--label own=1"), "file system is writable"),
    ),
    *drifts(
        "Stack",
        "stack.services-come-back-after-a-reboot",
        (
            "container-stays-down",
            f"docker update --restart no {ENGINE}",
            "has undeclared limits: restart policy",
        ),
        (
            "container-restart-policy-changed",
            f"docker update --restart always {APP}",
            "service notes has undeclared limits: restart policy",
        ),
    ),
    *drifts(
        "Stack",
        "stack.images-were-built-here",
        (
            "image-retagged",
            f"docker tag {IMAGE} box; docker tag box $(docker inspect -f"
            f" '{{{{.Config.Image}}}}' {APP})",
            "is a tag of another image",
        ),
        ("image-removed", f"docker rmi -f {IMAGE}", "is missing"),
    ),
    *drifts(
        "Stack",
        "stack.weights-are-not-stored-twice",
        (
            "uploads-left-behind",
            "mkdir -p /opt/llmhost/uploads",
            "is left from an interrupted run",
        ),
    ),
    *drifts(
        "Stack",
        "stack.ports-are-published-on-the-loopback-only",
        (
            "container-disconnected-from-its-network",
            f"docker network disconnect llmhost_default {ENGINE}",
            "service llamacpp is not on the network llmhost_default",
        ),
        (
            "container-port-published-on-all-addresses",
            f"sed -i 's/127.0.0.1:8081/0.0.0.0:8081/' /opt/llmhost/services/llamacpp.yaml; {UP}",
            "llamacpp.yaml has other content",
        ),
    ),
    *drifts(
        "Stack",
        "docker.networks-of-the-stack-publish-on-loopback",
        (
            "network-removed",
            f"docker stop -t 1 {ENGINE} {APP}; docker network rm llmhost_default",
            "is not on the network llmhost_default",
        ),
        (
            "network-by-hand",
            f"docker rm -f {ENGINE} {APP}; docker network rm llmhost_default;"
            " docker network create llmhost_default",
            "network llmhost_default was not created by Compose",
        ),
    ),
    *drifts(
        "Stack",
        "stack.no-volume-hides-what-is-baked",
        (
            "volume-removed",
            f"docker rm -f {APP}; docker volume rm llmhost_notes-data",
            "service notes is not running",
        ),
    ),
    *drifts(
        "Stack",
        "llamacpp.model-is-offered-under-its-declared-name",
        (
            "container-command-changed",
            'sed -i \'s/"tiny"/"other"/\' /opt/llmhost/services/llamacpp.yaml; ' + UP,
            "llamacpp.yaml has other content",
        ),
    ),
)
