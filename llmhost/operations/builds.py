"""Builds of images side by side, by a shell on the host.

The builds end with the connection, as the lock does (docs/decisions/0007).
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from pyinfra import logger
from pyinfra.api import FunctionCommand, Host, State, StringCommand
from pyinfra.context import ctx_host

from llmhost.docker.image import ServiceImage
from llmhost.docker.side_by_side import Capacity, next_build
from llmhost.operations.connection_arguments import connection_arguments
from llmhost.operations.host_channel import LOST, HostChannel, open_channel
from llmhost.operations.progress import Progress
from llmhost.resources import script


def builds(images: Sequence[ServiceImage], directory: str) -> FunctionCommand:
    """A command that runs the build script of each image, from `directory`, and prints what it
    printed if it fails. Then no further build begins; the others that run are completed."""
    arguments = connection_arguments(ctx_host.get())
    return FunctionCommand(_run, [tuple(images), directory, arguments], {})


def _run(
    state: State,
    host: Host,
    images: Sequence[ServiceImage],
    directory: str,
    arguments: Mapping[str, Any],
) -> bool:
    try:
        command = StringCommand(script("docker/builds.sh", directory))
        channel = open_channel(host, command, arguments)
    except LOST as error:
        return _report_lost(host, str(error))
    running = _Builds(state, host, channel, images)
    try:
        return running.run()
    except LOST as error:
        return _report_lost(host, str(error))
    finally:
        running.close()


class _Builds:
    """The builds of a host; those in `progress`, by service, are running."""

    def __init__(
        self, state: State, host: Host, channel: HostChannel, images: Sequence[ServiceImage]
    ) -> None:
        self.state, self.host, self.channel = state, host, channel
        self.images, self.waiting = images, [*images]
        self.progress: dict[str, Progress] = {}

    def run(self) -> bool:
        """Whether all builds succeeded. After a failure no further one begins, and those that run
        are completed: the next deploy has their images."""
        succeeded = True
        capacity = self._ready()
        if capacity is None:
            return self._lost()
        self._begin(capacity)
        while self.progress:
            words = self._words()
            if words[:1] != ["ended"]:
                return self._lost()
            service, status, available, *output = words[1:]
            self._end(service, output, succeeded=status == "0")
            succeeded = succeeded and status == "0"
            if succeeded:
                self._begin(_capacity(capacity.threads, available))
        return succeeded

    def _ready(self) -> Capacity | None:
        words = self._words()
        return _capacity(int(words[1]), words[2]) if words[:1] == ["ready"] else None

    def _words(self) -> list[str]:
        """The next line; no words if it is incomplete, because the shell has ended."""
        line = self.channel.read_line()
        return line.split() if line.endswith("\n") else []

    def close(self) -> None:
        """Kill what is still running."""
        for progress in self.progress.values():
            progress.end(succeeded=False)
        self.channel.close()

    def _begin(self, capacity: Capacity) -> None:
        """Begin all builds that may run now."""
        while image := next_build(self.waiting, self._running(), capacity):
            self.waiting.remove(image)
            what = f"building the image of {image.service}"
            self.progress[image.service] = Progress(self.host, what)
            self.channel.send(image.service)

    def _running(self) -> list[ServiceImage]:
        return [image for image in self.images if image.service in self.progress]

    def _end(self, service: str, output: Sequence[str], *, succeeded: bool) -> None:
        self.progress.pop(service).end(succeeded=succeeded)
        if succeeded and not self.state.print_output:
            return
        if not succeeded:
            _print_error(self.host, f"the image of {service} could not be built:")
        printed = base64.b64decode("".join(output)).decode(errors="replace")
        for line in printed.splitlines():
            self.host.log(line, logger.info if succeeded else logger.error)
        if not succeeded and self.progress:
            self.host.log(f"  waiting for the builds that run: {', '.join(self.progress)}")

    def _lost(self) -> bool:
        return _report_lost(self.host, self.channel.read_error().strip())


def _capacity(threads: int, available_kib: str) -> Capacity:
    return Capacity(threads, int(available_kib) * 1024)


def _report_lost(host: Host, why: str) -> bool:
    """The builds' shell has ended; always False."""
    _print_error(
        host, f"the builds were interrupted ({why or 'the connection ended'}): deploy again"
    )
    return False


def _print_error(host: Host, sentence: str) -> None:
    host.log_styled(sentence, fg="red", log_func=logger.error)
