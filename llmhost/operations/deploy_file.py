"""Include llmhost's deploy in a site's deploy.py."""

from llmhost.resources import DEPLOY


def include_deploy() -> None:
    """Run llmhost's deploy.py for the current host.

    pyinfra's local.include would prefix the name of each operation with the file's path.
    """
    source = DEPLOY.read_text(encoding="utf-8")
    exec(compile(source, str(DEPLOY), "exec"), {"__name__": "deploy", "__file__": str(DEPLOY)})  # noqa: S102
