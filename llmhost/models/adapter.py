"""Whether a LoRA adapter fits a model. An engine may load a wrong one and generate nonsense."""

from collections.abc import Iterable, Iterator

from llmhost.models.gguf import Gguf, Tensor
from llmhost.models.lineage import OWN, compact, of_metadata

_A, _B = ".lora_a", ".lora_b"


def mismatches(adapter: Gguf, model: Gguf | None, other_names: Iterable[str] = ()) -> Iterator[str]:
    """Why they do not fit; each text continues a sentence that begins with "its adapter".

    `other_names` are names of the model in addition to those in its file. Without the model's file
    only the adapter is checked.
    """
    if adapter.text("general.type") != "adapter":
        yield "is a whole model, not an adapter"
        return
    if model is None:
        return
    if adapter.architecture != model.architecture:
        yield (
            f"is for the architecture '{adapter.architecture}',"
            f" and the model has '{model.architecture}'"
        )
        return
    yield from _other_base(adapter, model, other_names)
    tensors = {tensor.name: tensor for tensor in adapter.tensors}
    weights = {tensor.name: tensor for tensor in model.tensors}
    wrong = [name for name in _adapted(tensors) if not _fits(name, tensors, weights)]
    if wrong:
        yield f"changes {len(wrong)} tensors that the model lacks, or has with other sizes"


def _other_base(adapter: Gguf, model: Gguf, other_names: Iterable[str]) -> Iterator[str]:
    bases = [each for each in of_metadata(adapter.metadata).ancestors if each.found_in != OWN]
    own = [each.name for each in of_metadata(model.metadata).ancestors if each.found_in == OWN]
    names = {compact(name.rpartition("/")[2]) for name in (*own, *other_names)}
    if bases and own and not any(compact(base.name) in names for base in bases):
        yield (
            f"was made for '{bases[0].name}'; if that is this model, add the name to its"
            " base_models"
        )


def _adapted(tensors: dict[str, Tensor]) -> list[str]:
    return sorted({name.removesuffix(_A).removesuffix(_B) for name in tensors})


def _fits(name: str, tensors: dict[str, Tensor], weights: dict[str, Tensor]) -> bool:
    """The rule of llama.cpp (src/llama-adapter.cpp): inputs of A and outputs of B are those of the
    tensor; for the table of the input layer it is reversed."""
    weight, a, b = weights.get(name), tensors.get(name + _A), tensors.get(name + _B)
    if weight is None or a is None or b is None:
        return False
    if any(len(tensor.shape) < 2 for tensor in (weight, a, b)):
        return False
    if name == "token_embd.weight":
        return weight.shape[:2] == (b.shape[1], a.shape[1])
    return weight.shape[:2] == (a.shape[0], b.shape[1])
