"""A small Llama that is really trained: on English text, in about two minutes on one core.

Its rows have 256 values, as llama.cpp's K-quants need them. Its tokenizer is trained on the same
text, with a token for each byte, which is the kind that llama.cpp's converter reads without a list
of known tokenizers; from tokenizer.model, because it reads tokenizer.json without the order of
merges.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from testbed import trainable

STEPS = 240
_SECONDS = 1200
_PROGRAM = """
import json, math, struct, sys
from pathlib import Path
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

WINDOW, VOCABULARY, BATCH, RATE = 512, 1024, 1, 3e-3
text, held = (Path(each).read_text() for each in sys.argv[1:3])
place, steps = Path(sys.argv[3]), int(sys.argv[4])
torch.manual_seed(1)
torch.set_num_threads(1)

tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
start = "\\u2581"
tokenizer.normalizer = normalizers.Sequence(
    [normalizers.Prepend(start), normalizers.Replace(" ", start)]
)
tokenizer.decoder = decoders.Sequence(
    [decoders.Replace(start, " "), decoders.ByteFallback(), decoders.Fuse(),
     decoders.Strip(" ", 1, 0)]
)
special = ["<unk>", "<s>", "</s>", *(f"<0x{each:02X}>" for each in range(256))]
trainer = trainers.BpeTrainer(
    vocab_size=VOCABULARY, special_tokens=special, show_progress=False
)
tokenizer.train_from_iterator(text.split(), trainer)
tokens = torch.tensor(tokenizer.encode(text).ids)
evaluated = torch.tensor([1, *tokenizer.encode(held).ids])

model = LlamaForCausalLM(LlamaConfig(
    vocab_size=VOCABULARY, hidden_size=256, intermediate_size=768, num_hidden_layers=4,
    num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=WINDOW, bos_token_id=1,
    eos_token_id=2, tie_word_embeddings=False, rms_norm_eps=1e-5,
))

def perplexity():
    # The second half of each window, which begins with <s>: as llama-perplexity does it.
    losses = []
    with torch.no_grad():
        for window in evaluated[: len(evaluated) // WINDOW * WINDOW].view(-1, WINDOW):
            window = window.clone()
            window[0] = 1
            found = model(window[None]).logits[0, WINDOW // 2 : -1]
            losses.append(torch.nn.functional.cross_entropy(found, window[WINDOW // 2 + 1 :]))
    return math.exp(sum(map(float, losses)) / len(losses))

untrained = perplexity()
optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
for _ in range(steps):
    places = torch.randint(0, len(tokens) - WINDOW, (BATCH,))
    batch = torch.stack([tokens[each : each + WINDOW] for each in places])
    batch[:, 0] = 1
    loss = model(batch, labels=batch).loss
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()

def varint(number):
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])

def number(field, value):
    return varint(field << 3) + varint(value)

def data(field, content):
    return varint(field << 3 | 2) + varint(len(content)) + content

def sentencepiece():
    # The same tokens and the order of their merges, as SentencePiece's ModelProto.
    normal, unknown, control, byte = 1, 2, 3, 6
    kinds = {"<unk>": unknown, "<s>": control, "</s>": control}
    found = b""
    for token, place in sorted(tokenizer.get_vocab().items(), key=lambda each: each[1]):
        kind = kinds.get(token, byte if token.startswith("<0x") else normal)
        score = varint(2 << 3 | 5) + struct.pack("<f", -place)
        found += data(1, data(1, token.encode()) + score + number(3, kind))
    bpe, ids = number(3, 2) + number(4, VOCABULARY) + number(35, 1), (0, 1, 2)
    trainer = bpe + b"".join(number(40 + each, each) for each in ids)
    spaces = data(1, b"identity") + number(3, 1) + number(4, 0) + number(5, 1)
    return found + data(2, trainer) + data(3, spaces)

model.half().save_pretrained(place)
tokenizer.save(str(place / "tokenizer.json"))
(place / "tokenizer.model").write_bytes(sentencepiece())
(place / "tokenizer_config.json").write_text(json.dumps({
    "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>",
    "unk_token": "<unk>", "add_bos_token": True, "add_eos_token": False,
    "model_max_length": WINDOW, "clean_up_tokenization_spaces": False, "legacy": True,
}))
model.float()
print(json.dumps({"untrained": untrained, "trained": perplexity()}))
"""


@dataclass(frozen=True)
class Trained:
    """Perplexity of the held-out text by PyTorch: before the training, and with the F16 weights."""

    untrained: float
    trained: float


def write(text: Path, held_out: Path, repository: Path, steps: int = STEPS) -> Trained:
    """Train on a text, and write the repository with safetensors in F16. Texts in one line."""
    arguments = [str(text), str(held_out), str(repository), str(steps)]
    command = [str(trainable.environment()), "-c", _PROGRAM, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    assert done.returncode == 0, done.stderr
    return Trained(**json.loads(done.stdout.splitlines()[-1]))
