"""Random models of docling's architectures, and RapidOCR's own models, under docling's names.

`python tiny_docling.py DIRECTORY`, by a Python that has docling-serve. Layout, tables, formulas and
pictures show that docling finds and loads a model, and nothing about documents: the layout model
sees nothing, so the text of a page has no structure. RapidOCR really reads, if it is asked to read
whole pages.

- `artifacts`: what upstream's image has, as `docling-tools models download` lays it out
- `docling-project/CodeFormulaV2`, `HuggingFaceTB/SmolVLM-256M-Instruct`: as from the hub
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

LAYOUT = "docling-project--docling-layout-heron"
TABLES = "docling-project--docling-models/model_artifacts/tableformer/accurate"
VISION = ("docling-project/CodeFormulaV2", "HuggingFaceTB/SmolVLM-256M-Instruct")
_LABELS = (
    *("caption", "footnote", "formula", "list_item", "page_footer", "page_header", "picture"),
    *("section_header", "table", "text", "title", "document_index", "code"),
    *("checkbox_selected", "checkbox_unselected", "form", "key_value_region"),
)
_TAGS = ("ecel", "fcel", "lcel", "ucel", "xcel", "nl", "ched", "rhed", "srow")
_IMAGE_TOKENS = (
    *("<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>"),
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
)
_TEMPLATE = (
    "{% for m in messages %}{{ m.role }}:{% for part in m.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}Assistant:"
)


def write(home: Path) -> None:
    """All of it, from a fixed seed."""
    import torch  # type: ignore[import-not-found, unused-ignore]

    torch.manual_seed(1)
    write_layout(home / "artifacts" / LAYOUT)
    write_tables(home / "artifacts" / TABLES)
    copy_ocr(home / "artifacts/RapidOcr")
    for name in VISION:
        write_vision(home / name)
    for path in home.rglob("*.safetensors"):
        path.chmod(0o644)


def write_layout(home: Path) -> None:
    """An RT-DETR, whose classes are all as good as impossible."""
    import torch
    from transformers import (  # type: ignore[import-not-found, unused-ignore]
        RTDetrImageProcessor,
        RTDetrResNetConfig,
        RTDetrV2Config,
        RTDetrV2ForObjectDetection,
    )

    backbone = RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = RTDetrV2Config(
        backbone_config=backbone,
        encoder_hidden_dim=16,
        encoder_in_channels=[16, 16, 16],
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        d_model=16,
        decoder_in_channels=[16, 16, 16],
        decoder_ffn_dim=16,
        decoder_layers=2,
        decoder_attention_heads=2,
        num_queries=10,
        id2label=dict(enumerate(_LABELS)),
        label2id={label: number for number, label in enumerate(_LABELS)},
    )
    model = RTDetrV2ForObjectDetection(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "class_embed" in name or "enc_score_head" in name:
                parameter.fill_(-10.0 if name.endswith("bias") else 0.0)
    model.save_pretrained(home)
    RTDetrImageProcessor().save_pretrained(home)


def write_tables(home: Path) -> None:
    """A TableFormer with one layer; its other sizes are in its code."""
    from docling_ibm_models.tableformer.models.table04_rs.tablemodel04_rs import (  # type: ignore[import-not-found, unused-ignore]
        TableModel04_rs,
    )
    from safetensors.torch import (  # type: ignore[import-not-found, unused-ignore]
        save_model,
    )

    words = {name: number for number, name in enumerate(("<pad>", "<unk>", "<start>", "<end>"))}
    tags = {**words, **{tag: len(words) + number for number, tag in enumerate(_TAGS)}}
    config: dict[str, Any] = {
        "dataset": {
            "name": "tiny",
            "resized_image": 448,
            "image_normalization": {"mean": [0.94, 0.94, 0.94], "std": [0.18, 0.18, 0.18]},
        },
        "dataset_wordmap": {"word_map_tag": tags, "word_map_cell": words},
        "model": {
            "type": "TableModel04_rs",
            "name": "tiny",
            "save_dir": "",
            "enc_image_size": 28,
            "hidden_dim": 512,
            "tag_attention_dim": 16,
            "tag_embed_dim": 16,
            "tag_decoder_dim": 512,
            "bbox_attention_dim": 16,
            "bbox_embed_dim": 16,
            "bbox_classes": 2,
            "enc_layers": 1,
            "dec_layers": 1,
            "nheads": 8,
            "dropout": 0.1,
        },
        "train": {"bbox": True},
        "predict": {"max_steps": 16, "beam_size": 1, "bbox": True, "pdf_cell_iou_thres": 0.05},
    }
    home.mkdir(parents=True)
    (home / "tm_config.json").write_text(json.dumps(config))
    model = TableModel04_rs(config, {"word_map": config["dataset_wordmap"]}, "cpu")
    save_model(model, str(home / "tableformer_accurate.safetensors"))


def copy_ocr(home: Path) -> None:
    """The models that RapidOCR's package carries: those of docling's default."""
    import rapidocr  # type: ignore[import-not-found, unused-ignore]

    home.mkdir(parents=True)
    for path in (Path(rapidocr.__file__).parent / "models").glob("*.onnx"):
        shutil.copy(path, home)


def write_vision(home: Path) -> None:
    """An Idefics3, which both models are, with a token for each byte."""
    from tokenizers import (  # type: ignore[import-not-found, unused-ignore]
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
    )
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessor,
        Idefics3Processor,
        PreTrainedTokenizerFast,
    )

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {token: number for number, token in enumerate(["<pad>", *letters, *_IMAGE_TOKENS])}
    raw = Tokenizer(models.BPE(vocab=words, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<end_of_utterance>",
        pad_token="<pad>",
        additional_special_tokens=list(_IMAGE_TOKENS),
    )
    pixels = 32
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2}
    ends = {"pad_token_id": words["<pad>"], "eos_token_id": words["<end_of_utterance>"]}
    config = Idefics3Config(
        vision_config={**sizes, **heads, "image_size": pixels, "patch_size": 8},
        text_config={
            "model_type": "llama",
            "vocab_size": len(words),
            "num_key_value_heads": 2,
            "max_position_embeddings": 8192,
            **sizes,
            **heads,
            **ends,
        },
        image_token_id=words["<image>"],
        scale_factor=2,
        pad_token_id=words["<pad>"],
    )
    Idefics3ForConditionalGeneration(config).save_pretrained(home)
    images = Idefics3ImageProcessor(
        do_image_splitting=False,
        size={"longest_edge": pixels},
        max_image_size={"longest_edge": pixels},
    )
    Idefics3Processor(
        images, tokenizer, image_seq_len=(pixels // 8 // 2) ** 2, chat_template=_TEMPLATE
    ).save_pretrained(home)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
