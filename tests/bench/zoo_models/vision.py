"""torchvision's classification, segmentation and video networks, and timm's, at small sizes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import networks
import numpy as np
import torch
from torch import nn

from zoo_models.case import REFERENCES, SAMPLES, Inputs

__all__ = ["make_timm", "make_torchvision", "settle", "timm_models", "torchvision_models"]

# The smallest of each architecture; the size is the least that it takes or makes sense at.
CLASSIFICATION = {
    "alexnet": 224, "convnext_tiny": 64, "densenet121": 64, "efficientnet_b0": 64, "efficientnet_v2_s": 64,
    "googlenet": 64, "inception_v3": 96, "maxvit_t": 224, "mnasnet0_5": 64, "mobilenet_v2": 64,
    "mobilenet_v3_large": 64, "mobilenet_v3_small": 64, "regnet_x_400mf": 64, "regnet_y_400mf": 64,
    "resnet18": 64, "resnet50": 64, "resnext50_32x4d": 64, "shufflenet_v2_x0_5": 64, "squeezenet1_0": 64,
    "squeezenet1_1": 64, "swin_t": 64, "swin_v2_t": 64, "vgg11": 224, "vgg11_bn": 224, "vit_b_16": 32,
    "wide_resnet50_2": 64,
}  # fmt: skip
SEGMENTATION = {
    "deeplabv3_mobilenet_v3_large": 64, "deeplabv3_resnet50": 64, "fcn_resnet50": 64,
    "lraspp_mobilenet_v3_large": 64,
}  # fmt: skip
# frames and size
VIDEO = {
    "mc3_18": (4, 32), "mvit_v1_b": (16, 112), "mvit_v2_s": (16, 112), "r2plus1d_18": (4, 32),
    "r3d_18": (4, 32), "s3d": (16, 224), "swin3d_t": (4, 64),
}  # fmt: skip
TIMM = {
    "beit_base_patch16_224": 224, "botnet26t_256": 256, "cait_xxs24_224": 224, "coat_lite_tiny": 224,
    "coatnet_nano_rw_224": 224, "convit_tiny": 224, "convmixer_768_32": 64, "convnextv2_atto": 64,
    "crossvit_tiny_240": 240, "cspresnet50": 64, "darknet53": 64, "davit_tiny": 64,
    "deit_tiny_distilled_patch16_224": 224, "dla34": 64, "dpn48b": 64, "edgenext_xx_small": 64,
    "efficientformer_l1": 224, "efficientformerv2_s0": 224, "efficientvit_b0": 64, "efficientvit_m0": 224,
    "eva02_tiny_patch14_224": 224, "fasternet_t0": 64, "fastvit_t8": 64, "focalnet_tiny_srf": 64,
    "gcvit_xxtiny": 224, "gernet_s": 64, "ghostnet_100": 64, "gmlp_s16_224": 224, "halonet26t": 256,
    "hgnet_tiny": 64, "hiera_tiny_224": 224, "hrnet_w18_small": 64, "inception_next_atto": 64,
    "inception_resnet_v2": 96, "inception_v4": 96, "lambda_resnet26t": 256, "lcnet_050": 64,
    "legacy_seresnet18": 64, "levit_128s": 224, "mambaout_femto": 64, "maxvit_nano_rw_256": 256,
    "mixer_s32_224": 224, "mixnet_s": 64, "mobilenetv4_conv_small": 64, "mobileone_s0": 64,
    "mobilevit_xxs": 64, "mobilevitv2_050": 64, "mvitv2_tiny": 224, "nasnetalarge": 96, "nest_tiny": 224,
    "nf_regnet_b0": 64, "nfnet_l0": 64, "pit_ti_224": 224, "poolformer_s12": 64, "pvt_v2_b0": 64,
    "regnetz_b16": 64, "repghostnet_050": 64, "repvgg_a0": 64, "repvit_m0_9": 64, "res2net50_14w_8s": 64,
    "resmlp_12_224": 224, "resnest14d": 64, "resnetv2_50": 64, "rexnet_100": 64, "selecsls42": 64,
    "sequencer2d_s": 224, "seresnet50": 64, "skresnet18": 64, "starnet_s1": 64, "swiftformer_xs": 224,
    "swin_s3_tiny_224": 224, "swinv2_cr_tiny_ns_224": 224, "tf_efficientnetv2_b0": 64, "tiny_vit_5m_224": 224,
    "tnt_s_legacy_patch16_224": 224, "tresnet_m": 64, "twins_pcpvt_small": 224, "twins_svt_small": 224,
    "visformer_tiny": 224, "vit_relpos_small_patch16_224": 224, "vit_tiny_patch16_224": 224,
    "vitamin_small_224": 224, "volo_d1_224": 224, "vovnet39a": 64, "xception41": 64,
    "xcit_nano_12_p16_224": 224,
}  # fmt: skip

LAYER_SCALE = 0.1


def settle(model: nn.Module, inputs: Inputs) -> tuple[nn.Module, Inputs]:
    """The model with statistics of its batch norms, and outputs of spread 1, over noise."""
    model = model.eval()
    with torch.no_grad():
        for scale in model.parameters():
            # a branch's scale that training starts at nearly 0: f would hardly depend on the image
            if scale.ndim == 1 and 0 < scale.max() == scale.min() <= LAYER_SCALE:
                scale.fill_(LAYER_SCALE)
    arrays = [np.concatenate([inputs.samples[n], a]) for n, a in inputs.references.items()]
    if len(inputs.samples) == 1:
        networks.calibrate(model, [torch.from_numpy(arrays[0])])
    samples = [torch.from_numpy(a) for a in inputs.samples.values()]
    with torch.no_grad():
        outputs = model(*samples)
        spread, classes = float(outputs.std(0).mean()), outputs.shape[1]
        last = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == classes]
        if last and spread == 0:  # a head whose training starts at 0
            nn.init.xavier_uniform_(last[-1].weight)
            spread = float(model(*samples).std(0).mean())
        if last and spread > 0:
            for parameter in last[-1].parameters():
                parameter.div_(spread)
    return model, inputs


class First(nn.Module):
    """A network's main output where it gives several by name."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> Any:
        return self.model(image)["out"]


