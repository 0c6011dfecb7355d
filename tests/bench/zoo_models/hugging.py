"""transformers' classifiers of every text, vision, video and audio family, tiny and random.

A family's configuration is its default one with every width, depth and count made small, by the name of
the field; FAMILIES has what a family needs besides.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from transformers.models.auto import modeling_auto

from zoo_models.case import REFERENCES, SAMPLES, Inputs, noise
from zoo_models.families import FAMILIES, LEFT_OUT
from zoo_models.vision import settle

__all__ = ["audio", "images", "make_audio", "make_images", "make_text", "make_videos", "text", "videos"]

LENGTH = 8
LABELS = 3
VOCABULARY = 64
FIRST_TOKEN = 10
"""Smaller ids are special: padding, begin, end."""

SMALL: tuple[tuple[str, Any], ...] = (
    # which field, by pattern; the first that fits
    (r"vocab_size|num_hash_buckets", VOCABULARY),
    (r"hidden_size|d_model|n_embd|emb_dim|embed_dim|hidden_dim|d_latents", 32),
    (r"embedding_size|factor_size|projection_dim|bottleneck_size|intra_bottleneck_size", 16),
    (r"moe_intermediate_size|shared_expert_intermediate_size|feed_forward_hidden_size", 32),
    (r".*intermediate_size|dff|d_inner|n_inner|.*ffn_dim|d_ff|feed_forward_size|mlp_dim|ffn_hidden_size", 64),
    (r"num_hidden_layers|n_layers?|num_layers|(en|de)coder_layers|num_(en|de)coder_layers|depth", 2),
    (r"num_attention_heads|n_heads?|num_heads|(en|de)coder_attention_heads", 4),
    (r"num_key_value_heads|num_kv_heads|attention_groups|n_groups|n_mamba_heads", 2),
    (r"(qk_(rope|nope)_|v_|attention_|global_)?head_dim|d_kv|d_head|attention_head_size", 8),
    (r"max_position_embeddings|n_positions|max_seq_len(gth)?|max_sequence_length|n_ctx", 64),
    (r"(q|kv)_lora_rank", 16),
    (r"num_experts|num_local_experts|n_routed_experts|moe_num_experts", 4),
    (r"num_experts_per_tok", 2),
    (r"image_size", 32),
    (r"patch_size", 8),
    (r"initializer_range|init_std|initializer_factor", 0.2),
    (r".*layerdrop|.*dropout.*|drop_path_rate", 0.0),
)


def _small(config: type, extra: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration that differ from its defaults."""
    defaults = config().to_dict()
    found: dict[str, Any] = {}
    for name, value in defaults.items():
        if isinstance(value, (dict, list, tuple, bool)):
            continue
        fit = next((v for pattern, v in SMALL if re.fullmatch(pattern, name)), None)
        if fit is not None and not (value is None and name != "num_key_value_heads"):
            found[name] = type(value)(fit) if isinstance(value, (int, float)) else fit
    if kinds := list(dict.fromkeys(defaults.get("layer_types") or ())):  # a layer of each kind
        found["layer_types"] = kinds * (2 if len(kinds) == 1 else 1)
        found["num_hidden_layers"] = len(found["layer_types"])
    for name, inner in getattr(config, "sub_configs", {}).items():
        if name in defaults and hasattr(inner, "to_dict"):
            found[name] = _small(inner, extra.get(name, {}))
    for name, value in defaults.items():
        if name.endswith("_token_id") and not name.startswith(("image", "video", "audio", "boi", "eoi")):
            place = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}.get(name)
            if place is not None and (not isinstance(value, int) or value >= FIRST_TOKEN):
                found[name] = place
            elif isinstance(value, int) and value >= VOCABULARY:
                found[name] = 3
    return found | {n: v for n, v in extra.items() if n not in found or not isinstance(v, Mapping)}


class Logits(nn.Module):
    """A model of transformers as a function of tensors in order, which gives logits alone."""

    takes_tuple = True

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        outputs = self.model(**dict(zip(self.names, tensors, strict=True)))
        found: torch.Tensor = outputs["logits" if "logits" in outputs else "last_hidden_state"]
        return found


def _classes(kind: str) -> dict[str, str]:
    """The class of each family's classifier; a class that several families share counts once."""
    known = getattr(modeling_auto, f"MODEL_FOR_{kind}_CLASSIFICATION_MAPPING_NAMES")
    found: dict[str, str] = {}
    for family, named in known.items():
        name = named if isinstance(named, str) else named[0]
        if family not in LEFT_OUT and name not in found.values():
            found[family] = name
    return found


