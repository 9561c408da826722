"""Shell commands that are made of others."""


def at_once(*commands: str) -> str:
    """Command that runs all of these in parallel and prints their outputs one after the other. It
    always succeeds."""
    lines = ["d=$(mktemp -d) || exit", "trap 'rm -rf \"$d\"' EXIT"]
    lines += [f'{{ {command}\n}} >"$d/{number}" &' for number, command in enumerate(commands)]
    outputs = " ".join(f'"$d/{number}"' for number in range(len(commands)))
    return "\n".join([*lines, "wait", f"cat {outputs}; true"])
