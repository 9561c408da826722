"""Edit the source text of an inventory."""

from collections.abc import Callable
from pathlib import Path

from llmhost.cli.errors import source_mistake, stop
from llmhost.system.whole_file import write_file


def edit_file(file: Path, edit: Callable[[str], str]) -> None:
    """Replace a file with its edited text in one rename, keeping its permissions."""
    # LibCST is slow to import, and only edits need it.
    from llmhost.gateway.python_source import EditError

    if file.exists() and not file.is_file() and not file.is_dir():
        stop(f"{file} is not a file; give the inventory file, such as inventory/site.py")
    try:
        source = file.read_bytes().decode()
        if mistake := source_mistake(str(file)):
            stop(mistake)
        write_file(file, edit(source))
    except EditError as error:
        stop(f"{file}: {error}")
    except OSError as error:
        stop(f"{file}: {error.strerror}; give the inventory file, such as inventory/site.py")
    except UnicodeDecodeError:
        stop(f"{file} is not a text file; give the inventory file, such as inventory/site.py")
