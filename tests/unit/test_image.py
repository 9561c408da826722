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
    missing,
    missing_stages,
    models_to_build,
    redundant,
)
from llmhost.docker.image_scripts import (
    build_script,
    download_script,
    import_script,
    prepare_script,
    stage_script,
)
from llmhost.docker.stages import (
    StageImage,
    engine_tag,
    free_script,
    recover_script,
    recovered_tag,
)
from llmhost.facts.images import ModelHolders
from llmhost.resources import FILES, script
from llmhost.system.files import File, archive

WEIGHTS = WeightsFile("ab" * 32, "weights/tiny.gguf", False, "/models/tiny.gguf")
TINY = ModelImage("tiny", (WEIGHTS,))
REMOTE = WeightsFile("cd" * 32, "https://hub.example/o.gguf", True, "/models/other.gguf")
OTHER = ModelImage("other", (REMOTE,))
PARTS = ModelImage("parts", (replace(WEIGHTS, path="/models/parts/a"), REMOTE))
DOCKERFILE = File("Dockerfile", "FROM base\n")
IMAGE = ServiceImage("llamacpp", "registry/engine:1@sha256:" + "0" * 64, (TINY,), (DOCKERFILE,))


def _states(*images: ModelImage | StageImage | ServiceImage) -> dict[str, ImageState]:
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
    "Dockerfile": replace(IMAGE, context=(replace(DOCKERFILE, content="FROM base\nUSER 1\n"),)),
    "further file": replace(IMAGE, context=(DOCKERFILE, File("entrypoint", "#!/bin/sh\n"))),
    "mode of a file": replace(IMAGE, context=(replace(DOCKERFILE, mode="0755"),)),
}


@pytest.mark.parametrize("changed", CHANGES)
def test_every_input_changes_the_tag(changed: str) -> None:
    assert CHANGES[changed].reference != IMAGE.reference


def test_where_weights_come_from_does_not_change_the_tag() -> None:
    moved = _tiny(source="https://mirror.example/tiny.gguf", remote=True)
    assert replace(IMAGE, models=(moved,)).reference == IMAGE.reference


PAIR = replace(IMAGE, models=(TINY, OTHER))
DOCLING = replace(PAIR, service="docling", context=(File("Dockerfile", "FROM engine\n"),))


def test_weights_are_the_lowest_stage_and_the_engine_comes_on_top() -> None:
    weights, base = PAIR.stages
    assert weights.dockerfile.splitlines() == [
        f"FROM {TINY.reference}",
        f"COPY --from={OTHER.reference} / /",
    ]
    assert base.dockerfile.splitlines() == [
        f"FROM {IMAGE.engine} AS engine",
        f"FROM {weights.reference}",
        "COPY --from=engine / /",
        "# engine: ENV WORKDIR ENTRYPOINT",
    ]
    (dockerfile,) = PAIR.build_files
    assert dockerfile.data.decode().splitlines() == [f"FROM {base.reference} AS base", "FROM base"]


def test_service_without_models_begins_empty() -> None:
    (base,) = replace(IMAGE, models=()).stages
    assert "FROM scratch\n" in base.dockerfile


def test_engine_below_the_weights_has_no_intermediate_image() -> None:
    (dockerfile,) = DOCLING.build_files
    assert DOCLING.stages == ()
    assert dockerfile.data.decode().splitlines() == [
        f"FROM {IMAGE.engine} AS engine",
        f"FROM {TINY.reference} AS weights",
        f"COPY --link --from={OTHER.reference} / /",
        "FROM engine",
    ]


def test_another_engine_needs_no_models_and_other_weights_need_all() -> None:
    """What has to be built, and from which models, where an earlier build is on the host."""
    weights, base = PAIR.stages
    there = _states(PAIR, *PAIR.stages)
    assert missing_stages(PAIR, there) == [] and models_to_build(PAIR, there) == ()
    updated = replace(PAIR, engine=IMAGE.engine.replace("0", "1"))
    assert missing_stages(updated, there) == [updated.stages[1]]
    assert models_to_build(updated, there) == () and updated.stages[0] == weights
    retrained = replace(PAIR, models=(TINY, replace(OTHER, files=(replace(REMOTE, sha256="1"),))))
    assert missing_stages(retrained, there) == [*retrained.stages]
    assert models_to_build(retrained, there) == retrained.models
    assert models_to_build(IMAGE, {}) == IMAGE.models
    assert models_to_build(DOCLING, _states(DOCLING)) == DOCLING.models
    assert base.engine == IMAGE.engine


