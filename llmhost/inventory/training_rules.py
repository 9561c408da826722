"""Rules for training jobs."""

from collections.abc import Iterator

from llmhost.inventory.problem import Problem
from llmhost.models.lineage import declared
from llmhost.models.policy import underivable, violations
from llmhost.options.training import TrainingJob
from llmhost.settings import Settings

_KEY = "training_jobs"


def training_problems(settings: Settings) -> Iterator[Problem]:
    """Jobs for models that are not there or cannot be trained, and services that are not there."""
    for job in settings.training_jobs:
        yield from _model_problems(settings, job)
        for service in job.stop_services:
            if service not in settings.services:
                what = f"'{job.name}' stops the service '{service}', which is not declared"
                yield Problem(_KEY, what, f"write one of {', '.join(settings.services) or 'none'}")


def _model_problems(settings: Settings, job: TrainingJob) -> Iterator[Problem]:
    roles = [model.name for model in settings.models if model.task == "generate"]
    if job.model not in roles:
        what = f"'{job.name}' is for the model '{job.model}', which is no model that generates text"
        yield Problem(_KEY, what, f"write one of {', '.join(roles) or 'none'}")
    elif job.base is None:
        what = f"'{job.name}': '{job.model}' is a GGUF file, which cannot be trained"
        fix = "add base: the repository with safetensors that it was made from"
        yield Problem(_KEY, what, fix)
    else:
        lineage = declared(job.base, job.base_models, job.licence)
        refused = [*violations(settings.policy, lineage)]
        for sentence in (*refused, *filter(None, [underivable(lineage)])):
            fix = "use another base, or change the policy" if refused else "use another base"
            yield Problem(_KEY, f"'{job.name}': its base {sentence}", fix)
