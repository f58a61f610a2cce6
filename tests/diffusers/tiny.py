"""Tiny random pipelines of the true classes, made and saved in seconds: nothing is fetched."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

SPECIAL = ("<|startoftext|>", "<|endoftext|>")
WIDTH = 32


def libraries() -> tuple[Any, Any]:
    """(diffusers, transformers), and the same weights each time."""
    torch: Any = import_module("torch")
    torch.manual_seed(7)
    return import_module("diffusers"), import_module("transformers")


def clip_tokenizer(folder: Path) -> Any:
    """Of single characters: the real one's alphabet without its merges."""
    _, transformers = libraries()
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *SPECIAL]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: at for at, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizer.from_pretrained(str(folder), model_max_length=77)


def clip_text(**fields: Any) -> Any:
    """A text encoder of CLIP."""
    _, transformers = libraries()
    config = transformers.CLIPTextConfig(
        vocab_size=190,
        hidden_size=WIDTH,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=WIDTH,
        bos_token_id=188,
        eos_token_id=189,
        **fields,
    )
    projected = transformers.CLIPTextModelWithProjection(config)
    return projected if fields.get("hidden_act") == "gelu" else transformers.CLIPTextModel(config)


def t5(folder: Path, kind: str) -> tuple[Any, Any]:
    """(encoder, tokenizer) of T5's family."""
    _, transformers = libraries()
    pieces = ["<pad>", "</s>", "<unk>", "▁", *(chr(code) for code in range(33, 127))]
    tokenizer = transformers.T5TokenizerFast(
        vocab=[(piece, 0.0 if at < 3 else -2.0) for at, piece in enumerate(pieces)],
        model_max_length=64,
        extra_ids=0,
    )
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=128, d_model=WIDTH, d_kv=8, d_ff=37, num_layers=2, num_heads=4
    )
    return getattr(transformers, f"{kind}EncoderModel")(config), tokenizer


def sdxl(folder: Path) -> Path:
    """Stable Diffusion XL, the family of SDXL-Turbo."""
    diffusers, _ = libraries()
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=80,
        cross_attention_dim=64,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        sample_size=32,
    )
    made = diffusers.StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=clip_text(),
        text_encoder_2=clip_text(hidden_act="gelu"),
        tokenizer=clip_tokenizer(folder / "made"),
        tokenizer_2=clip_tokenizer(folder / "made"),
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(),
    )
    return _saved(made, folder / "sdxl")


def flux(folder: Path) -> Path:
    """FLUX.1."""
    diffusers, _ = libraries()
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=[4, 4, 8],
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8,),
        norm_num_groups=4,
        latent_channels=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.06,
        scaling_factor=1.5,
    )
    encoder, tokenizer = t5(folder / "made", "T5")
    made = diffusers.FluxPipeline(
        vae=vae,
        text_encoder=clip_text(),
        text_encoder_2=encoder,
        tokenizer=clip_tokenizer(folder / "made"),
        tokenizer_2=tokenizer,
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )
    return _saved(made, folder / "flux")


def wan(folder: Path) -> Path:
    """Wan 2.1, text to video."""
    diffusers, _ = libraries()
    transformer = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=WIDTH,
        freq_dim=256,
        ffn_dim=32,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )
    vae = diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )  # fmt: skip
    encoder, tokenizer = t5(folder / "made", "UMT5")
    made = diffusers.WanPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=transformer,
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )
    return _saved(made, folder / "wan")


def _saved(pipeline: Any, folder: Path) -> Path:
    pipeline.save_pretrained(str(folder), safe_serialization=True)
    return folder
