"""`models[].derive`: how a model is made from its source, and the accuracy that it must keep."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import model_validator

from llmhost.options.base import Section
from llmhost.options.kind import Listed, Mistake
from llmhost.options.types import Flag, LocalName, OneOf, number

# tools/quantize/quantize.cpp of llama.cpp; `F16`, `BF16` and `F32` convert only.
Quantization = Literal[
    "F32",
    "F16",
    "BF16",
    "Q8_0",
    "Q6_K",
    "Q5_K_M",
    "Q5_K_S",
    "Q5_1",
    "Q5_0",
    "Q4_K_M",
    "Q4_K_S",
    "Q4_1",
    "Q4_0",
    "IQ4_NL",
    "IQ4_XS",
    "Q3_K_L",
    "Q3_K_M",
    "Q3_K_S",
    "IQ3_M",
    "IQ3_S",
    "IQ3_XS",
    "IQ3_XXS",
    "Q2_K",
    "Q2_K_S",
    "IQ2_M",
    "IQ2_S",
    "IQ2_XS",
    "IQ2_XXS",
]

_NEED_IMPORTANCE = ("Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ3_XS", "IQ3_XXS")
"""llama-quantize refuses these without an importance matrix: `tensor_requires_imatrix`, for the
types that `llama_tensor_get_type_impl` mixes (src/llama-quant.cpp)."""

MEASURES = ("perplexity", "agreement", "ndcg", "rerank")
"""Names of options in Evaluation; each is a way to measure a result."""

_FACTOR = 1.05


class Evaluation(Section):
    """One measure of a made model, and its limit. Without it, nothing is made."""

    EXAMPLE: ClassVar[Mapping[str, object]] = {"perplexity": "evaluation.txt", "at_most": 1.05}

    perplexity: LocalName | None = None
    """Text file on the controller. Measures the perplexity of the result on this text, divided by
    that of the source; for models that generate. Its limit is `at_most`."""

    agreement: LocalName | None = None
    """Text file on the controller with a text in each line. Measures the mean cosine similarity of
    the source's and the result's embeddings of these texts. For a model that reranks, each line has
    a question, a tab and a text; measures Spearman's rank correlation of the source's and the
    result's scores. Its limit is `at_least`."""

    ndcg: LocalName | None = None
    """Directory on the controller with a collection in BEIR's form: `corpus.jsonl`,
    `queries.jsonl` and `qrels/test.tsv`. Measures nDCG@10 of the result, divided by that of the
    source; for models that embed. Its limit is `at_least`."""

    rerank: LocalName | None = None
    """Directory on the controller with such a collection. The model orders 30 texts for each
    question: all that are relevant, and the best others by BM25. Measures nDCG@10 of the result,
    divided by that of the source; for models that rerank. Its limit is `at_least`."""

    at_most: Annotated[float, number(1, 10, example=_FACTOR)] | None = None
    """Largest accepted value of `perplexity`."""

    at_least: Annotated[float, number(0, 1, example=0.98, above=True)] | None = None
    """Smallest accepted value of `agreement`, `ndcg` or `rerank`."""

    @model_validator(mode="after")
    def _is_one_measure(self) -> "Evaluation":
        named = [name for name in MEASURES if getattr(self, name)]
        if len(named) != 1:
            raise Mistake(
                f"has {'several measures' if named else 'no measure'}; write one, such as"
                " {'perplexity': 'evaluation.txt', 'at_most': 1.05}"
            )
        limit, other = ("at_most", "at_least")[:: 1 if self.perplexity else -1]
        if getattr(self, other) is not None:
            raise Mistake(f"is not a limit of {named[0]}; write {limit}", other)
        if getattr(self, limit) is None:
            example = _FACTOR if self.perplexity else 0.98
            raise Mistake(f"has no limit of {named[0]}; add '{limit}': {example}")
        return self

    @property
    def measure(self) -> str:
        """Name of the option."""
        return next(name for name in MEASURES if getattr(self, name))

    @property
    def reference(self) -> str:
        """Text or collection on the controller."""
        return str(getattr(self, self.measure))

    def shortfall(self, value: float) -> str:
        """By how much a value misses the limit; empty if it does not."""
        if self.at_most is not None:
            if value <= self.at_most:
                return ""
            over = value - self.at_most
            return f"is {value:.4f}, and at most {self.at_most} is allowed: {over:.4f} too much"
        least = self.at_least or 0.0
        if value >= least:
            return ""
        return f"is {value:.4f}, and at least {least} is needed: {least - value:.4f} too little"


