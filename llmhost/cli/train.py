"""`llmhost train`: train an adapter on a host, and bring it to the controller."""

import json
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.markup import escape

from llmhost.cli.arguments import Inventory
from llmhost.cli.errors import DRIFT, ERROR, stop, writing
from llmhost.cli.plot_file import check_plot
from llmhost.cli.remote import Remote, RemoteError, remote
from llmhost.cli.session import site_hosts
from llmhost.cli.train_drain import Gateways
from llmhost.inventory.site import SiteHost
from llmhost.inventory.site_reader import no_rules
from llmhost.making.tools import LORA_CONVERTER, MakingError, Tools
from llmhost.models.made import made_directory
from llmhost.models.trained import TRAINED
from llmhost.operations.journal import new_record
from llmhost.options.training import TrainingJob
from llmhost.system.files import UNPACK, archive
from llmhost.training.adapter import TrainingError, convert, curve, kept, unpacked
from llmhost.training.data import DataError, Examples, divided, read_examples
from llmhost.training.job import DRAIN_SECONDS, HostJob, host_command
from llmhost.training.plot import plot
from llmhost.training.report import SCHEMA, Adapter, State, Step, TrainReport
from llmhost.units import counted, duration, gib

UNFINISHED = DRIFT
_GGUF_SERVICES = ("llamacpp", "ollama")
_POLL_SECONDS = 2.0
_PATIENCE_SECONDS = 300.0
_console = Console(soft_wrap=True, highlight=False, stderr=True)


def train(
    inventory: Inventory,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Name of a job in training_jobs")],
    host: Annotated[
        str, typer.Option(help="Host to train on; default: the one that declares the job")
    ] = "",
    status: Annotated[
        bool, typer.Option("--status", help="Only show how far it is; bring the adapter if done")
    ] = False,
    end: Annotated[
        bool, typer.Option("--stop", help="Stop it, keep a checkpoint, start the services again")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when it has begun; it continues without you")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Train again what is trained, without its checkpoints")
    ] = False,
    wait: Annotated[
        int, typer.Option(min=0, help="Seconds that open requests may take before services stop")
    ] = DRAIN_SECONDS,
    interrupt: Annotated[
        bool,
        typer.Option("--interrupt", help="Also if a gateway has no other server: requests fail"),
    ] = False,
    tools: Annotated[
        Path | None,
        typer.Option(metavar="DIRECTORY", help="Where llama.cpp's programs are; none: the PATH"),
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option("--plot", metavar="PNG", help="Also draw the losses; needs llmhost[plot]"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; see llmhost docs train.schema.json")
    ] = False,
) -> None:
    """Train a LoRA adapter on a host, judge it, and write it to models.trained here.

    Services that need the same GPU are stopped meanwhile, and started again however it ends.
    Gateways in front of the host drain it first and return it by themselves; the host's own answers
    503 for these services. It continues when this command ends; call it again to follow or resume
    it. The data is copied to the host, and nowhere else. Exit status: 0 trained, 2 not finished
    yet, 1 failed.
    """
    if png:
        check_plot(png)
    programs = Tools(tools and tools.absolute())
    target, declared = _declared(inventory, job, host)
    with _connected(target) as machine:
        training = _Training(machine, HostJob(target.settings, declared, _examples(declared), wait))
        if end:
            training.end()
        elif not status:
            gateways = Gateways(inventory, target, interrupt=interrupt)
            training.begin(programs, gateways, again=again)
        if not (status or end or detach):
            training.follow()
        report = _report(training, target, programs)
    if png:
        with writing(png):
            plot(report, png)
    if as_json:
        typer.echo(json.dumps(asdict(report)))
    else:
        _print(report, training.host)
    raise typer.Exit({"done": 0, "failed": ERROR, "none": ERROR}.get(report.state, UNFINISHED))


