"""Files of environment variables."""

from llmhost.facts.environment_file import EnvironmentFile
from llmhost.operations.changes import explain, refuse
from llmhost.operations.declaration import Commands, declared, get_fact
from llmhost.operations.fact_prefetch import ask
from llmhost.operations.files import apply_command
from llmhost.secret import read_secret
from llmhost.system.environment_file import reasons, unfit
from llmhost.system.files import File
from llmhost.template import render


@declared(prefetch=lambda path, *, owner, **_: [ask(EnvironmentFile, path=path, owner=owner)])
def present(
    path: str, *, template: str, owner: str, secret: str, values: dict[str, str]
) -> Commands:
    """A file of mode 0600 from `template`, rendered with `values` and the secret as `secret`.

    `secret` is a reference, resolved here, so that the secret itself is in no operation argument
    and no plan. A difference is reported by the name of the variable only.
    """
    state = get_fact(EnvironmentFile, path=path, owner=owner)
    try:
        content = read_secret(secret)
    except ValueError as error:
        yield refuse([f"the secret for {path} {error}"])
        return
    if mistake := unfit(content):
        yield refuse([f"the secret for {path} {mistake}"])
        return
    if not state.owner_exists:
        yield refuse([f"there is no user {owner} on the host to own {path}: create the user first"])
        return
    file = File(path, render(template, secret=content, **values), mode="0600", owner=owner)
    if wrong := reasons(file, state):
        explain(wrong)
        yield apply_command([file])
