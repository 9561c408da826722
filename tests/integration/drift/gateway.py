"""The gateway drifts."""

from tests.integration.drift.case import drifts

_PEM = "/etc/nginx/llmhost/tls.pem"
SHORT_LIVED = "/root/short-lived.pem"
"""A certificate of the site's own authority that ends soon, and its key: the tests put it there."""
_SELF_SIGNED = (
    "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=drifting -days {days}"
    " -keyout /root/key -out /root/crt 2>/dev/null"
)

GATEWAY = (
    *drifts(
        "Gateway",
        "system.no-unit-has-undeclared-overrides",
        (
            "nginx-started-with-another-file",
            "mkdir -p /etc/systemd/system/nginx.service.d; printf '[Service]\\nExecStart=\\n"
            'ExecStart=/usr/sbin/nginx -c /root/other.conf -g "daemon on; master_process on;"\\n\''
            " >/etc/systemd/system/nginx.service.d/other.conf; sed s/75s/74s/ /etc/nginx/nginx.conf"
            " >/etc/nginx/other.conf; mv /etc/nginx/other.conf /root/; systemctl daemon-reload",
            "nginx.service.d/other.conf changes nginx.service: it sets ExecStart",
        ),
        (
            "log-rotation-runs-yearly",
            "mkdir -p /etc/systemd/system/logrotate.timer.d; printf '[Timer]\\nOnCalendar=\\n"
            "OnCalendar=yearly\\n' >/etc/systemd/system/logrotate.timer.d/never.conf;"
            " systemctl daemon-reload",
            "never.conf changes logrotate.timer: it sets OnCalendar",
        ),
    ),
    *drifts(
        "Gateway",
        "gateway.nginx-runs-and-starts-at-boot",
        ("nginx-stopped", "systemctl stop nginx", "nginx is not running"),
        ("nginx-killed", "systemctl kill -s KILL nginx; sleep 1", "nginx is not running"),
        ("nginx-disabled", "systemctl disable nginx", "nginx does not start at boot"),
        ("nginx-masked", "systemctl mask --now nginx", "nginx does not start at boot"),
        (
            "nginx-masked-until-boot",
            "systemctl mask --runtime --now nginx",
            "nginx does not start at boot",
        ),
        ("nginx-removed", "apt-get -y -qq remove nginx", "nginx is not installed"),
    ),
    *drifts(
        "Gateway",
        "gateway.nginx-accepts-its-configuration",
        (
            "nginx-edited",
            "sed -i 's/keepalive_timeout 75s/keepalive_timeout 5s/' /etc/nginx/nginx.conf",
            "/etc/nginx/nginx.conf has other content",
        ),
        ("nginx-conf-deleted", "rm /etc/nginx/nginx.conf", "/etc/nginx/nginx.conf is missing"),
        (
            "nginx-directory-writable",
            "chmod 0777 /etc/nginx/llmhost",
            "/etc/nginx/llmhost has mode 0777",
        ),
        (
            "nginx-module-removed",
            "apt-get -y -qq remove libnginx-mod-http-perl",
            "libnginx-mod-http-perl is not installed",
        ),
    ),
    *drifts(
        "Gateway",
        "gateway.nginx-listens-only-where-it-is-declared",
        (
            "nginx-include-added",
            "echo 'server { listen 9990; }' >/etc/nginx/llmhost/mine.conf; sed -i"
            " 's|include llmhost/handlers.conf;|&\\n    include llmhost/mine.conf;|'"
            " /etc/nginx/nginx.conf; systemctl reload nginx",
            "/etc/nginx/llmhost/mine.conf must not exist",
        ),
        (
            "nginx-runs-another-file",
            "cp -a /etc/nginx/nginx.conf /root/nginx.conf; sed -i s/8079/8078/"
            " /etc/nginx/llmhost/status.conf; systemctl reload nginx; sleep 1;"
            " sed -i s/8078/8079/ /etc/nginx/llmhost/status.conf",
            "the running configuration of nginx is not the declared one",
        ),
    ),
    *drifts(
        "Gateway",
        "gateway.digests-of-keys-are-readable-by-root-only",
        (
            "key-added",
            "printf '\"%064d\" 7;\\n' 1 >>/etc/nginx/llmhost/keys.map; systemctl reload nginx",
            "/etc/nginx/llmhost/keys.map has other content",
        ),
        (
            "keys-readable",
            "chmod 0644 /etc/nginx/llmhost/keys.map",
            "/etc/nginx/llmhost/keys.map has mode 0644",
        ),
    ),
    *drifts(
        "Gateway",
        "gateway.key-of-the-certificate-is-readable-by-root-only",
        (
            "certificate-key-readable",
            f"chmod 0644 {_PEM}",
            "users other than root could have read the certificate's key",
        ),
        (
            "certificate-with-another-key",
            f"{_SELF_SIGNED.format(days=900)}; openssl x509 -in {_PEM} >/root/own;"
            f" cat /root/own /root/key >{_PEM}",
            "there is no certificate yet",
        ),
        ("certificate-deleted", f"rm {_PEM}", "there is no certificate yet"),
    ),
    *drifts(
        "Gateway",
        "gateway.every-route-is-closed-without-a-valid-key",
        (
            "certificate-about-to-expire",
            f"cat {SHORT_LIVED} >{_PEM}; systemctl reload nginx",
            "the certificate expires on",
        ),
        (
            "certificate-of-another-authority",
            f"{_SELF_SIGNED.format(days=900)}; cat /root/crt /root/key >{_PEM};"
            " systemctl reload nginx",
            "the certificate was not issued by this site's authority",
        ),
    ),
    *drifts(
        "Gateway",
        "gateway.access-log-is-rotated",
        (
            "log-rotation-deleted",
            "rm /etc/logrotate.d/llmhost-gateway",
            "/etc/logrotate.d/llmhost-gateway is missing",
        ),
        (
            "log-rotation-switched-off",
            "systemctl disable --now logrotate.timer",
            "logrotate.timer",
        ),
    ),
    *drifts(
        "Gateway",
        "gateway.metrics-are-offered-only-on-the-host",
        ("metrics-stopped", "systemctl stop mtail", "mtail is inactive"),
        (
            "metrics-edited",
            "sed -i s/127.0.0.1/0.0.0.0/ /etc/default/mtail; systemctl restart mtail",
            "/etc/default/mtail has other content",
        ),
        ("metrics-removed", "apt-get -y -qq remove mtail", "mtail is not installed"),
    ),
)
