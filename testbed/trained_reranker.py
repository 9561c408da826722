"""A small reranking model that is really trained: all-MiniLM-L6-v2 with a layer that scores.

No package of PyPI or npm that we know of ships one. The layers of all-MiniLM stay as they are; its
pooler and one score are trained on questions with relevant and other texts, in about two minutes on
one core. Both texts have the same segment, because llama.cpp knows no other.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from testbed import minilm, trainable

CONTEXT_TOKENS = 128
_SECONDS = 1200
_PROGRAM = """
import json, sys
from pathlib import Path
import torch
from transformers import AutoTokenizer, BertForSequenceClassification

source, place, examples = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.stdin.read())
torch.manual_seed(1)
torch.set_num_threads(1)
tokenizer = AutoTokenizer.from_pretrained(source)
tokenizer.save_pretrained(place)
# One segment for both texts.
file = place / "tokenizer.json"
content = json.loads(file.read_text())
for part in content["post_processor"]["pair"]:
    (each,) = part.values()
    each["type_id"] = 0
file.write_text(json.dumps(content))
# The class of BERT's tokenizer would not read that.
file = place / "tokenizer_config.json"
content = json.loads(file.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
content["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
file.write_text(json.dumps(content))
tokenizer = AutoTokenizer.from_pretrained(place)
model = BertForSequenceClassification.from_pretrained(source, num_labels=1).eval()

def first_tokens(question, texts):
    tokens = tokenizer(
        [question] * len(texts), texts, truncation=True, max_length=CONTEXT, padding=True,
        return_tensors="pt",
    )
    assert not tokens["token_type_ids"].any()
    with torch.no_grad():
        return model.bert(**tokens).last_hidden_state[:, 0]

known = []
for example in examples["train"]:
    texts = [*example["relevant"], *example["others"]]
    known.append((first_tokens(example["question"], texts), len(example["relevant"])))
every, sizes = torch.cat([states for states, _ in known]), [len(states) for states, _ in known]
trained = [*model.bert.pooler.parameters(), *model.classifier.parameters()]
optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.1)
for _ in range(EPOCHS):
    loss = 0
    found = model.classifier(model.bert.pooler(every[:, None]))[:, 0].split(sizes)
    for scores, (_, relevant) in zip(found, known):
        # Each relevant text against all others of its question.
        others = scores[relevant:].logsumexp(0)
        loss = loss + torch.nn.functional.softplus(others - scores[:relevant]).mean()
    optimizer.zero_grad()
    (loss / len(known)).backward()
    optimizer.step()
model.save_pretrained(place)
scores = [
    [float(each) for each in model.classifier(model.bert.pooler(
        first_tokens(question, [text])[:, None]))[:, 0]]
    for question, text in examples["judged"]
]
print(json.dumps([score for (score,) in scores]))
"""
_EPOCHS = 30


def write(
    examples: Sequence[Mapping[str, object]], judged: Sequence[tuple[str, str]], repository: Path
) -> list[float]:
    """Train on examples with `question`, `relevant` and `others`, and write the repository with
    safetensors in F32. The scores of the judged questions and texts, by PyTorch."""
    program = _PROGRAM.replace("CONTEXT", str(CONTEXT_TOKENS)).replace("EPOCHS", str(_EPOCHS))
    arguments = [str(minilm.repository()), str(repository)]
    done = subprocess.run(
        [str(trainable.environment()), "-c", program, *arguments],
        input=json.dumps({"train": [*examples], "judged": [*judged]}),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    scores: list[float] = json.loads(done.stdout.splitlines()[-1])
    return scores
