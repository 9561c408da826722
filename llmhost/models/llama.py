"""Options of llama.cpp's server for a model; two services use it. Pure."""

from llmhost.options.model import Model

# llama-server --help, build 11669; types of the cache differ from those of weights.
GGML_CACHE_TYPES = ("f16", "bf16", "f32", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")

LLAMA_FLAGS = {
    "temperature": "temp",
    "top_k": "top-k",
    "top_p": "top-p",
    "min_p": "min-p",
    "repeat_penalty": "repeat-penalty",
    "presence_penalty": "presence-penalty",
    "frequency_penalty": "frequency-penalty",
    "seed": "seed",
    "max_tokens": "predict",
}
"""Options of llama-server, without their dashes, by model parameter."""


def llama_options(model: Model, holder: Model | None = None) -> dict[str, str]:
    """Options of llama-server for one model; the value `true` means an option without a value.
    `holder` is the model at whose path the weights are, if it is another one."""
    # Slots share the context. Unless it is set, llama.cpp shrinks it silently to fit in memory.
    context = model.context_tokens * model.parallel
    weights = (holder or model).weights
    options = {"model": weights, "ctx-size": str(context), "parallel": str(model.parallel)}
    if model.cache_type != "f16":
        options |= {"cache-type-k": model.cache_type, "cache-type-v": model.cache_type}
    if model.adapter:
        options["lora"] = model.adapter_path
    if model.projector:
        options["mmproj"] = model.beside_path("projector")
    if model.draft:
        options["model-draft"] = model.beside_path("draft")
        # Without it the draft model is loaded and never used.
        options["spec-type"] = "draft-simple"
    if model.task != "generate":
        # A text must fit into one batch.
        size = str(model.context_tokens)
        task = "embedding" if model.task == "embed" else "reranking"
        options |= {task: "true", "batch-size": size, "ubatch-size": size}
    given = model.parameters.given
    return options | {LLAMA_FLAGS[name]: str(value) for name, value in given.items()}


def llama_arguments(model: Model) -> list[str]:
    """The same options as arguments."""
    return [
        part
        for option, value in llama_options(model).items()
        for part in ((f"--{option}",) if value == "true" else (f"--{option}", value))
    ]
