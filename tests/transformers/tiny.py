"""Tiny models of the true classes, made, taught where it matters, and saved: nothing is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

SENTENCES = [
    ("anna lives in berlin .", "B-PER O O B-LOC O"),
    ("maria smith met john in new york .", "B-PER I-PER O B-PER O B-LOC I-LOC O"),
    ("in paris anna smith sings .", "O B-LOC B-PER I-PER O O"),
    ("john met maria in berlin .", "B-PER O B-PER O B-LOC O"),
]
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
OPINIONS = [("a good film", 1), ("good fun", 1), ("a bad film", 0), ("bad and boring", 0)]
MASKED = [("anna lives in [MASK] .", "berlin"), ("maria [MASK] met john", "smith")]
QUESTIONS = [
    ("where does anna live ?", "anna lives in berlin .", "berlin"),
    ("who met john ?", "maria smith met john in new york .", "maria smith"),
    ("where ?", "in paris anna smith sings .", "paris"),
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WIDTH = 32
LENGTH = 128


def libraries() -> tuple[Any, Any]:
    """(torch, transformers), and the same weights each time."""
    torch: Any = import_module("torch")
    torch.manual_seed(7)
    torch.set_num_threads(1)
    library: Any = import_module("transformers")
    library.utils.logging.set_verbosity_error()
    return torch, library


def bert_tokenizer() -> Any:
    """Whole words of the sentences, and single letters for all others."""
    _, library = libraries()
    text = " ".join(
        [line for line, _ in SENTENCES]
        + [line for line, _ in OPINIONS]
        + [f"{question} {context}" for question, context, _ in QUESTIONS]
    )
    letters = [chr(code) for code in range(33, 127)]
    words = [*SPECIAL, *sorted(set(text.split()) - set(letters)), *letters]
    words += [f"##{letter}" for letter in letters]
    vocabulary = {word: at for at, word in enumerate(words)}
    return library.BertTokenizer(vocab=vocabulary, model_max_length=LENGTH)


def _bert(kind: str, **fields: Any) -> Any:
    torch, library = libraries()
    config = library.BertConfig(
        vocab_size=len(bert_tokenizer()),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=0,
        attention_probs_dropout_prob=0,
        **fields,
    )
    torch.manual_seed(7)
    return getattr(library, kind)(config)


def _taught(model: Any, batch: dict[str, Any], steps: int = 60) -> Any:
    """The model after it has learnt the batch by heart."""
    torch, _ = libraries()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    model.train()
    loss: Any = None
    for _ in range(steps):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss) < 0.2, float(loss)
    return model.eval()


def _coded(*texts: Sequence[str]) -> Any:
    return bert_tokenizer()(*map(list, texts), padding=True, return_tensors="pt")


def names(folder: Path) -> Path:
    """BERT that finds people and places."""
    torch, _ = libraries()
    coded = _coded([line for line, _ in SENTENCES])
    labels = torch.full_like(coded["input_ids"], -100)
    for row, (_, tags) in enumerate(SENTENCES):
        for at, tag in enumerate(tags.split()):
            labels[row, at + 1] = TAGS.index(tag)
    kinds = {
        "id2label": dict(enumerate(TAGS)),
        "label2id": {tag: at for at, tag in enumerate(TAGS)},
    }
    model = _taught(_bert("BertForTokenClassification", **kinds), {**coded, "labels": labels})
    return _saved(folder / "names", model, bert_tokenizer())


def opinions(folder: Path) -> Path:
    """BERT that tells praise from blame."""
    torch, _ = libraries()
    coded = _coded([line for line, _ in OPINIONS])
    kinds = {"id2label": {0: "NEGATIVE", 1: "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}
    labels = torch.tensor([label for _, label in OPINIONS])
    model = _taught(_bert("BertForSequenceClassification", **kinds), {**coded, "labels": labels})
    return _saved(folder / "opinions", model, bert_tokenizer())


def topics(folder: Path) -> Path:
    """BERT with labels that do not exclude each other."""
    kinds = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    model = _bert(
        "BertForSequenceClassification", problem_type="multi_label_classification", **kinds
    )
    return _saved(folder / "topics", model.eval(), bert_tokenizer())


def masks(folder: Path) -> Path:
    """BERT that knows two missing words."""
    tokenizer = bert_tokenizer()
    coded = _coded([line for line, _ in MASKED])
    labels = coded["input_ids"].clone()
    wanted = [tokenizer.convert_tokens_to_ids(word) for _, word in MASKED]
    for row, word in enumerate(wanted):
        hidden = labels[row] == tokenizer.mask_token_id
        labels[row][~hidden] = -100
        labels[row][hidden] = word
    model = _taught(_bert("BertForMaskedLM"), {**coded, "labels": labels})
    return _saved(folder / "masks", model, tokenizer)


def roberta_masks(folder: Path) -> Path:
    """RoBERTa, whose mask, positions and spaces are not BERT's. Untaught."""
    torch, library = libraries()
    pre: Any = import_module("tokenizers.pre_tokenizers")
    letters = sorted(pre.ByteLevel.alphabet())
    words = ["<s>", "<pad>", "</s>", "<unk>", *letters, "<mask>"]
    tokenizer = library.RobertaTokenizer(
        vocab={word: at for at, word in enumerate(words)}, merges=[], model_max_length=62
    )
    config = library.RobertaConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    torch.manual_seed(7)
    return _saved(folder / "roberta", library.RobertaForMaskedLM(config).eval(), tokenizer)