class _Training:
    """A job on its host."""

    def __init__(self, machine: Remote, host: HostJob) -> None:
        self.machine, self.host = machine, host
        self.progress: list[dict[str, Any]] = []

    def ask(self, do: str) -> dict[str, Any]:
        """What the host's script prints; nothing if it is not there. Raises RemoteError."""
        printed = self.machine.run(host_command(self.host.directory, do))
        found: dict[str, Any] = json.loads(printed or "{}")
        return found

    def state(self) -> dict[str, Any]:
        """The state of the job as it is declared now, and its progress."""
        found = self.ask("status")
        if not found or (found.get("digest") != self.host.digest and not found["active"]):
            self.progress = []
            return {"state": "none", "active": False}
        self.progress = found.pop("progress")
        return found

    def begin(self, tools: Tools, gateways: Gateways, *, again: bool) -> None:
        """Check everything, then start; nothing if it runs or is trained already."""
        found = self.state()
        if found["active"]:
            _say("it runs already; this shows its progress")
            return
        if found.get("state") == "done" and not again:
            return
        _check_tools(self.host, tools)
        self._send()
        checked = self.ask("check")
        _say(
            f"{checked['trainable']:,} of {checked['parameters']:,} parameters,"
            f" {checked['examples']} examples with {checked['tokens']:,} tokens,"
            f" {checked['steps']} steps, up to {gib(checked['memory_bytes'])} of memory"
        )
        if left_out := checked.get("left_out"):
            _say(
                f"{counted(left_out, 'question')} left out: longer than context_tokens,"
                f" {self.host.job.context_tokens}, with the answer"
            )
        if (removed := checked.get("replaces")) and not again:
            stop(
                f"{self.host.job.name}: its data, options or image have changed since it began,"
                f" and a new start would remove {removed} on {self.machine.name}: declare it as it"
                " was, or train from the beginning with --again"
            )
        # What an operator has stopped stays so: no gateway waits until it runs.
        if stopped := checked["stops"]:
            _say(f"stopped meanwhile: {', '.join(stopped)}")
        with replace(gateways, services=stopped).drained():
            if again:
                self.ask("forget")
            self.ask("start")

    def end(self) -> None:
        """Stop it, and wait until its services run again."""
        if not self.state()["active"]:
            stop(f"{self.host.job.name} is not being trained on {self.machine.name}")
        self.machine.run(f"systemctl stop llmhost-training-{self.host.job.name}.service")

    def follow(self) -> None:
        """Print progress until it ends. A lost connection is tried again for a while."""
        shown, lost = 0, 0.0
        try:
            while True:
                try:
                    found = self.state()
                    lost = 0.0
                except RemoteError as error:
                    lost = lost or time.monotonic()
                    if time.monotonic() - lost > _PATIENCE_SECONDS:
                        stop(f"{error}; the training continues; see it with --status")
                    time.sleep(_POLL_SECONDS)
                    continue
                for each in self.progress:
                    if each["step"] > shown:
                        _console.print(_line(each))
                        shown = each["step"]
                if not found["active"]:
                    return
                time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:
            _say("the training continues; see it with --status, end it with --stop")
            raise typer.Exit(UNFINISHED) from None

    def result(self) -> bytes:
        """The adapter and its figures, as a tar archive."""
        work = shlex.quote(f"{self.host.directory}/work")
        with tempfile.TemporaryFile() as file:
            self.machine.save(f"tar -C {work} -cf - adapter result.json", file)
            file.seek(0)
            return file.read()

    def was_brought(self) -> None:
        """Let the host know that the controller has the adapter."""
        self.machine.run(f"touch {shlex.quote(self.host.directory)}/work/brought")

    def _send(self) -> None:
        job = shlex.quote(f"{self.host.directory}/job")
        self.machine.run(f"umask 077; mkdir -p {job}")
        self.machine.feed(UNPACK, [archive(self.host.files).encode()])


def _declared(inventory: str, job: str, name: str) -> tuple[SiteHost, TrainingJob]:
    """The host, whose settings are checked, and the job."""
    known = site_hosts(inventory, [name] if name else [], no_rules)
    found = [each for each in known if job in _jobs(each)]
    if not found:
        names = dict.fromkeys(each for host in known for each in _jobs(host))
        listed = f"declared: {', '.join(names)}" if names else "none is; see llmhost docs training"
        stop(f"training_jobs has no {job} in {inventory}; {listed}")
    if len(found) > 1:
        names = dict.fromkeys(each.name for each in found)
        stop(f"several hosts declare {job}; choose one with --host: {', '.join(names)}")
    [target] = site_hosts(inventory, [found[0].name])
    return target, next(each for each in target.settings.training_jobs if each.name == job)


def _jobs(host: SiteHost) -> list[str]:
    return [job.name for job in host.settings.training_jobs]


