"""An image's name says what is in it."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmhost.docker.image import (
    ImageState,
    ModelImage,
    ServiceImage,
    WeightsFile,
    build_script,
    download_script,
    import_script,
    missing,
    prepare_script,
)
from llmhost.resources import FILES
from llmhost.system.files import File, archive

WEIGHTS = WeightsFile("ab" * 32, "weights/tiny.gguf", False, "/models/tiny.gguf")
TINY = ModelImage("tiny", (WEIGHTS,))
REMOTE = WeightsFile("cd" * 32, "https://hub.example/o.gguf", True, "/models/other.gguf")
OTHER = ModelImage("other", (REMOTE,))
PARTS = ModelImage("parts", (replace(WEIGHTS, path="/models/parts/a"), REMOTE))
DOCKERFILE = File("Dockerfile", "FROM weights\nCOPY --link --from=engine / /\n")
IMAGE = ServiceImage("llamacpp", "registry/engine:1@sha256:" + "0" * 64, (TINY,), (DOCKERFILE,))


def _states(*images: ModelImage | ServiceImage) -> dict[str, ImageState]:
    return {image.reference: ImageState("sha256:1", image.inputs) for image in images}


def test_image_of_several_files_is_named_by_all_of_them() -> None:
    assert PARTS.reference == f"llmhost/model-parts:{PARTS.inputs[:12]}"
    other = replace(PARTS, files=(PARTS.files[0], replace(REMOTE, sha256="ef" * 32)))
    assert other.reference != PARTS.reference


def test_references_are_made_of_what_goes_in() -> None:
    assert TINY.reference == "llmhost/model-tiny:abababababab"
    assert IMAGE.reference == f"llmhost/llamacpp:{IMAGE.inputs[:16]}"


def _tiny(**changes: Any) -> ModelImage:
    return replace(TINY, files=(replace(WEIGHTS, **changes),))


CHANGES = {
    "engine": replace(IMAGE, engine=IMAGE.engine.replace("0", "1")),
    "weights": replace(IMAGE, models=(_tiny(sha256="ef" * 32),)),
    "place of the weights": replace(IMAGE, models=(_tiny(path="/models/tiny.bin"),)),
    "another model": replace(IMAGE, models=(TINY, OTHER)),
    "Dockerfile": replace(IMAGE, context=(replace(DOCKERFILE, content="FROM weights\n"),)),
    "further file": replace(IMAGE, context=(DOCKERFILE, File("entrypoint", "#!/bin/sh\n"))),
    "mode of a file": replace(IMAGE, context=(replace(DOCKERFILE, mode="0755"),)),
}


@pytest.mark.parametrize("changed", CHANGES)
def test_every_input_changes_the_tag(changed: str) -> None:
    assert CHANGES[changed].reference != IMAGE.reference


def test_where_weights_come_from_does_not_change_the_tag() -> None:
    moved = _tiny(source="https://mirror.example/tiny.gguf", remote=True)
    assert replace(IMAGE, models=(moved,)).reference == IMAGE.reference


def test_weights_are_the_lowest_stage_and_the_engine_comes_on_top() -> None:
    pair = replace(IMAGE, models=(TINY, OTHER))
    (dockerfile,) = pair.build_files
    assert dockerfile.data.decode().splitlines() == [
        f"FROM {IMAGE.engine} AS engine",
        f"FROM {TINY.reference} AS weights",
        f"COPY --link --from={OTHER.reference} / /",
        "FROM weights",
        "COPY --link --from=engine / /",
    ]


def test_service_without_models_begins_empty() -> None:
    (dockerfile,) = replace(IMAGE, models=()).build_files
    assert "FROM scratch AS weights\n" in dockerfile.data.decode()


def test_nothing_is_missing_where_everything_is() -> None:
    assert missing([IMAGE], _states(IMAGE)) == {}


def test_missing_image_is_told() -> None:
    assert missing([TINY], {}) == {TINY: "image llmhost/model-tiny:abababababab is missing"}


def test_tag_on_another_image_counts_as_missing() -> None:
    moved = {IMAGE.reference: ImageState("sha256:2", TINY.inputs)}
    assert missing([IMAGE], moved) == {IMAGE: f"{IMAGE.reference} is a tag of another image"}


@pytest.mark.parametrize(
    "script",
    [
        prepare_script("/opt/llmhost/uploads"),
        download_script("other", REMOTE, "/opt/llmhost/uploads"),
        download_script("other", replace(REMOTE, token="env:TOKEN"), "/opt/llmhost/uploads"),
        import_script(TINY, "/opt/llmhost/uploads"),
        import_script(PARTS, "/opt/llmhost/uploads"),
        build_script(IMAGE),
    ],
)
def test_scripts_are_posix_shell(script: str) -> None:
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)


DOCKER = """\
#!/bin/sh
if [ "$1" = image ]; then
  [ "$3" = --format ] || exit  # it is there, and need not be pulled
  case $4 in
    *Env*) cat "$CONFIG/Env" ;;
    *WorkingDir*) cat "$CONFIG/WorkingDir" ;;
    *Entrypoint*) cat "$CONFIG/Entrypoint" ;;
  esac
