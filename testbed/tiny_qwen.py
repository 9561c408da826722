"""A small Qwen3 with random weights, as from the hub, with a tokenizer and a template.

`python tiny_qwen.py DIRECTORY`, by a Python that has PyTorch and Transformers. A token is a byte.
"""

import sys
from pathlib import Path

_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write(home: Path) -> None:
    """Four layers from a fixed seed; half a megabyte."""
    import torch  # type: ignore[import-not-found, unused-ignore]
    from tokenizers import (  # type: ignore[import-not-found, unused-ignore]
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
    )
    from transformers import (  # type: ignore[import-not-found, unused-ignore]
        PreTrainedTokenizerFast,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {token: number for number, token in enumerate([*letters, *_SPECIAL])}
    raw = Tokenizer(models.BPE(vocab=words, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    end, padding = words["<|im_end|>"], words["<|endoftext|>"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=_SPECIAL,
    )
    tokenizer.chat_template = _TEMPLATE
    torch.manual_seed(1)
    # With heads of a multiple of 32, vLLM 0.32 uses AMX where a CPU has it; an engine that pools
    # has not asked the kernel for it, and ends with SIGILL.
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "head_dim": 80}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = Qwen3Config(
        vocab_size=len(words),
        max_position_embeddings=2048,
        eos_token_id=end,
        pad_token_id=padding,
        tie_word_embeddings=False,
        dtype="bfloat16",
        **sizes,
        **heads,
    )
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(home)
    tokenizer.save_pretrained(home)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
