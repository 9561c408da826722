"""Settings of Open WebUI drift: its administrator changes them on its pages."""

from tests.integration.drift.case import UI, drifts

# What the pages send, on behalf of who logs in.
_SET = (
    "api='curl -sSf -H Content-Type:application/json http://127.0.0.1:8083/api/v1';"
    f" password=$(docker exec {UI} printenv WEBUI_ADMIN_PASSWORD);"
    ' login="{\\"email\\": \\"admin@localhost\\", \\"password\\": \\"$password\\"}";'
    ' token=$($api/auths/signin -d "$login" | sed \'s/.*"token": *"\\([^"]*\\)".*/\\1/\');'
    ' $api/configs/import -H "Authorization: Bearer $token"'
)


def _set(settings: str) -> str:
    return f"{_SET} -d '{{\"config\": {{{settings}}}}}'"


_SIGN = "service open_webui has a setting that was changed manually: "

OPEN_WEBUI = (
    *drifts(
        "Stack",
        "open_webui.settings-in-use-are-those-it-was-started-with",
        (
            "ui-sends-conversations-elsewhere",
            _set('"openai.api_base_urls": ["https://engine.invalid/v1"]'),
            f"{_SIGN}openai.api_base_urls",
        ),
        (
            "ui-searches-the-web",
            _set('"web.search.enable": true'),
            f"{_SIGN}web.search.enable",
        ),
    ),
    *drifts(
        "Stack",
        "open_webui.first-administrator-exists-and-sign-up-is-closed",
        (
            "ui-allows-sign-up",
            _set('"ui.enable_signup": true'),
            f"{_SIGN}ui.enable_signup",
        ),
    ),
)
