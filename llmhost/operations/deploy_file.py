"""The deploy of the installed llmhost, as part of a site's own deploy.py."""

from llmhost.resources import DEPLOY


def include_deploy() -> None:
    """Run llmhost's deploy.py for the present host.

    pyinfra's local.include would put the file's path before the name of each operation.
    """
    source = DEPLOY.read_text(encoding="utf-8")
    exec(compile(source, str(DEPLOY), "exec"), {"__name__": "deploy", "__file__": str(DEPLOY)})  # noqa: S102