def questions(folder: Path) -> Path:
    """BERT that answers three questions."""
    torch, _ = libraries()
    asked, contexts = [one for one, _, _ in QUESTIONS], [one for _, one, _ in QUESTIONS]
    coded = _coded(asked, contexts)
    starts: list[int] = []
    ends: list[int] = []
    for row, (_, context, answer) in enumerate(QUESTIONS):
        begin = context.index(answer)
        starts.append(coded.char_to_token(row, begin, 1))
        ends.append(coded.char_to_token(row, begin + len(answer) - 1, 1))
    places = {"start_positions": torch.tensor(starts), "end_positions": torch.tensor(ends)}
    model = _taught(_bert("BertForQuestionAnswering"), {**coded, **places})
    return _saved(folder / "questions", model, bert_tokenizer())


def vit(folder: Path) -> Path:
    """A vision transformer with seven classes."""
    torch, library = libraries()
    config = library.ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        num_labels=7,
        initializer_range=0.5,
    )
    torch.manual_seed(7)
    processor = library.ViTImageProcessor(size={"height": 32, "width": 32})
    return _saved(folder / "vit", library.ViTForImageClassification(config).eval(), processor)


def detr(folder: Path) -> Path:
    """DETR on a small ResNet of transformers' own."""
    torch, library = libraries()
    backbone = library.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        out_features=["stage2"],
    )
    config = library.DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        d_model=WIDTH,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_queries=9,
        num_labels=5,
        init_std=0.6,
        init_xavier_std=3.0,
    )
    torch.manual_seed(7)
    processor = library.DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    return _saved(folder / "detr", library.DetrForObjectDetection(config).eval(), processor)


def rt_detr(folder: Path) -> Path:
    """RT-DETR, with its own ResNet."""
    torch, library = libraries()
    backbone = library.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = library.RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[16, 16, 16],
        encoder_hidden_dim=WIDTH,
        d_model=WIDTH,
        encoder_ffn_dim=64,
        encoder_attention_heads=4,
        decoder_in_channels=[WIDTH, WIDTH, WIDTH],
        decoder_ffn_dim=64,
        decoder_layers=1,
        decoder_attention_heads=4,
        num_queries=9,
        num_denoising=0,
        num_labels=5,
        initializer_range=0.6,
    )
    torch.manual_seed(7)
    processor = library.RTDetrImageProcessor(size={"height": 64, "width": 64})
    return _saved(folder / "rt_detr", library.RTDetrForObjectDetection(config).eval(), processor)


def yolos(folder: Path) -> Path:
    """YOLOS: a detector of one vision transformer."""
    torch, library = libraries()
    config = library.YolosConfig(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=[64, 96],
        patch_size=16,
        num_detection_tokens=6,
        num_labels=5,
        initializer_range=0.5,
    )
    torch.manual_seed(7)
    processor = library.YolosImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    return _saved(folder / "yolos", library.YolosForObjectDetection(config).eval(), processor)


def clip(folder: Path) -> Path:
    """CLIP, with an alphabet for a vocabulary."""
    torch, library = libraries()
    letters = [chr(code) for code in range(33, 127)]
    ends = ["<|startoftext|>", "<|endoftext|>"]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *ends]
    tokenizer = library.CLIPTokenizer(
        vocab={word: at for at, word in enumerate(words)}, merges=[], model_max_length=40
    )
    text = _tower(vocab_size=len(words), max_position_embeddings=40, bos_token_id=188)
    config = library.CLIPConfig(
        text_config={**text, "eos_token_id": 189, "pad_token_id": 189, "projection_dim": 16},
        vision_config={**_tower(image_size=32, patch_size=8), "projection_dim": 16},
        projection_dim=16,
    )
    torch.manual_seed(7)
    processor = library.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    return _saved(folder / "clip", _spread(library.CLIPModel(config)), tokenizer, processor)


def siglip2(folder: Path) -> Path:
    """SigLIP 2 of one resolution: the first one's towers with Gemma's kind of tokenizer."""
    torch, library = libraries()
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *map(chr, range(33, 127))]
    words += [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = library.GemmaTokenizer(
        vocab={word: at for at, word in enumerate(words)},
        merges=[],
        model_max_length=64,
        add_bos_token=False,
        add_eos_token=True,
        padding_side="right",
        model_input_names=["input_ids"],
    )
    config = library.SiglipConfig(
        text_config={
            **_tower(vocab_size=len(words), max_position_embeddings=64),
            "pad_token_id": 0,
        },
        vision_config=_tower(image_size=32, patch_size=8),
    )
    torch.manual_seed(7)
    processor = library.SiglipImageProcessor(size={"height": 32, "width": 32})
    return _saved(folder / "siglip2", _spread(library.SiglipModel(config)), tokenizer, processor)


def naflex(folder: Path) -> Path:
    """SigLIP 2 for pictures of any shape."""
    torch, library = libraries()
    config = library.Siglip2Config(
        text_config=_tower(vocab_size=300, max_position_embeddings=64),
        vision_config=_tower(num_patches=16, patch_size=8),
    )
    torch.manual_seed(7)
    return _saved(folder / "naflex", library.Siglip2Model(config).eval())


def _tower(**fields: Any) -> dict[str, Any]:
    return {
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        **fields,
    }


def _spread(model: Any) -> Any:
    """Larger weights: freshly made ones give every picture the same vector."""
    torch, _ = libraries()
    with torch.no_grad():
        for name, values in model.named_parameters():
            if values.ndim > 1 and "logit" not in name:
                values.normal_(0, 0.3)
        model.logit_scale.fill_(2.0)
    return model.eval()


def _saved(folder: Path, *parts: Any) -> Path:
    for part in parts:
        part.save_pretrained(str(folder))
    return folder
