"""The catalog: every module of this package that declares `SERVICE`."""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from llmhost.services.base import AnyService


@cache
def catalogue() -> dict[str, AnyService]:
    """Every known service by name."""
    names = sorted(module.name for module in iter_modules(__path__))
    modules = [import_module(f"{__name__}.{name}") for name in names]
    services = [module.SERVICE for module in modules if hasattr(module, "SERVICE")]
    return {service.name: service for service in services}
