"""Train a LoRA adapter: what runs in a training container, with PEFT and TRL.

    python3 train.py check JOB
    python3 train.py train JOB WORK

JOB has job.json, train.jsonl and held_back.jsonl. `check` loads no weights and prints one line of
JSON: the size of the training, and upper estimates of the memory and disk space that it takes.
`train` writes to WORK: progress.jsonl, checkpoints/, adapter/, and result.json last. It resumes
from its newest complete checkpoint, and does nothing if result.json exists.

Exit status 1 is a mistake, reported in the last line on stderr. 75 is a stop by SIGTERM: a
checkpoint is saved, and the same command continues.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGES = "/opt/llmhost/training"
"""What the image has in addition. Last in the path: the engine's packages are those it is for."""

STOPPED = 75
KEPT_CHECKPOINTS = 2
COMPLETE = "complete"
"""A file in each checkpoint that is on the disk as a whole."""

LINES = 200
"""About as many lines of progress has a training; a tenth of them with a held-back loss."""

LOGITS_TOKENS, LOGITS_WORDS = 4096, 32768
"""TRL computes the loss in tiles of so many tokens and words of the vocabulary."""

GIB = 1 << 30

Json = dict[str, Any]


class MistakeError(Exception):
    """What the user must change, as one sentence."""


def check(place: Path) -> Json:
    job = json.loads((place / "job.json").read_text())
    model = skeleton(job)
    trained, held_back, left_out = examples(place, job)
    trainable = sum(each.numel() for each in model.parameters() if each.requires_grad)
    longest = max(len(each["input_ids"]) for each in (*trained, *held_back))
    return {
        "parameters": sum(each.numel() for each in model.parameters()) - trainable,
        "trainable": trainable,
        "examples": len(trained),
        "held_back": len(held_back),
        "left_out": left_out,
        "tokens": sum(len(each["input_ids"]) for each in trained),
        "steps": math.ceil(len(trained) / job["batch_size"]) * job["epochs"],
        "memory_bytes": memory_bytes(job, model, longest),
        "disk_bytes": disk_bytes(job, trainable),
        "versions": versions(),
    }


def train(place: Path, work: Path) -> int:
    if (work / "result.json").exists():
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))
    job = json.loads((place / "job.json").read_text())
    skeleton(job)
    trained, held_back, _ = examples(place, job)
    checkpoint = newest_checkpoint(work / "checkpoints")
    progress = Progress(work / "progress.jsonl", step_of(checkpoint))
    trainer = trainer_for(job, trained, held_back, work, progress)
    before = loss_of_base(trainer, work)

    def save_and_stop(*_: object) -> None:
        progress.stopped = True

    signal.signal(signal.SIGTERM, save_and_stop)
    progress.begun = time.monotonic() - progress.seconds
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.state.global_step < trainer.state.max_steps:
        return STOPPED
    first, last = progress.lines[0], progress.lines[-1]
    if before is None or last["held_back_loss"] is None:
        raise MistakeError("The loss is no longer a number: choose a lower learning_rate.")
    save_adapter(trainer.model, job["base_name"], work / "adapter")
    result = {
        "before": before,
        "after": last["held_back_loss"],
        "first_loss": first["loss"],
        "last_loss": last["loss"],
        "steps": last["step"],
        "examples": len(trained),
        "held_back": len(held_back),
        "tokens": sum(len(each["input_ids"]) for each in trained),
        "seconds": last["seconds"],
        "peak_bytes": peak_bytes(),
        "versions": versions(),
        "device": device(),
    }
    write(work / "result.json", json.dumps(result) + "\n")
    return 0


def skeleton(job: Json) -> Any:
    """The model with its adapter, without memory for weights. PEFT judges the adapter."""
    import torch
    import transformers
    from peft import get_peft_model

    judge_method(job)
    config = base_config(job)
    try:
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
    except (ValueError, KeyError, ImportError) as error:
        raise unknown_architecture(job) from error
    judge_targets(job, model)
    try:
        with torch.device("meta"):
            return get_peft_model(model, adapter_config(job, model), low_cpu_mem_usage=True)
    except ValueError as error:
        raise MistakeError(f"PEFT cannot train {job['base_name']}: {one_line(error)}") from error