def test_only_what_is_on_the_disk_as_other_layers_is_redundant() -> None:
    tags = [engine_tag("llamacpp", IMAGE.engine), recovered_tag("llamacpp")]
    # The first model and an engine that an image begins with have the same layers there.
    assert redundant([PAIR]) == sorted([OTHER.reference, IMAGE.engine, *tags])
    assert redundant([IMAGE]) == sorted([IMAGE.engine, *tags])
    assert redundant([DOCLING]) == sorted([TINY.reference, OTHER.reference])
    assert redundant([PAIR, DOCLING]) == [OTHER.reference]
    own = replace(DOCLING, service="own", engine="")
    assert redundant([own]) == sorted([TINY.reference, OTHER.reference])


def test_model_is_taken_from_an_image_of_llmhost_that_has_it() -> None:
    output = ["box:1 llmhost/base-x:1 |ab cd", "llmhost/notes:2 |ef", "llmhost/empty:1 |"]
    held = {"ab": "llmhost/base-x:1", "cd": "llmhost/base-x:1", "ef": "llmhost/notes:2"}
    assert ModelHolders().process(output) == held


def test_cache_of_a_build_that_runs_programs_is_kept() -> None:
    run = File("Dockerfile", "FROM engine\nRUN pip install something\n")
    assert replace(DOCLING, context=(run,)).runs_programs
    assert not IMAGE.runs_programs and not DOCLING.runs_programs
    assert "--all" not in free_script([], whole_cache=False)


def test_place_of_weights_counts_in_the_intermediate_images() -> None:
    moved = replace(IMAGE, models=(_tiny(path="/models/tiny.bin"),))
    assert moved.stages[0].reference != IMAGE.stages[0].reference


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
        stage_script(IMAGE, IMAGE.stages[0]),
        recover_script(PARTS.reference, PARTS.inputs, PARTS.paths, "llmhost/base-llamacpp:1"),
        free_script(redundant([IMAGE]), whole_cache=True),
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


PULLING = """\
#!/bin/sh
case "$*" in
  "image inspect --format . "*) exit 1 ;;
  "image ls "*) cat "$STATE/holder" ;;
  "image inspect "*) echo '["/models/other.gguf", "/models/parts"]' ;;
  "buildx build "*) cat >"$STATE/Dockerfile"; exit "$(cat "$STATE/build")" ;;
  *) echo "$1" >>"$STATE/called" ;;
esac
"""
"""A docker without the engine's image; with `holder`, another image has the engine."""


@pytest.mark.parametrize(
    ("holder", "build", "called"),
    [
        ("llmhost/base-llamacpp:1\n", 0, ""),
        ("llmhost/base-llamacpp:1\n", 1, "pull\ntag\n"),  # it has no rm
        ("", 0, "pull\ntag\n"),
    ],
)
def test_missing_engine_is_taken_from_an_image_that_has_it_or_pulled(
    tmp_path: Path, holder: str, build: int, called: str
) -> None:
    (tmp_path / "docker").write_text(PULLING)
    (tmp_path / "docker").chmod(0o755)
    (tmp_path / "holder").write_text(holder)
    (tmp_path / "build").write_text(str(build))
    (tmp_path / "called").touch()
    tags = engine_tag("llamacpp", IMAGE.engine), recovered_tag("llamacpp")
    pull = script("docker/pull.sh", IMAGE.engine, "llamacpp", *tags)
    path = f"{tmp_path}:{os.environ['PATH']}"
    environment = {"PATH": path, "STATE": str(tmp_path)}
    subprocess.run(["sh", "-c", pull], env=environment, check=True, timeout=10)
    assert (tmp_path / "called").read_text() == called
    if holder:
        assert (tmp_path / "Dockerfile").read_text().splitlines() == [
            f"FROM {holder.strip()}",
            'RUN --network=none ["rm", "-rf", "/models/other.gguf", "/models/parts"]',
        ]


def test_images_say_what_a_later_build_can_take_from_them() -> None:
    weights, base = PAIR.stages
    labels = dict(base.labels)
    assert labels["llmhost.engine"] == IMAGE.engine
    assert labels["llmhost.weights"] == weights.reference
    assert labels["llmhost.places"] == '["/models/other.gguf", "/models/tiny.gguf"]'
    assert labels["llmhost.models"] == f"{TINY.inputs} {OTHER.inputs}"
    parts = replace(IMAGE, models=(PARTS,))
    # A directory's model is removed with its directory.
    assert '"/models/parts"' in dict(parts.stages[0].labels)["llmhost.places"]
