"""The whole path, as a stranger walks it: a bare machine becomes a server, and stays one.

One machine serves all tests of this module, in the order of the file: converge, converge again,
verify, drift, reboot, verify.
"""

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from llmhost.verify.hardening import items
from testbed import Client, Lan, Machine
from testbed.process import wait_until
from tests.integration.streaming import streaming
from tests.programs import running

pytestmark = pytest.mark.machines
ROOT = Path(__file__).parents[2]
# Without ignore_eos a model may end its answer before the eighth token.
BODY = '{"model": "any", "prompt": "Hi", "max_tokens": 8, "ignore_eos": true, "stream": true}'


@dataclass(frozen=True)
class Demo:
    """A demo that is up; `env` finds it again."""

    home: Path
    env: dict[str, str]
    server: Machine
    client: Client
    printed: str

    @property
    def url(self) -> str:
        return self.env["LLMHOST_URL"]

    def run(self, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return run_program(self.env, program, *arguments)

    def deploy(self, *options: str) -> "subprocess.CompletedProcess[str]":
        return self.run("pyinfra", "inventory/demo.py", "deploy.py", *options)

    def curl(self, *arguments: str) -> str:
        """Status code, or curl's own exit status as `curl N`, as the client on the LAN sees it."""
        command = ["curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", *arguments]
        result = self.client.run(command, check=False)
        return result.stdout if result.returncode == 0 else f"curl {result.returncode}"


def run_program(
    env: dict[str, str], program: str, *arguments: str
) -> "subprocess.CompletedProcess[str]":
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, timeout=2400
    )


def values(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line)


@pytest.fixture(scope="module", params=["nspawn", pytest.param("vm", marks=pytest.mark.vm)])
def demo(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Demo]:
    home = tmp_path_factory.mktemp("demo") / "demo"
    env = {"LLMHOST_DEMO": str(home)}
    # An emulated processor is too slow for the model that answers.
    options = ["--vm", "--model", "tiny"] if request.param == "vm" else []
    try:
        up = run_program(env, "python", "-m", "testbed.demo", *options)
        assert up.returncode == 0, up.stdout + up.stderr
        lan = Lan.open(home / "lan")
        env |= values(home / "env")
        yield Demo(home, env, lan.machines["llm-demo"], lan.clients["client"], up.stdout)
    finally:
        down = run_program(env, "python", "-m", "testbed.demo", "--down")
        assert down.returncode == 0, down.stdout + down.stderr
        assert not home.exists()


def assert_nothing_changed(run: "subprocess.CompletedProcess[str]") -> None:
    assert run.returncode == 0, run.stderr
    operations = json.loads(run.stdout)["results"]["operations"]
    assert len(operations) > 10, "the report must tell of the whole deploy"
    changed = [operation["name"] for operation in operations if operation["success"]]
    assert changed == [], run.stderr


def test_second_run_changes_nothing(demo: Demo) -> None:
    assert_nothing_changed(demo.deploy("-y", "--json"))


def test_dry_run_finds_nothing_to_do(demo: Demo) -> None:
    plan = json.loads(demo.deploy("--dry", "--json").stdout)["plan"]
    assert len(plan) > 10
    gates = ("hosts_with_change", "hosts_with_conditional_change")
    assert [step["name"] for step in plan if any(step[gate] for gate in gates)] == []


def test_plan_of_a_converged_host_exits_with_0(demo: Demo) -> None:
    plan = demo.run("llmhost", "plan", "inventory/demo.py", "--json")
    assert plan.returncode == 0, plan.stdout + plan.stderr
    assert json.loads(plan.stdout)["hosts"] == [
        {"host": "llm-demo", "status": "converged", "steps": [], "errors": [], "notes": []}
    ]