def judge_method(job: Json) -> None:
    if not [*Path(job["base"]).glob("*.safetensors")]:
        raise MistakeError(
            f"{job['base_name']} has no safetensors, which training needs: name the repository "
            "that its GGUF file was made from."
        )
    quantized = written_config(job).get("quantization_config") or {}
    kind = quantized.get("quant_method", "") if isinstance(quantized, dict) else ""
    if quantized and not (job["method"] == "qlora" and kind == "bitsandbytes"):
        raise MistakeError(
            f"{job['base_name']} is quantized ({kind or 'unknown'}) and cannot be trained: name "
            "the repository that it was made from."
        )
    if job["method"] == "qlora" and not has_gpu():
        raise MistakeError("The method qlora needs an NVIDIA GPU: choose lora.")
    if job["method"] == "qlora" and not importlib.util.find_spec("bitsandbytes"):
        raise MistakeError("The method qlora needs bitsandbytes, which this image lacks.")


def judge_targets(job: Json, model: Any) -> None:
    """PEFT is content if it finds one of them."""
    decoder = model.get_decoder() or model
    known = {name.rpartition(".")[2] for name, _ in matrices(decoder)}
    if unknown := sorted({each.rpartition(".")[2] for each in job["target_modules"]} - known):
        raise MistakeError(
            f"{job['base_name']} has no modules {', '.join(unknown)} to train: choose from "
            f"{', '.join(sorted(known))}."
        )


def matrices(model: Any) -> Iterator[tuple[str, Any]]:
    """Linear layers but the head: names, and their weights."""
    import torch

    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if module is not head and not isinstance(module, torch.nn.Embedding):
            for each in module.parameters(recurse=False):
                if each.ndim == 2:
                    yield name, each


