"""What families of transformers need besides small numbers, so that a tiny configuration of theirs runs."""

from __future__ import annotations

from typing import Any

__all__ = ["FAMILIES", "LEFT_OUT"]

LEFT_OUT: dict[str, str] = {
    "layoutlmv2": "needs detectron2",
    "timm_wrapper": "the suite timm",
    "gpt-sw3": "gpt2 by another name",
    "dinat": "needs natten",
    "siglip2": "takes patches that its own preprocessing packs",
    **dict.fromkeys(
        ("gemma3", "modernvbert", "qwen3_5", "shieldgemma2", "t5gemma2", "ultravbert"),
        "of text and images: as a classifier it is its text part, which has a family of its own",
    ),
}

_WAVE: dict[str, Any] = {
    "conv_dim": (32, 32, 32), "conv_stride": (4, 4, 4), "conv_kernel": (8, 8, 8),
    "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 32, "mask_time_prob": 0.0, "mask_feature_prob": 0.0,
    "apply_spec_augment": False,
}  # fmt: skip

_SWIN: dict[str, Any] = {
    "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4, "patch_size": 4,
}  # fmt: skip
_LATENT: dict[str, Any] = {"num_key_value_heads": 4}
_EXPERTS: dict[str, Any] = {"n_group": 2, "topk_group": 1, "first_k_dense_replace": 1}

FAMILIES: dict[str, dict[str, Any]] = {
    "axk1": _LATENT | _EXPERTS,
    "axk2": _LATENT | _EXPERTS,
    "deepseek_v2": _LATENT | _EXPERTS | {"num_experts_per_tok": 2},
    "deepseek_v3": _LATENT | _EXPERTS,
    "mistral4": _LATENT
    | _EXPERTS
    | {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
            "llama_4_scaling_beta": 0.1,
            "original_max_position_embeddings": 64,
        },
        "head_dim": 8,
        "qk_head_dim": 16,
    },
    "minicpm3": _LATENT,
    "esm": {"vocab_size": 64},
    "esmc": {"num_key_value_heads": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    "gptj": {"rotary_dim": 4},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "ministral": {"head_dim": 8},
    "xmod": {"default_language": "en_XX"},
    "layoutlmv3": {"coordinate_size": 6, "shape_size": 4, "visual_embed": False},
    "cohere_compass_text": {
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0}
            for kind in ("full_attention", "sliding_attention")
        }
    },
    "zamba": {"num_hidden_layers": 4, "layer_types": ["linear_attention", "hybrid"] * 2},
    "zamba2": {"num_hidden_layers": 4, "layer_types": ["linear_attention", "hybrid"] * 2},
    "lilt": {"hidden_size": 48},
    "longformer": {"attention_window": 4},
    "reformer": {
        "axial_pos_embds": False,
        "attn_layers": ["local", "lsh"],
        "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4,
        "num_buckets": 2,
        "is_decoder": False,
    },
    "squeezebert": {"embedding_size": 32},
    "t5": {"decoder_start_token_id": 0},
    "mt5": {"decoder_start_token_id": 0},
    "umt5": {"decoder_start_token_id": 0},
    "audio-spectrogram-transformer": {
        "max_length": 32,
        "num_mel_bins": 16,
        "patch_size": 8,
        "time_stride": 8,
        "frequency_stride": 8,
    },
    "whisper": {"num_mel_bins": 16, "max_source_positions": 16},
    "bit": {"embedding_size": 32, "hidden_sizes": [32, 64], "depths": [1, 1], "num_groups": 8},
    "convnext": {"image_size": 64, "patch_size": 4},
    "convnextv2": {"image_size": 64, "patch_size": 4},
    "donut-swin": _SWIN,
    "swin": _SWIN,
    "swinv2": _SWIN,
    "efficientnet": {
        "image_size": 64,
        "hidden_dim": 1280,
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
    },
    "levit": {"patch_size": 16, "image_size": 64, "hidden_sizes": [32, 48, 64]},
    "mobilevit": {"patch_size": 2, "image_size": 64},
    "mobilevitv2": {"patch_size": 2, "image_size": 64},
    "timesformer": {"num_frames": 4},
    "videomae": {"num_frames": 4},
    "vivit": {"num_frames": 4, "tubelet_size": [2, 8, 8]},
    "vjepa2": {"crop_size": 32, "frames_per_clip": 4},
    "videoprism_vision_model": {"num_frames": 4},
    "hubert": _WAVE,
    "wav2vec2": _WAVE,
    "wavlm": _WAVE,
    "unispeech": _WAVE,
    "unispeech-sat": _WAVE,
    "data2vec-audio": _WAVE,
    "sew": _WAVE,
    "sew-d": _WAVE,
    "wav2vec2-conformer": _WAVE,
}