def test_client_with_key_gets_a_stream_of_tokens(demo: Demo) -> None:
    key = demo.env["LLMHOST_API_KEY"]
    command = ["curl", "-sN", "-m", "60", f"{demo.url}/v1/completions", "-d", BODY]
    command += ["-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json"]
    lines = [line for line in demo.client.run(command).stdout.splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    assert sum(line.startswith("data: {") for line in lines) >= 8


def model_answers(demo: Demo) -> bool:
    return (demo.home / "model").read_text() == "smollm2"


def test_printed_command_is_answered_with_a_sentence(demo: Demo) -> None:
    (command,) = [line for line in demo.printed.splitlines() if line.startswith("curl ")]
    answer = demo.client.run(["sh", "-c", f"{command} -s"], timeout=300).stdout
    if not model_answers(demo):
        assert answer.rstrip().endswith("data: [DONE]")
        return
    (choice,) = json.loads(answer)["choices"]
    text = choice["message"]["content"]
    assert choice["finish_reason"] == "stop" and text.startswith("A computer is"), text
    assert text.endswith(".") and len(text.split()) > 5, text


def test_conversation_goes_through_the_gateway_until_the_end_of_input(demo: Demo) -> None:
    program = str(Path(sys.executable).with_name("python"))
    talk = subprocess.run(
        [program, "-m", "testbed.demo", "--chat"],
        cwd=ROOT,
        env=os.environ | demo.env,
        input="What is a cat? Answer in one short sentence.\nAnd a dog?\n",
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert talk.returncode == 0, talk.stderr
    _, cat, dog, end = talk.stdout.split("> ")
    assert end.strip() == ""
    if model_answers(demo):
        assert "cat" in cat.lower() and "dog" in dog.lower()


@pytest.mark.parametrize("key", ["", "llmhost-" + "0" * 64])
def test_client_without_the_right_key_is_refused(demo: Demo, key: str) -> None:
    headers = ["-H", f"Authorization: Bearer {key}"] if key else []
    assert demo.curl(*headers, "-d", BODY, f"{demo.url}/v1/completions") == "401"


def test_undeclared_route_is_not_passed_on(demo: Demo) -> None:
    header = f"Authorization: Bearer {demo.env['LLMHOST_API_KEY']}"
    assert demo.curl("-H", header, f"{demo.url}/v1/models") == "200"
    assert demo.curl("-H", header, f"{demo.url}/slots") == "404"


def test_engine_is_not_reachable_from_outside(demo: Demo) -> None:
    for address in (demo.server.address, f"[{demo.server.address6}]"):
        assert demo.curl(f"http://{address}:8081/health").startswith("curl ")


def test_port_published_by_hand_is_not_reachable_from_outside(demo: Demo) -> None:
    image = demo.server.ssh(
        "docker inspect -f '{{.Config.Image}}' llmhost-llamacpp-1"
    ).stdout.strip()
    model = json.loads((demo.home / "site.json").read_text())["model"]["name"]
    arguments = f"--model /models/{model}.gguf --host 0.0.0.0 --port 8080"
    demo.server.ssh(f"docker run -d --rm --name stray -p 0.0.0.0:9000:8080 {image} {arguments}")
    try:
        assert demo.server.ssh("ss -Hltn sport = :9000").stdout, "the port must be published"
        assert demo.curl(f"http://{demo.server.address}:9000/") == "curl 28"
    finally:
        demo.server.ssh("docker rm -f stray")


def test_status_shows_the_engine_its_requests_and_the_last_deploy(demo: Demo) -> None:
    header = f"Authorization: Bearer {demo.env['LLMHOST_API_KEY']}"
    url = f"{demo.url}/v1/completions"
    assert demo.curl("-m", "60", "-H", header, "-d", BODY, url) == "200"
    demo.server.ssh("sleep 2")  # the log is written every second
    said = demo.run("llmhost", "status", "inventory/demo.py", "--json", "--plan")
    assert said.returncode == 0, said.stdout + said.stderr
    [found] = json.loads(said.stdout)["hosts"]
    assert (found["status"], found["plan"]) == ("ok", "nothing to do")
    [engine] = found["services"]
    assert (engine["name"], engine["state"]) == ("llamacpp", "healthy")
    assert engine["models"] in (["smollm2"], ["tiny"])  # the latter on the virtual machine
    assert found["requests"]["answered"] >= 1
    assert 0 < found["requests"]["first_byte_p50_seconds"] < 60
    assert found["deploy"]["current"] and found["deploy"]["result"] == "done"
    table = demo.run("llmhost", "status", "inventory/demo.py").stdout
    assert "llamacpp" in table and "healthy" in table and demo.env["LLMHOST_API_KEY"] not in table


def test_logs_show_requests_and_the_engine_without_keys(demo: Demo) -> None:
    refused = demo.curl("-H", "Authorization: Bearer wrong", f"{demo.url}/v1/models")
    assert refused == "401"
    demo.server.ssh("sleep 2")
    site = "inventory/demo.py"
    rows = demo.run("llmhost", "logs", "gateway", site, "--since", "10m").stdout.splitlines()
    assert rows[0].startswith("time") and "401 key_unknown" in rows[-1]
    assert "llmhost-" not in "".join(rows)
    lines = demo.run("llmhost", "logs", "gateway", site, "--grep", '"status":200', "--json").stdout
    found = [json.loads(line) for line in lines.splitlines()]
    assert {(each["host"], each["status"]) for each in found} == {("llm-demo", 200)}
    assert "/v1/completions" in {each["route"] for each in found}
    engine = demo.run("llmhost", "logs", "llamacpp", site, "-n", "9999").stdout
    assert "llama_server: initializing" in engine
    program = [str(Path(sys.executable).with_name("llmhost")), "logs", "gateway", site, "-f", "-n0"]
    with running(
        program, cwd=ROOT, env=os.environ | demo.env, stdout=subprocess.PIPE, text=True
    ) as process:
        reading = "until pgrep -f 'tail -c .*gateway[.]json'; do sleep 0.1; done"
        demo.server.ssh(f"timeout 60 sh -c {reading!r}")
        demo.curl("-H", "Authorization: Bearer wrong", f"{demo.url}/v1/models")
        assert process.stdout and process.stdout.readline().startswith("time")
        assert "401 key_unknown" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    ended = "while pgrep -f 'tail -c .*gateway[.]json'; do sleep 0.1; done"
    demo.server.ssh(f"timeout 60 sh -c {ended!r}")


def test_usage_counts_the_requests_of_each_client(demo: Demo) -> None:
    said = demo.run("llmhost", "usage", "inventory/demo.py", "--json")
    assert said.returncode == 0, said.stderr
    report = json.loads(said.stdout)
    rows = {row["name"]: row for row in report["rows"]}
    assert rows[""]["refused"] >= 1 and report["errors"] == {}
    [client] = rows.keys() - {""}
    table = demo.run("llmhost", "usage", "inventory/demo.py", "--csv").stdout.splitlines()
    assert table[0].startswith("client,requests,") and any(client in row for row in table[1:])


def test_last_use_of_a_key_is_that_of_its_last_request(demo: Demo) -> None:
    key = demo.env["LLMHOST_API_KEY"]
    before = datetime.now(UTC).replace(microsecond=0)
    assert demo.curl("-H", f"Authorization: Bearer {key}", f"{demo.url}/v1/models") == "200"
    sleep(2)  # nginx writes its log every second
    said = demo.run("llmhost", "key", "list", "inventory/demo.py", "--use", "--json")
    assert said.returncode == 0, said.stderr
    [status] = json.loads(said.stdout)["keys"]
    assert before <= datetime.fromisoformat(status["last_used"]) <= datetime.now(UTC)
    assert "demo" in demo.run("llmhost", "key", "list", "inventory/demo.py", "--use").stdout
    sleep(3)
    idle = demo.run("llmhost", "status", "inventory/demo.py", "--unused-for", "2s", "--json")
    [host] = json.loads(idle.stdout)["hosts"]
    assert host["attention"] == [
        f"the key of demo was last used {status['last_used'][:10]}: llmhost key revoke demo FILE"
    ]


def test_page_shows_the_site_and_exits_as_its_worst_part(demo: Demo, tmp_path: Path) -> None:
    ran = demo.run("llmhost", "page", "inventory/demo.py", "-o", str(tmp_path / "page"))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    text = (tmp_path / "page/index.html").read_text()
    assert "The host is fine" in text and "A deploy would change nothing." in text
    assert "llm-demo" in text and "llamacpp" in text and "no valid key" in text


def test_commands_run_on_the_host_and_in_a_container(demo: Demo) -> None:
    site = "inventory/demo.py"
    there = demo.run("llmhost", "ssh", site, "llm-demo", "--", "echo", "$HOME; exit 7")
    assert (there.stdout, there.returncode) == ("$HOME; exit 7\n", 0)
    # The engine's image has no shell.
    inside = demo.run("llmhost", "exec", "llamacpp", site, "--", "curl", "--version")
    assert inside.stdout.startswith("curl ") and inside.returncode == 0, inside.stderr
    refused = demo.run("llmhost", "exec", "llamacpp", site, "--", "curl", "http://127.0.0.1:1")
    assert refused.returncode == 7


def test_sbom_lists_the_packages_of_the_host_its_image_and_its_model(
    demo: Demo, tmp_path: Path
) -> None:
    written = ["-o", str(tmp_path), "--key", str(tmp_path / "keys")]
    ran = demo.run("llmhost", "sbom", "inventory/demo.py", *written)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    text = (tmp_path / "llm-demo.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = {each["type"]: each for each in json.loads(text)["components"]}
    system, image = found["operating-system"], found["container"]
    model = found["machine-learning-model"]
    status = "dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\\n'"
    lines = demo.server.ssh(status).stdout.splitlines()
    listed = {each.partition(" ")[2] for each in lines if each.startswith("installed ")}
    assert {f"{each['name']} {each['version']}" for each in system["components"]} == listed
    about = demo.server.ssh("docker inspect -f '{{.Image}}' llmhost-llamacpp-1").stdout.strip()
    assert [f"sha256:{each['content']}" for each in image["hashes"]] == [about]
    declared = json.loads((demo.home / "site.json").read_text())["model"]
    assert [each["content"] for each in model["hashes"]] == [declared["sha256"]]


@pytest.mark.parametrize(
    ("drift", "component", "sign"),
    [
        ("docker stop llmhost-llamacpp-1", "Stack", "llamacpp"),
        ("sed -i s/8080/8888/ /etc/nginx/nginx.conf", "Gateway", "/etc/nginx/nginx.conf"),
        ("ufw allow 9999/tcp", "Firewall", "9999"),
        ("nft delete table inet llmhost_egress", "Egress", "llmhost_egress is not loaded"),
        ("rm /etc/sysctl.d/60-llmhost.conf", "System", "60-llmhost.conf"),
        ("touch /etc/docker/daemon.json", "Docker", "docker.service"),
    ],
)
def test_drift_is_found_named_and_corrected(
    demo: Demo, drift: str, component: str, sign: str
) -> None:
    demo.server.ssh(drift)
    plan = demo.run("llmhost", "plan", "inventory/demo.py", "--json")
    assert plan.returncode == 2, plan.stdout + plan.stderr
    steps = json.loads(plan.stdout)["hosts"][0]["steps"]
    told = [
        reason for step in steps if step["component"] == component for reason in step["reasons"]
    ]
    assert any(sign in reason for reason in told), steps
    assert demo.deploy("-y").returncode == 0
    assert demo.run("llmhost", "plan", "inventory/demo.py").returncode == 0


def declare(demo: Demo, **data: Any) -> None:
    site = json.loads((demo.home / "site.json").read_text())
    (demo.home / "site.json").write_text(json.dumps({**site, "data": data}))


def reasons(demo: Demo) -> list[str]:
    plan = json.loads(demo.run("llmhost", "plan", "inventory/demo.py", "--json").stdout)
    return [reason for step in plan["hosts"][0]["steps"] for reason in step["reasons"]]


def engines(demo: Demo) -> list[str]:
    shown = "docker ps --all --no-trunc --format '{{.Names}} {{.ID}}'"
    return demo.server.ssh(shown).stdout.splitlines()


def test_changed_service_is_replaced_and_no_client_notices(demo: Demo) -> None:
    """The gateway has the real engine's streams of the old container and of the new one."""
    key, (before,) = demo.env["LLMHOST_API_KEY"], engines(demo)
    declare(demo, llamacpp_extra_arguments=["--threads-batch", "1"])
    told = reasons(demo)
    assert any(each.startswith("a second container answers for service") for each in told), told
    assert not any("interrupted" in each for each in told), told
    with streaming(demo.client, demo.url, key, streams=2, tokens=16) as count:
        sleep(1)
        assert demo.deploy("-y").returncode == 0
    assert count["failures"] == [] and count["whole"] > 0, count
    (after,) = engines(demo)
    assert after.startswith("llmhost-llamacpp-1 ") and after != before
    assert demo.run("llmhost", "plan", "inventory/demo.py").returncode == 0


def test_service_that_cannot_start_leaves_the_old_one_answering(demo: Demo) -> None:
    before, nginx = engines(demo), demo.server.ssh("md5sum /etc/nginx/llmhost/*").stdout
    kept = (demo.home / "site.json").read_text()
    declare(demo, llamacpp_extra_arguments=["--no-such-argument"])
    key = demo.env["LLMHOST_API_KEY"]
    with streaming(demo.client, demo.url, key, streams=2, tokens=16) as count:
        failed = demo.deploy("-y")
    assert failed.returncode == 1
    assert "no-such-argument" in failed.stderr + failed.stdout  # the engine's own words
    assert "llmhost-llamacpp-1 still answers" in failed.stderr + failed.stdout
    assert count["failures"] == [] and count["whole"] > 0, count
    assert engines(demo) == before
    assert demo.server.ssh("md5sum /etc/nginx/llmhost/*").stdout == nginx
    (demo.home / "site.json").write_text(kept)
    # The file of the service that answers is there: `llmhost restart` would start the same again.
    assert demo.run("llmhost", "plan", "inventory/demo.py").returncode == 0


def assert_replaced(demo: Demo) -> None:
    """One container, of the declared service, gets all requests."""
    assert [each.split()[0] for each in engines(demo)] == ["llmhost-llamacpp-1"]
    assert demo.run("llmhost", "plan", "inventory/demo.py").returncode == 0
    header = f"Authorization: Bearer {demo.env['LLMHOST_API_KEY']}"
    assert demo.curl("-H", header, f"{demo.url}/v1/models") == "200"
    assert demo.server.ssh("pgrep -f '^sh -c .*docker/[b]eside.sh'", check=False).stdout == ""


REDIRECTED = (
    "until curl -sf http://127.0.0.1:8079/configuration | grep -qx llamacpp-beside;"
    " do sleep 0.05; done"
)
_IN_TIME = 900
"""Seconds for a deploy to reach the replacement; an emulated machine is slow."""
KILLED = "pkill -KILL -f '^sh -c .*docker/[b]eside.sh'; pkill -KILL -f 'docker [c]ompose'; true"


def kill_replacement(demo: Demo) -> None:
    """Deploy, and kill it on the host while the second container gets the requests."""
    with ThreadPoolExecutor() as pool:
        killed = pool.submit(demo.server.ssh, f"{REDIRECTED}; {KILLED}", timeout=_IN_TIME)
        assert demo.deploy("-y").returncode == 1
        killed.result()


@pytest.mark.faults
def test_killed_replacement_is_corrected_by_the_next_deploy(demo: Demo) -> None:
    declare(demo, llamacpp_extra_arguments=["--threads-batch", "2"])
    kill_replacement(demo)
    told = reasons(demo)
    assert "container llmhost-llamacpp-beside was left by an interrupted deploy" in told
    assert "the running configuration of nginx is not the declared one" in told
    declare(demo)
    assert demo.deploy("-y").returncode == 0
    assert_replaced(demo)


@pytest.mark.faults
def test_replacement_ends_with_its_controller(demo: Demo) -> None:
    """While it waits for a long stream; the next deploy may begin at once."""
    key = demo.env["LLMHOST_API_KEY"]
    declare(demo, llamacpp_extra_arguments=["--threads-batch", "1"])
    program = [str(Path(sys.executable).with_name("pyinfra")), "inventory/demo.py", "deploy.py"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with streaming(demo.client, demo.url, key, streams=2, tokens=60):
        sleep(1)
        with running([*program, "-y"], cwd=ROOT, env=os.environ | demo.env, **quiet) as deploy:
            demo.server.ssh(REDIRECTED, timeout=_IN_TIME)
            deploy.kill()
        declare(demo)
        assert demo.deploy("-y").returncode == 0
    assert_replaced(demo)


@pytest.mark.faults
def test_second_container_answers_on_if_the_first_one_does_not_come_back(demo: Demo) -> None:
    """Compose fails after it has removed the first container."""
    shim = (
        '#!/bin/sh\ncase "$*" in *"up --detach"*)'
        " /usr/bin/docker rm --force llmhost-llamacpp-1; exit 1 ;; esac\n"
        'exec /usr/bin/docker "$@"\n'
    )
    demo.server.ssh("install -m 0755 /dev/stdin /usr/local/bin/docker", input=shim)
    key = demo.env["LLMHOST_API_KEY"]
    declare(demo, llamacpp_extra_arguments=["--threads-batch", "2"])
    try:
        with streaming(demo.client, demo.url, key, streams=1, tokens=16) as count:
            failed = demo.deploy("-y")
    finally:
        demo.server.ssh("rm /usr/local/bin/docker")
    said = failed.stdout + failed.stderr
    assert failed.returncode == 1 and "llmhost-llamacpp-beside answers until the next" in said, said
    assert count["failures"] == [] and count["whole"] > 0, count
    declare(demo)
    assert demo.deploy("-y").returncode == 0
    assert_replaced(demo)


@pytest.mark.faults
def test_reboot_during_a_replacement_leads_back_to_the_first_container(demo: Demo) -> None:
    declare(demo, llamacpp_extra_arguments=["--threads-batch", "1"])
    kill_replacement(demo)
    demo.server.reboot()
    header = f"Authorization: Bearer {demo.env['LLMHOST_API_KEY']}"
    assert wait_until(lambda: demo.curl("-H", header, f"{demo.url}/v1/models") == "200", 300)
    declare(demo)
    assert demo.deploy("-y").returncode == 0
    assert_replaced(demo)


def verify(demo: Demo, tmp_path: Path) -> dict[str, int]:
    """Counts of a run of the server tests, from their JUnit report."""
    report = tmp_path / "verify.xml"
    outside = " ".join(demo.client.command([]))
    options = ["--outside", outside, "--junit", str(report)]
    result = demo.run("llmhost", "verify", "inventory/demo.py", *options)
    assert result.returncode == 0, result.stdout + result.stderr
    suite = ElementTree.parse(report).getroot()[0]
    return {count: int(suite.attrib[count]) for count in ("tests", "failures", "errors", "skipped")}


def test_server_passes_its_tests_before_and_after_a_reboot(demo: Demo, tmp_path: Path) -> None:
    before = verify(demo, tmp_path)
    assert before["tests"] > 20
    demo.server.reboot()
    assert verify(demo, tmp_path) == before
    assert_nothing_changed(demo.deploy("-y", "--json"))


def test_demo_started_again_uses_the_same_machine_and_key(demo: Demo) -> None:
    born = demo.server.ssh("cat /etc/machine-id").stdout
    again = run_program(demo.env, "python", "-m", "testbed.demo")
    assert again.returncode == 0, again.stdout + again.stderr
    assert values(demo.home / "env")["LLMHOST_API_KEY"] == demo.env["LLMHOST_API_KEY"]
    assert demo.server.ssh("cat /etc/machine-id").stdout == born


def test_verify_fails_on_a_server_that_drifted_and_its_page_tells_why(
    demo: Demo, tmp_path: Path
) -> None:
    page = tmp_path / "verify.html"
    demo.server.ssh("systemctl stop nginx")
    try:
        options = ["--html", str(page), "--", "-k", "gateway or connection"]
        assert demo.run("llmhost", "verify", "inventory/demo.py", *options).returncode == 1
    finally:
        demo.server.ssh("systemctl start nginx")
    text = page.read_text()
    for told in (
        "gateway.nginx-runs-and-starts-at-boot",
        "inactive, enabled",
        "nginx is not running",
    ):
        assert told in text
    assert demo.env["LLMHOST_API_KEY"] not in text


def last_run(demo: Demo) -> dict[str, Any]:
    said = demo.run("llmhost", "history", "inventory/demo.py", "llm-demo", "--json")
    assert said.returncode == 0, said.stderr
    run: dict[str, Any] = json.loads(said.stdout)["runs"][-1]
    return run


def test_each_item_of_the_benchmarks_passes_or_is_accepted_and_one_can_fail(demo: Demo) -> None:
    hardening = ("verify", "inventory/demo.py", "--hardening")
    ran = demo.run("llmhost", *hardening)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    *lines, counts = ran.stdout.splitlines()
    for line, item in zip(lines, items(), strict=True):
        outcome, _, text = line.partition("  ")
        title = f"{item.id}: {item.title}"
        assert text.startswith(title)
        assert outcome == "passed" or (outcome == "accepted" and text != title)
    assert counts.startswith("llm-demo: ") and counts.endswith(", 0 failed")
    demo.server.ssh("chmod 0777 /etc/docker")
    try:
        ran = demo.run("llmhost", *hardening, "--json")
    finally:
        demo.server.ssh("chmod 0755 /etc/docker")
    assert ran.returncode == 1, ran.stderr
    (host,) = json.loads(ran.stdout)["hosts"]
    failed = [each["id"] for each in host["items"] if each["outcome"] == "failed"]
    assert failed == ["docker-bench 3.6"]


def test_history_tells_what_the_last_run_did(demo: Demo) -> None:
    demo.server.ssh("rm /etc/apt/apt.conf.d/zz-llmhost")
    assert demo.deploy("-y").returncode == 0
    run = last_run(demo)
    assert run["result"] == "done" and "@" in run["by"]
    assert run["changed"] == ["System | Configure apt and its automatic updates"]
    assert demo.deploy("-y").returncode == 0
    assert last_run(demo) == run, "a run without changes leaves no trace"


@pytest.fixture
def deploying(demo: Demo, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A deploy that keeps the server locked: something of the site's own hangs."""
    own = tmp_path / "own.py"
    own.write_text('from pyinfra.operations import server\nserver.shell(["sleep 120"])\n')
    program = str(Path(sys.executable).with_name("pyinfra"))
    with running(
        [program, "inventory/demo.py", "deploy.py", str(own), "-y"],
        cwd=ROOT,
        env=os.environ | demo.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        demo.server.ssh(
            "timeout 60 sh -c 'while flock -n /run/llmhost/deploy.lock true; do sleep 0.1; done'"
        )
        yield process


def test_second_operator_is_refused_until_the_first_is_gone(
    demo: Demo, deploying: "subprocess.Popen[str]"
) -> None:
    second = demo.deploy("-y")
    assert second.returncode != 0
    assert f"(process {deploying.pid}) has been deploying to this host since" in second.stderr
    assert demo.run("llmhost", "plan", "inventory/demo.py").returncode == 0, "plan needs no lock"
    deploying.kill()
    deploying.wait()
    assert demo.deploy("-y").returncode == 0


def test_host_that_a_hanging_run_has_locked_can_be_unlocked(
    demo: Demo, deploying: "subprocess.Popen[str]"
) -> None:
    unlock = demo.run("llmhost", "unlock", "inventory/demo.py", "llm-demo")
    assert f"(process {deploying.pid})" in unlock.stdout, unlock.stderr
    assert demo.deploy("-y").returncode == 0
    again = demo.run("llmhost", "unlock", "inventory/demo.py", "llm-demo")
    assert (again.returncode, again.stdout) == (0, "llm-demo: not locked\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["inventory/nowhere.py"], "inventory file inventory/nowhere.py not found"),
        (["inventory/demo.py", "--limit", "nobody"], "no host or group matches nobody"),
    ],
)
def test_plan_of_nothing_is_an_error(demo: Demo, arguments: list[str], sentence: str) -> None:
    result = demo.run("llmhost", "plan", *arguments)
    assert result.returncode == 1
    assert sentence in result.stderr


def test_mistaken_inventory_changes_nothing(demo: Demo, tmp_path: Path) -> None:
    config = demo.home / "ssh_config"
    site = tmp_path / "site.py"
    site.write_text(
        f"hosts = [('llm-demo', {{'ssh_config_file': '{config}', 'docker_data_rot': '/x',"
        " 'gateway_port': 22}})]\n".replace("}}", "}")
    )
    before = demo.server.ssh("cat /var/lib/llmhost/receipt.json").stdout
    for result in (
        demo.run("pyinfra", str(site), "deploy.py", "-y"),
        demo.run("llmhost", "plan", str(site)),
    ):
        assert result.returncode == 1
        assert (
            "llm-demo: docker_data_rot: unknown key; did you mean docker_data_root?"
            in result.stderr
        )
        assert "firewall_ssh_port and gateway_port are both 22" in result.stderr
    assert demo.server.ssh("cat /var/lib/llmhost/receipt.json").stdout == before


@pytest.mark.parametrize("demo", [pytest.param("vm", marks=pytest.mark.vm)], indirect=True)
def test_kernel_keeps_the_limits_that_follow_the_host(demo: Demo) -> None:
    """Only a virtual machine has all controllers of the kernel."""
    memory = int(demo.server.ssh("sed -n 's/^MemTotal: *//p' /proc/meminfo").stdout.split()[0])
    container = demo.server.ssh("docker inspect -f '{{.Id}}' llmhost-llamacpp-1").stdout.strip()
    group = f"/sys/fs/cgroup/system.slice/docker-{container}.scope"
    files = " ".join(f"{group}/{name}" for name in ("memory.max", "pids.max", "cpu.weight"))
    limit, processes, weight = map(int, demo.server.ssh(f"cat {files}").stdout.split())
    assert memory * 1024 * 3 / 5 < limit < memory * 1024
    assert processes == 512
    assert weight < int(demo.server.ssh("cat /sys/fs/cgroup/system.slice/cpu.weight").stdout)


@pytest.mark.parametrize("demo", [pytest.param("vm", marks=pytest.mark.vm)], indirect=True)
@pytest.mark.parametrize(
    ("wrong", "right", "side"),
    [("+1 day", "-1 day", "ahead of"), ("-1 day", "+1 day", "behind")],
)
def test_wrong_clock_stops_a_run_before_it_begins(
    demo: Demo, wrong: str, right: str, side: str
) -> None:
    """Only a virtual machine has a clock of its own."""
    receipt = demo.server.ssh("cat /var/lib/llmhost/receipt.json").stdout
    demo.server.ssh(f"date -s '{wrong}'")
    try:
        stopped = demo.deploy("-y")
    finally:
        demo.server.ssh(f"date -s '{right}'; touch /var/lib/systemd/timesync/clock")
    assert stopped.returncode != 0 and "Traceback" not in stopped.stderr
    said = f"s {side} the controller's; set it with: timedatectl set-ntp true"
    assert said in stopped.stderr, stopped.stderr
    assert demo.server.ssh("cat /var/lib/llmhost/receipt.json").stdout == receipt
    assert_nothing_changed(demo.deploy("-y", "--json"))