else
  for context; do :; done
  cp -r "$context" "$CONFIG/context"
  echo "$@" >"$CONFIG/arguments"
fi
"""
"""A docker that shows an image as Docker's own templates would, and keeps what it is to build."""


def built(image: ServiceImage, directory: Path, **engine: str) -> str:
    """The Dockerfile that the builder gets for an engine with these settings."""
    program = directory / "docker"
    program.write_text(DOCKER)
    program.chmod(0o755)
    for setting in ("Env", "WorkingDir", "Entrypoint"):
        (directory / setting).write_text(engine.get(setting, ""))
    path = f"{directory}:{os.environ['PATH']}"
    contents = archive({file.path: file for file in image.build_files})
    # The script that looks at the disk needs a real Docker.
    script = build_script(image).partition("\n")[2].rpartition("sh -c")[2]
    subprocess.run(
        ["sh", "-ec", f"sh -c{script}"],
        input=contents,
        text=True,
        check=True,
        env={"PATH": path, "CONFIG": str(directory)},
    )
    assert image.reference in (directory / "arguments").read_text()
    return (directory / "context/Dockerfile").read_text()


def test_engine_s_own_settings_are_in_its_derived_image(tmp_path: Path) -> None:
    dockerfile = File("Dockerfile", (FILES / "images/vllm/Dockerfile").read_text())
    lines = built(
        replace(IMAGE, context=(dockerfile,)),
        tmp_path,
        Env='PATH=/opt/venv/bin:/bin\nNVIDIA_VISIBLE_DEVICES=all\nA=x=1 "2" $3 \\4\n',
        WorkingDir="WORKDIR /srv/engine",
        Entrypoint='ENTRYPOINT ["/opt/start", "vllm", "serve"]',
    ).splitlines()
    last = lines.index("# engine: ENV WORKDIR ENTRYPOINT")
    assert lines.index('ENTRYPOINT ["vllm", "serve"]') < last
    assert lines[last + 1 :] == [
        'ENV PATH="/opt/venv/bin:/bin"',
        r'ENV A="x=1 \"2\" \$3 \\4"',
        "WORKDIR /srv/engine",
        'ENTRYPOINT ["/opt/start", "vllm", "serve"]',
    ]


def test_image_without_settings_has_those_of_the_dockerfile(tmp_path: Path) -> None:
    dockerfile = File("Dockerfile", (FILES / "images/vllm/Dockerfile").read_text())
    text = built(replace(IMAGE, context=(dockerfile,)), tmp_path)
    assert text.endswith("# engine: ENV WORKDIR ENTRYPOINT\n")
    assert 'ENTRYPOINT ["vllm", "serve"]' in text


@pytest.mark.parametrize("service", ["embeddings", "llamacpp", "ollama", "vllm"])
def test_every_engine_on_top_of_weights_keeps_its_settings(service: str) -> None:
    lines = (FILES / "images" / service / "Dockerfile").read_text().splitlines()
    (marker,) = [line for line in lines if line.startswith("# engine: ")]
    wanted = {"ENV", "WORKDIR"} | ({"ENTRYPOINT"} if service != "ollama" else set())
    assert {*marker.split()[2:]} == wanted
