"""The catalogue: every module of this package that declares `SERVICE`."""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from llmhost.services.base import Service


@cache
def catalogue() -> dict[str, Service]:
    """Every known service by name."""
    names = sorted(module.name for module in iter_modules(__path__) if module.name != "base")
    services = [import_module(f"{__name__}.{name}").SERVICE for name in names]
    return {service.name: service for service in services}