class Onnx(Section):
    """A model as ONNX, for apps."""

    precision: OneOf[Literal["fp32", "int8"]]
    """Precision of the weights. `fp32` is in `onnx/model.onnx` of the result, `int8` in
    `onnx/model_quantized.onnx`, as Transformers.js names them."""


class Compress(Section):
    """A model in fewer bits, for vLLM: safetensors in the format of compressed-tensors."""

    EXAMPLE: ClassVar[Mapping[str, object]] = {"scheme": "FP8_DYNAMIC"}

    scheme: OneOf[Literal["FP8_DYNAMIC", "W8A8", "W4A16", "AWQ"]]
    """Bits of weights (W) and activations (A), as vLLM names them. `FP8_DYNAMIC`: 8-bit floating
    point for both, half the memory with the least loss and no calibration; for GPUs since Ada and
    Hopper. `W8A8`: 8-bit integers for both, for GPUs since Turing and for CPUs. `W4A16`: 4-bit
    weights by GPTQ, a quarter of the memory, fastest for few requests at a time. `AWQ`: the same
    bits by AWQ, which keeps the channels that matter most and depends less on the calibration."""

    calibration: LocalName | None = None
    """Text file on the controller from which activations are calculated, of 8 KiB or more, better
    1 MiB of what the model is used for. All schemes except `FP8_DYNAMIC` need it."""

    @model_validator(mode="after")
    def _is_calibrated(self) -> "Compress":
        if self.scheme == "FP8_DYNAMIC" and self.calibration:
            raise Mistake("is not read for FP8_DYNAMIC; remove it", "calibration")
        if self.scheme != "FP8_DYNAMIC" and not self.calibration:
            raise Mistake(
                f"is {self.scheme}, which needs a text for calibration; add"
                " 'calibration': 'texts.txt', or write 'FP8_DYNAMIC'",
                "scheme",
            )
        return self


WAYS = ("quantize", "onnx", "compress")
"""Names of options in Derive; each is a way to make a model."""


class Derive(Section):
    """How `llmhost model make` makes a model from its source. One of `quantize`, `onnx` and
    `compress` is required."""

    quantize: OneOf[Quantization] | None = None
    """Quantization of a GGUF file, for llama.cpp and Ollama. The source is a GGUF file in F16, BF16
    or F32, or a repository with safetensors, which llama.cpp's converter converts first."""

    onnx: Onnx | None = None
    """The model as ONNX, for models of apps that embed or rerank, as a record such as
    `{"precision": "int8"}`. The source is a repository with safetensors."""

    compress: Compress | None = None
    """Quantization for vLLM by llm-compressor, for models that generate, as a record such as
    `{"scheme": "FP8_DYNAMIC"}`. The source is a repository with safetensors in BF16, F16 or
    F32."""

    evaluate: Annotated[tuple[Evaluation, ...], Listed(least=1)]
    """What the result must keep, as records of a measure and its limit. Nothing is recorded if a
    limit is not met."""

    importance: LocalName | None = None
    """Text file on the controller from which an importance matrix is calculated: it shows which
    weights matter most. Types of three bits and less need it."""

    from_quantized: Flag = False
    """Accept a source that is quantized already. It loses accuracy a second time."""

    @model_validator(mode="after")
    def _is_one_way(self) -> "Derive":
        named = [name for name in WAYS if getattr(self, name) is not None]
        if len(named) != 1:
            what = " and ".join(named) or "none of quantize, onnx and compress"
            raise Mistake(f"has {what}; write one, such as 'quantize': 'Q4_K_M'")
        if not self.quantize and (self.importance or self.from_quantized):
            option = "importance" if self.importance else "from_quantized"
            raise Mistake("is only for quantize; remove it", option)
        return self

    @model_validator(mode="after")
    def _has_importance(self) -> "Derive":
        if self.quantize in _NEED_IMPORTANCE and not self.importance:
            raise Mistake(
                f"is {self.quantize}, which needs an importance matrix; add"
                " 'importance': 'calibration.txt', or write 'Q4_K_M'",
                "quantize",
            )
        return self

    @property
    def texts(self) -> dict[str, str]:
        """Texts that determine the result, by the names of their digests in the lock file."""
        calibration = self.compress.calibration if self.compress else None
        found = {"importance_sha256": self.importance, "calibration_sha256": calibration}
        return {name: text for name, text in found.items() if text}

    @property
    def recipe(self) -> str:
        """What determines the result, besides the source."""
        if self.onnx:
            return f"onnx-{self.onnx.precision}"
        if self.compress:
            text = self.compress.calibration
            return f"compress-{self.compress.scheme}" + (f" calibrated by {text}" if text else "")
        importance = f" by the importance in {self.importance}" if self.importance else ""
        return f"{self.quantize}{importance}"