def _model(family: str, kind: str) -> tuple[nn.Module, Any]:
    config_class = transformers.CONFIG_MAPPING[family]
    extra = dict(FAMILIES.get(family, {}))
    fields = _small(config_class, extra)
    config = config_class(**fields | {"num_labels": LABELS})
    config.use_cache = False
    config._experts_implementation = "batched_mm"  # the one that can be exported
    found = getattr(transformers, _classes(kind)[family])
    return found(config).float().eval(), config


def _tokens(rows: int, seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(FIRST_TOKEN, VOCABULARY, (rows, LENGTH))


def text() -> dict[str, bool]:
    return dict.fromkeys(_classes("SEQUENCE"), True)


def make_text(family: str) -> tuple[nn.Module, Inputs]:
    """Ids and mask, where the family takes one: samples of several lengths, references of the full one.

    Behind a sample's end its ids aren't the padding id: what a model reads off them (where the text ends)
    is then the same for samples and references, and f of the references under the sample's mask is what
    the original model gives for that mask.
    """
    model, config = _model(family, "SEQUENCE")
    samples = {"input_ids": _tokens(SAMPLES, 1)}
    references = {"input_ids": _tokens(REFERENCES, 2)}
    if config.is_encoder_decoder:  # some are pooled at the token that ends the text
        for array in (*samples.values(), *references.values()):
            array[:, -1] = config.eos_token_id
    lengths = {"input_ids": 1}
    names = inspect.signature(model.forward).parameters
    if "attention_mask" in names:
        mask = np.ones((SAMPLES, LENGTH), np.int64)
        mask[1, LENGTH - 2 :] = 0
        samples["attention_mask"] = mask
        lengths["attention_mask"] = 1
    for name, shape in {"bbox": (LENGTH, 4)}.items():
        if name in names:
            box = np.sort(np.random.default_rng(3).integers(0, 32, (SAMPLES, *shape)), -1)
            samples[name], lengths[name] = box, 1
            references[name] = np.sort(np.random.default_rng(4).integers(0, 32, (REFERENCES, *shape)), -1)
    inputs = Inputs(samples, references, lengths)
    return settle(Logits(model, tuple(samples)), inputs)


def images() -> dict[str, bool]:
    return dict.fromkeys(_classes("IMAGE"), False)


def make_images(family: str) -> tuple[nn.Module, Inputs]:
    model, config = _model(family, "IMAGE")
    vision = getattr(config, "vision_config", config)
    size = getattr(vision, "image_size", None) or 32
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    if family == "imagegpt":
        inputs = Inputs({"input_ids": _tokens(SAMPLES, 1)}, {"input_ids": _tokens(REFERENCES, 2)}, {})
    else:
        inputs = noise("pixel_values", (getattr(vision, "num_channels", 3), height, width))
    return settle(Logits(model, tuple(inputs.samples)), inputs)


def videos() -> dict[str, bool]:
    return dict.fromkeys(_classes("VIDEO"), False)


def make_videos(family: str) -> tuple[nn.Module, Inputs]:
    model, config = _model(family, "VIDEO")
    size = getattr(config, "image_size", None) or config.crop_size
    takes = inspect.signature(model.forward).parameters
    name = "pixel_values_videos" if "pixel_values_videos" in takes else "pixel_values"
    frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", 4)
    inputs = noise(name, (frames, 3, size, size))
    return settle(Logits(model, tuple(inputs.samples)), inputs)


def audio() -> dict[str, bool]:
    fixed = ("audio-spectrogram-transformer", "whisper")
    return {name: name not in fixed for name in _classes("AUDIO")}


def make_audio(family: str) -> tuple[nn.Module, Inputs]:
    model, config = _model(family, "AUDIO")
    if family == "audio-spectrogram-transformer":
        inputs = noise("input_values", (config.max_length, config.num_mel_bins))
    elif family == "whisper":
        inputs = noise("input_features", (config.num_mel_bins, 2 * config.max_source_positions))
    elif family == "wav2vec2-bert":
        inputs = noise("input_features", (12, config.feature_projection_input_dim), 1)
    else:
        inputs = noise("input_values", (400,), 1)
    return settle(Logits(model, tuple(inputs.samples)), inputs)