def _examples(job: TrainingJob) -> Examples:
    try:
        given = [job.evaluate.file] if job.evaluate.file else []
        held_back = read_examples(given, job.context_tokens)
        if given and not held_back:
            raise DataError(f"has no example in {given[0]}; add some, or remove evaluate.file")
        found = read_examples(job.data, job.context_tokens)
        return divided(found, job.evaluate.held_back, held_back, job.seed)
    except DataError as error:
        stop(f"{job.name} {error}")


@contextmanager
def _connected(host: SiteHost) -> Iterator[Remote]:
    """A connection whose errors end the command with a sentence."""
    try:
        with remote(host.name, host.data) as machine:
            yield machine
    except RemoteError as error:
        stop(str(error))


def _check_tools(host: HostJob, tools: Tools) -> None:
    """The converter for the model's engine, before the training rather than after it."""
    try:
        if _needs_gguf(host):
            tools.run(LORA_CONVERTER, ["--help"])
    except MakingError as error:
        stop(f"{host.job.name} {error}")


def _needs_gguf(host: HostJob) -> bool:
    models = host.settings.models
    return any(m.name == host.job.model and m.service in _GGUF_SERVICES for m in models)


def _report(training: _Training, target: SiteHost, tools: Tools) -> TrainReport:
    """How far it is; brings the adapter if it is done."""
    found = training.state()
    state = cast(State, "running" if found["active"] else found.get("state", "none"))
    adapter = _bring(training, target, tools) if state == "done" else None
    return TrainReport(
        SCHEMA,
        target.name,
        training.host.job.name,
        state,
        str(found.get("why", "")),
        tuple(map(_step, training.progress)),
        adapter,
        training.host.for_container,
    )


def _step(found: Mapping[str, Any]) -> Step:
    losses = found.get("loss"), found.get("held_back_loss")
    return Step(found["step"], found["steps"], *losses, found["seconds"])


def _bring(training: _Training, target: SiteHost, tools: Tools) -> Adapter:
    """Write the adapter below models.trained; stops if it is not good enough."""
    host = training.host
    lock_file = Path(target.settings.stack.models_lock).expanduser()
    home = lock_file.with_name(TRAINED)
    draft = home / f".{host.job.name}.draft"
    record = {
        "host": target.name,
        "by": new_record().by,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "curve": curve(training.progress),
    }
    try:
        shutil.rmtree(draft, ignore_errors=True)
        result = unpacked(training.result(), draft)
        if _needs_gguf(host):
            convert(host, draft, made_directory(lock_file), tools, _say)
        found = kept(host, draft, home / host.job.name, result, record)
        training.was_brought()
        return found
    except (TrainingError, MakingError) as error:
        stop(f"{host.job.name} {error}")
    except OSError as error:
        stop(f"{host.job.name}: {error.filename or home}: {error.strerror}")
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _print(report: TrainReport, host: HostJob) -> None:
    if report.adapter is None:
        texts = {
            "none": "was not trained yet as it is declared now",
            "running": "is being trained",
            "paused": f"is paused: {report.why}; run the command again to continue",
            "interrupted": f"was interrupted: {report.why}; run the command again to continue",
            "failed": f"failed: {report.why}",
        }
        last = f"; {_line(asdict(report.steps[-1]))}" if report.steps else ""
        typer.echo(f"{report.job} {texts.get(report.state, report.state)}{last}")
        return
    found = report.adapter
    typer.echo(
        f"{report.job} is trained: loss on what was held back {found.before:.4f} without and"
        f" {found.after:.4f} with it, ratio {found.value:.4f} (limit {found.limit})"
    )
    typer.echo(f"To serve it, add this to the model in the inventory:\n{_option(found, host.job)}")


def _option(found: Adapter, job: TrainingJob) -> str:
    """The option of a model with this adapter."""
    if found.gguf:
        digest = found.files[Path(found.gguf).name]
        return f'"adapter": "{found.gguf}", "adapter_sha256": "{digest}",'
    pinned = found.files["adapter_model.safetensors"]
    record = {"name": job.name, "source": found.directory, "sha256": pinned}
    return f'"adapters": [{json.dumps(record)}],'


def _line(each: Mapping[str, Any]) -> str:
    losses: Sequence[str] = [
        f"{text} {each[key]:.4f}"
        for key, text in (("loss", "loss"), ("held_back_loss", "held back"))
        if each.get(key) is not None
    ]
    passed = duration(each["seconds"])
    return f"step {each['step']} of {each['steps']}, {', '.join(losses)} (after {passed})"


def _say(text: str) -> None:
    _console.print(escape(text))
