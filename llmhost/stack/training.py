"""Images of training jobs: PEFT and TRL on top of PyTorch, with the weights of the base.

They are built and bundled like those of services, so that a training needs no network.
"""

from llmhost.docker.build_context import context_files
from llmhost.docker.image import ServiceImage
from llmhost.options.training import TrainingJob
from llmhost.resources import FILES
from llmhost.settings import Settings
from llmhost.stack.project import service_images, weights_images
from llmhost.system.pip import pip_configuration


def training_images(settings: Settings) -> tuple[ServiceImage, ...]:
    """The image of each training job."""
    return tuple(training_image(settings, job) for job in settings.training_jobs)


def training_image(settings: Settings, job: TrainingJob) -> ServiceImage:
    """The image of a job. It has the base, and no data of the job."""
    index = settings.training.package_index
    return ServiceImage(
        service=job.service,
        engine=settings.training.image,
        models=weights_images([job.base_model], settings),
        context=(*context_files(FILES / "images" / "training"), pip_configuration(index)),
    )


def all_images(settings: Settings) -> tuple[ServiceImage, ...]:
    """Images of services and of training jobs."""
    return (*service_images(settings), *training_images(settings))