def written_config(job: Json) -> Json:
    try:
        return dict(json.loads((Path(job["base"]) / "config.json").read_text()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise MistakeError(f"{job['base_name']} has no config.json that can be read.") from error


def base_config(job: Json) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(job["base"])
    except (ValueError, KeyError, OSError) as error:
        raise unknown_architecture(job) from error


def unknown_architecture(job: Json) -> MistakeError:
    config = written_config(job)
    known = config.get("architectures")
    names = known if known and isinstance(known, list) else [config.get("model_type", "unknown")]
    found = ", ".join(map(str, names))
    version = importlib.metadata.version("transformers")
    return MistakeError(
        f"{job['base_name']} has the architecture {found}, which transformers {version} cannot "
        "load as a model that generates text."
    )


def adapter_config(job: Json, model: Any) -> Any:
    """For the part of the model that reads and writes text: texts do not train an encoder of
    images, and engines load no adapter for it."""
    from peft import LoraConfig

    decoder = model.get_decoder()
    texts = {id(weight) for _, weight in matrices(decoder)} if decoder else set()
    others = [name for name, weight in matrices(model) if texts and id(weight) not in texts]
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=job["rank"],
        lora_alpha=job["alpha"],
        lora_dropout=job["dropout"],
        target_modules=job["target_modules"] or "all-linear",
        exclude_modules=others or None,
    )


def examples(place: Path, job: Json) -> tuple[list[Json], list[Json], int]:
    """Token numbers and labels: what is trained, what is held back, and how many questions are left
    out because they are too long: an answer that is cut off teaches to stop there."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(job["base"])
    except (ValueError, KeyError, OSError, ImportError) as error:
        reason = one_line(error)
        raise MistakeError(
            f"The tokenizer of {job['base_name']} cannot be read: {reason}"
        ) from error
    found, left_out, longest = [], 0, job["context_tokens"]
    for name, least in (("train.jsonl", 2), ("held_back.jsonl", 1)):
        given = records(place / name)
        every = [part for each in given for part in parts_of(tokenizer, each, longest)]
        short = [each for each in every if len(each["input_ids"]) <= longest]
        if every and not short:
            raise MistakeError(
                f"Every example in {name} is longer than {job['context_tokens']} tokens: raise "
                "context_tokens or shorten them."
            )
        if len(short) < least:
            raise MistakeError(f"{name} has {len(short)} examples, and {least} are the least.")
        left_out += len(every) - len(short)
        found.append(short)
    return found[0], found[1], left_out


def records(file: Path) -> Iterator[Json]:
    if not file.exists():
        return
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        names = {*record} if isinstance(record, dict) else set()
        if names not in ({"prompt", "completion"}, {"text"}) or not all(
            isinstance(each, str) and each for each in record.values()
        ):
            raise MistakeError(
                f"Line {number} of {file.name} has neither a prompt and a completion nor a text."
            )
        yield record


def parts_of(tokenizer: Any, record: Json, longest: int) -> list[Json]:
    """An example, or a text in parts that fit. Texts were divided by characters, of which a token
    has four in English, but hardly one in Chinese."""
    whole, text = tokens_of(tokenizer, record), record.get("text", "")
    if len(whole["input_ids"]) <= longest or len(text) < 2:
        return [whole]
    place = middle(text)
    halves = [{"text": part} for part in (text[:place], text[place:]) if part.strip()]
    return [part for each in halves for part in parts_of(tokenizer, each, longest)]


def middle(text: str) -> int:
    """Where to divide a text: after a paragraph, a line or a word in the half around its middle."""
    first, last = len(text) // 4, len(text) * 3 // 4
    for end in ("\n\n", "\n", " "):
        if (place := text.rfind(end, first, last)) > 0:
            return place + len(end)
    return len(text) // 2


def tokens_of(tokenizer: Any, record: Json) -> Json:
    """As an engine will see it: with the chat template, if there is one. Labels of -100 have no
    loss; the completion begins where the prompt alone would go on in another way."""
    if "text" in record:
        whole = tokenizer(record["text"])["input_ids"]
        start = 0
    elif tokenizer.chat_template:
        asked = [{"role": "user", "content": record["prompt"]}]
        said = [*asked, {"role": "assistant", "content": record["completion"]}]
        prompt = templated(tokenizer, asked, add_generation_prompt=True)
        whole = templated(tokenizer, said)
        start = common(prompt, whole)
    else:
        prompt = tokenizer(record["prompt"])["input_ids"]
        whole = tokenizer(record["prompt"] + record["completion"])["input_ids"]
        start = common(prompt, whole)
    end = tokenizer.eos_token_id
    if end is not None and end not in whole[start:]:
        whole = [*whole, end]
    return {"input_ids": whole, "labels": [-100] * start + whole[start:]}


def templated(tokenizer: Any, messages: list[Json], **options: bool) -> list[int]:
    """The template adds the tokens with a meaning of their own."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def common(first: list[int], second: list[int]) -> int:
    """How many tokens two lists begin with alike."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(first), len(second)))


def memory_bytes(job: Json, model: Any, longest: int) -> int:
    """An upper estimate of what training takes at once on the GPU, or of RAM without one.

    - Weights: 2 bytes each as bfloat16 on a GPU, 4 on others and without one; and there also the
      files, which are mapped while they are read. 4-bit weights take 0.56 bytes with their scales,
      but only in linear layers.
    - Adapter: its weights, gradients and two moments of Adam as 32-bit numbers.
    - Activations: what linear layers read and write, twice and a half, for what lies between them,
      and 32 bits each. With gradient checkpointing only those of one layer, and what goes into
      each of the others, as large as weights. Attention has a mask of tokens by tokens.
    - Logits: four copies of one tile, with the gradient among them.
    - The program: Python with its libraries, or CUDA's context, and on a GPU a tenth for gaps
      between allocations.
    """
    tokens = job["batch_size"] * longest
    trainable = sum(each.numel() for each in model.parameters() if each.requires_grad)
    frozen = sum(each.numel() for each in model.parameters()) - trainable
    linear, width = linear_layers(model)
    logits = min(tokens, LOGITS_TOKENS) * LOGITS_WORDS * 4 * 4
    adapter = trainable * 16
    text = model.config.get_text_config()
    mask = tokens * longest * 4
    if not has_gpu():
        files = sum(each.stat().st_size for each in Path(job["base"]).glob("*.safetensors"))
        activations = int(tokens * width * 2.5) * 4
        return frozen * 4 + files + adapter + activations + mask + logits + GIB
    size = 2 if has_bfloat16() else 4
    weights = frozen * size
    if job["method"] == "qlora":
        weights = int(linear * 0.56) + (frozen - linear) * size
    layers = text.num_hidden_layers
    activations = tokens * (layers * text.hidden_size * size + int(width / layers * 2.5) * 4)
    return int((weights + adapter + activations + mask + logits) * 1.1) + GIB


def linear_layers(model: Any) -> tuple[int, int]:
    """Of all linear layers but the head: how many weights they have, and how many numbers a token
    makes them read and write. Experts are weights with three dimensions, few of which see it."""
    experts = getattr(model.config.get_text_config(), "num_experts_per_tok", None) or 1
    found = [each for _, each in matrices(model)]
    stacks = [each.shape for each in model.parameters() if each.ndim == 3]
    width = sum(sum(each.shape) for each in found)
    width += experts * sum(rows + columns for _, rows, columns in stacks)
    return sum(each.numel() for each in found if not each.requires_grad), width


def disk_bytes(job: Json, trainable: int) -> int:
    """Checkpoints have adapter, moments of Adam and tokenizer; one more than are kept exists while
    it is written. The adapter itself exists twice when a finished one is replaced."""
    small = sum(
        each.stat().st_size
        for each in Path(job["base"]).iterdir()
        if each.is_file() and each.suffix in (".json", ".jinja", ".model", ".txt")
    )
    return (KEPT_CHECKPOINTS + 1) * (trainable * 12 + small + (1 << 20)) + 2 * trainable * 4


def trainer_for(
    job: Json, trained: list[Json], held_back: list[Json], work: Path, progress: Progress
) -> Any:
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        BitsAndBytesConfig,
        PrinterCallback,
    )
    from trl import SFTConfig, SFTTrainer

    gpu, half = has_gpu(), has_bfloat16()
    options: Json = {"dtype": torch.bfloat16 if half else torch.float32}
    if gpu:
        options["device_map"] = {"": 0}
    if job["method"] == "qlora" and "quantization_config" not in written_config(job):
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=options["dtype"],
        )
    steps = math.ceil(len(trained) / job["batch_size"]) * job["epochs"]
    logging = max(1, steps // LINES)
    config = SFTConfig(
        output_dir=str(work / "checkpoints"),
        num_train_epochs=job["epochs"],
        learning_rate=job["learning_rate"],
        per_device_train_batch_size=job["batch_size"],
        per_device_eval_batch_size=job["batch_size"],
        seed=job["seed"],
        logging_steps=logging,
        eval_strategy="steps",
        eval_steps=logging * max(1, LINES // 20),
        save_strategy="steps",
        save_steps=job["checkpoint_steps"],
        save_total_limit=KEPT_CHECKPOINTS,
        gradient_checkpointing=gpu,
        bf16=half,
        use_cpu=not gpu,
        dataset_kwargs={"skip_prepare_dataset": True},
        report_to="none",
        disable_tqdm=True,
    )
    model = AutoModelForCausalLM.from_pretrained(job["base"], **options)
    trainer = SFTTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(trained),
        eval_dataset=Dataset.from_list(held_back),
        processing_class=AutoTokenizer.from_pretrained(job["base"]),
        peft_config=adapter_config(job, model),
        callbacks=[callback_for(progress)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def loss_of_base(trainer: Any, work: Path) -> float | None:
    """On the held-back examples: a new adapter changes nothing."""
    file = work / "before.json"
    if not file.exists():
        write(file, json.dumps(number(trainer.evaluate()["eval_loss"])))
    return json.loads(file.read_text())


class Progress:
    """The lines of progress.jsonl. Those after the checkpoint that a run continues from, and one
    that was not written to its end, are dropped."""

    def __init__(self, file: Path, step: int) -> None:
        self.stopped = False
        self.begun = 0.0
        self.lines = [each for each in self._read(file) if each["step"] <= step]
        write(file, "".join(json.dumps(each) + "\n" for each in self.lines))
        self._file = file

    @staticmethod
    def _read(file: Path) -> Iterator[Json]:
        if file.exists():
            for line in file.read_text().splitlines():
                try:
                    yield json.loads(line)
                except ValueError:
                    return

    @property
    def seconds(self) -> float:
        """What training has taken so far, in all runs."""
        return float(self.lines[-1]["seconds"]) if self.lines else 0.0

    def add(self, line: Json) -> None:
        self.lines.append(line)
        with self._file.open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())  # a checkpoint that is on the disk needs its lines


def callback_for(progress: Progress) -> Any:
    """Writes progress, and marks complete checkpoints. Each checkpoint and each evaluation is at a
    logged step, so no loss is counted twice or not at all."""
    from transformers import TrainerCallback

    class Callback(TrainerCallback):
        def __init__(self) -> None:
            self.line: Json = {}

        def on_step_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> None:
            if progress.stopped:
                control.should_save = control.should_training_stop = True
            if control.should_save or control.should_evaluate:
                control.should_log = True

        def on_log(self, _args: Any, state: Any, control: Any, logs: Json, **_: Any) -> None:
            if "loss" not in logs:
                return
            self.line = {
                "step": state.global_step,
                "steps": state.max_steps,
                "epoch": round(state.epoch, 4),
                "loss": number(logs["loss"]),
                "held_back_loss": None,
                "seconds": round(time.monotonic() - progress.begun, 3),
            }
            if not control.should_evaluate:
                progress.add(self.line)

        def on_evaluate(
            self, _args: Any, state: Any, _control: Any, metrics: Json, **_: Any
        ) -> None:
            if state.global_step:
                seconds = round(time.monotonic() - progress.begun, 3)
                held_back = number(metrics["eval_loss"])
                progress.add(self.line | {"held_back_loss": held_back, "seconds": seconds})

        def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
            place = Path(args.output_dir, f"checkpoint-{state.global_step}")
            flush(place)
            write(place / COMPLETE, "")

    return Callback()


def newest_checkpoint(place: Path) -> Path | None:
    """Others that are not complete are removed: their steps come again."""
    place.mkdir(parents=True, exist_ok=True)
    complete = []
    for each in place.glob("checkpoint-*"):
        if (each / COMPLETE).exists():
            complete.append(each)
        else:
            shutil.rmtree(each)
    return max(complete, key=step_of, default=None)


def step_of(checkpoint: Path | None) -> int:
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def save_adapter(model: Any, base_name: str, target: Path) -> None:
    draft = target.with_name("adapter.draft")
    shutil.rmtree(draft, ignore_errors=True)
    config = model.peft_config["default"]
    config.base_model_name_or_path = base_name
    # PEFT has a set, which would be written in another order by each process.
    config.target_modules = sorted(config.target_modules)
    config.exclude_modules = None
    model.save_pretrained(draft, save_embedding_layers=False)
    (draft / "README.md").unlink(missing_ok=True)
    for each in draft.iterdir():
        each.chmod(0o644)
    flush(draft)
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)


def flush(place: Path) -> None:
    """Wait until all files in a directory are on the disk."""
    for each in place.rglob("*"):
        if each.is_file():
            with each.open("rb") as file:
                os.fsync(file.fileno())


def write(file: Path, text: str) -> None:
    """As a whole or not at all."""
    draft = file.with_name(f"{file.name}.draft")
    with draft.open("w") as content:
        content.write(text)
        content.flush()
        os.fsync(content.fileno())
    draft.replace(file)


def number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()).partition(". ")[0].rstrip(".") + "."


def has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def has_bfloat16() -> bool:
    import torch

    return has_gpu() and torch.cuda.is_bf16_supported()


def device() -> str:
    import torch

    return str(torch.cuda.get_device_name(0)) if has_gpu() else "cpu"


def peak_bytes() -> int:
    import torch

    if has_gpu():
        return int(torch.cuda.max_memory_reserved())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def versions() -> dict[str, str]:
    names = ("torch", "transformers", "peft", "trl")
    return {name: importlib.metadata.version(name) for name in names}


def prepare() -> None:
    """No network, one GPU, and caches where a user without a home can write."""
    sys.path.append(PACKAGES)
    home = Path(tempfile.gettempdir(), "llmhost-train")
    os.environ |= {
        "HOME": str(home),
        "USER": "llmhost",
        "LOGNAME": "llmhost",
        "HF_HOME": str(home / "huggingface"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "TRITON_CACHE_DIR": str(home / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(home / "inductor"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=("check", "train"))
    parser.add_argument("job", type=Path)
    parser.add_argument("work", type=Path, nargs="?")
    given = parser.parse_args()
    if (given.task == "train") != (given.work is not None):
        parser.error("train needs WORK, and check has none")
    prepare()
    try:
        if given.task == "train":
            return train(given.job, given.work)
        print(json.dumps(check(given.job)))
    except MistakeError as error:
        print(error, file=sys.stderr)
        return 1
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        advice = "choose a smaller batch_size or context_tokens, or the method qlora"
        print(f"The memory of the GPU is too small: {advice}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
