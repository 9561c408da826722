"""Dockerfiles as they are sent to the builder, under hadolint."""

import subprocess
import sys
from pathlib import Path

import pytest

from llmhost.docker.image import ServiceImage
from llmhost.inventory.profiles import PROFILES
from llmhost.inventory.reader import read_settings
from llmhost.services import catalogue
from llmhost.stack.project import service_images
from tests.unit.profile_sites import locked_profile

ROOT = Path(__file__).parents[2]


def lint(*files: Path) -> "subprocess.CompletedProcess[str]":
    hadolint = str(Path(sys.executable).with_name("hadolint"))
    command = [hadolint, "--no-color", "--config", str(ROOT / ".hadolint.yaml"), *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def dockerfile(image: ServiceImage, directory: Path) -> Path:
    (text,) = [file.data for file in image.build_files if file.path == "Dockerfile"]
    path = directory / f"{image.service}.Dockerfile"
    path.write_bytes(text)
    return path


@pytest.mark.parametrize("profile", PROFILES)
def test_dockerfiles_of_a_profile_are_clean(profile: str, tmp_path: Path) -> None:
    settings = read_settings(locked_profile(profile, tmp_path))
    files = [dockerfile(image, tmp_path) for image in service_images(settings)]
    assert [file.stem for file in files] == [*settings.services]
    linted = lint(*files)
    assert (linted.returncode, linted.stdout) == (0, ""), linted.stdout + linted.stderr


def test_every_service_with_a_dockerfile_is_in_a_profile_or_linted_here(tmp_path: Path) -> None:
    of_profiles = {service for each in PROFILES.values() for service in each.services}
    begun = "FROM example.com/base:1 AS base\nFROM example.com/engine:1 AS engine\n"
    files = []
    for name in {*catalogue()} - of_profiles:
        text = (ROOT / "files/images" / name / "Dockerfile").read_text()
        files.append(tmp_path / f"{name}.Dockerfile")
        files[-1].write_text(begun + text)
    linted = lint(*files)
    assert files and linted.returncode == 0, linted.stdout + linted.stderr


def test_linter_finds_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text("FROM debian\nRUN cd /tmp; sudo apt-get install curl\n")
    linted = lint(path)
    assert linted.returncode != 0 and "DL3006" in linted.stdout and "DL3004" in linted.stdout