def _images(shape: tuple[int, ...]) -> Inputs:
    """Random images with structure at two scales: averages erase plain noise."""
    rows = SAMPLES + REFERENCES
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(rows, *shape[:-2], 4, 4, generator=generator)
    flat = nn.functional.interpolate(coarse.flatten(0, -4), size=shape[-2:], mode="nearest")
    total = (flat.reshape(rows, *shape) + torch.randn(rows, *shape, generator=generator)).numpy()
    return Inputs({"image": total[:SAMPLES]}, {"image": total[SAMPLES:]}, {})


def torchvision_models() -> dict[str, bool]:
    return dict.fromkeys([*CLASSIFICATION, *SEGMENTATION, *VIDEO], False)


def make_torchvision(name: str) -> tuple[nn.Module, Inputs]:
    import torchvision

    options: dict[str, Any] = {"weights": None}
    if name in VIDEO:
        frames, size = VIDEO[name]
        with _of_size(frames, size):
            return settle(torchvision.models.get_model(name, **options), _images((3, frames, size, size)))
    if name in SEGMENTATION:
        options["weights_backbone"] = None
        size = SEGMENTATION[name]
        model = torchvision.models.get_model(name, num_classes=5, **options)
        return settle(First(model), _images((3, size, size)))
    size = CLASSIFICATION[name]
    if name == "vit_b_16":
        options["image_size"] = size
    if name in ("googlenet", "inception_v3"):
        options |= {"init_weights": True, "aux_logits": False}
    return settle(torchvision.models.get_model(name, **options), _images((3, size, size)))


@contextlib.contextmanager
def _of_size(frames: int, size: int) -> Iterator[None]:
    """Builders make MViT of this size, for which they take no argument."""
    from torchvision.models.video import mvit

    whole, sizes = mvit.MViT, {"temporal_size": frames, "spatial_size": (size, size)}
    with mock.patch.object(mvit, "MViT", lambda **given: whole(**{**given, **sizes})):
        yield


def timm_models() -> dict[str, bool]:
    return dict.fromkeys(TIMM, False)


def make_timm(name: str) -> tuple[nn.Module, Inputs]:
    import timm

    size = TIMM[name]
    return settle(timm.create_model(name, pretrained=False, num_classes=10), _images((3, size, size)))
