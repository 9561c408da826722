"""Mistakes in `SERVICE_environment`, which must not change what llmhost itself sets."""

import re
from collections.abc import Iterator

from llmhost.inventory.problem import Problem
from llmhost.resources import TEMPLATES
from llmhost.services.app import App
from llmhost.services.base import AnyService
from llmhost.settings import Settings

_IN_TEMPLATE = re.compile(r"^ {6}([A-Z]\w*):", re.MULTILINE | re.ASCII)

_SECRET = re.compile(
    r"(^|_)(API_?KEYS?|ACCESS_KEY|PRIVATE_KEY|SECRET_KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIALS?)$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(r"(sk-|hf_|gh[opsu]_|glpat-|xox[abp]-).{8,}")

_OF_LLMHOST = {
    "PATH": "programs are found by the PATH of the image",
    "LD_PRELOAD": "libraries are those of the image",
    "NVIDIA_VISIBLE_DEVICES": "the GPUs are those of SERVICE_gpu or SERVICE_gpu_count",
    "CUDA_VISIBLE_DEVICES": "the GPUs are those of SERVICE_gpu or SERVICE_gpu_count",
}
"""Variables that no service may be given, each with the reason."""


def environment_problems(settings: Settings) -> Iterator[Problem]:
    """Variables of services of the catalog that are reserved, or whose names are those of secrets;
    apps have `secrets`."""
    for service in settings.catalogue:
        options = settings.options(service.name)
        if isinstance(options, App) or not options.environment:
            continue
        key = f"{service.name}_environment"
        taken = reserved(service)
        for variable, value in options.environment.items():
            if variable in _OF_LLMHOST or variable.startswith("LLMHOST_"):
                why = _OF_LLMHOST.get(variable, "llmhost reserves names that begin like this")
                why = why.replace("SERVICE", service.name)
                yield Problem(key, f"sets {variable}, and {why}", f"remove {variable}")
            elif variable in taken:
                what = f"sets {variable}, which llmhost sets itself"
                fix = f"remove it; llmhost docs options lists the options of {service.name}"
                yield Problem(key, what, fix)
            elif _SECRET.search(variable) or _SECRET_VALUE.match(value):
                what = f"sets {variable}, which looks like a secret, and would be in plain text"
                yield Problem(key, what, "remove it; only apps can be given secrets")


def reserved(service: AnyService) -> frozenset[str]:
    """Variables that llmhost sets for a service, with any of its options."""
    template = (TEMPLATES / f"services/{service.name}.yaml.j2").read_text(encoding="utf-8")
    named = _IN_TEMPLATE.findall(template)
    return frozenset([*named, *service.own_variables, *service.options.secret_options])
