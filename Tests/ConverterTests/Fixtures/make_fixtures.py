"""Makes the goldens of ConverterTests from torch, diffusers and transformers.

    TORCHAUDIO_DIR=DIR python make_fixtures.py

Needs what Converter/reference/requirements*.txt list. Every model is built at its published size, all but
BEATs without memory for the weights, and only the names and shapes of its tensors are kept.

  names.json    for each model, its configurations and "name shape" of each tensor of its state dictionaries
  folding.json  a LoRA and a weight norm, folded by torch
"""
import json
import os
import sys

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(HERE, "..", "..", "..", "Converter", "reference"))

SD1_UNET = dict(
    act_fn="silu", attention_head_dim=8, block_out_channels=[320, 640, 1280, 1280], center_input_sample=False,
    cross_attention_dim=768,
    down_block_types=["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    downsample_padding=1, flip_sin_to_cos=True, freq_shift=0, in_channels=4, layers_per_block=2,
    mid_block_scale_factor=1, norm_eps=1e-05, norm_num_groups=32, out_channels=4, sample_size=64,
    up_block_types=["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
)
SD2_UNET = dict(
    SD1_UNET, attention_head_dim=[5, 10, 20, 20], cross_attention_dim=1024, dual_cross_attention=False,
    num_class_embeds=None, only_cross_attention=False, sample_size=96, upcast_attention=True,
    use_linear_projection=True,
)
BK_SDM_SMALL_UNET = dict(SD1_UNET, layers_per_block=1, mid_block_type=None)
BK_SDM_TINY_UNET = dict(
    BK_SDM_SMALL_UNET, block_out_channels=[320, 640, 1280],
    down_block_types=["CrossAttnDownBlock2D"] * 3, up_block_types=["CrossAttnUpBlock2D"] * 3,
)
VAE = dict(
    act_fn="silu", block_out_channels=[128, 256, 512, 512], down_block_types=["DownEncoderBlock2D"] * 4, in_channels=3,
    latent_channels=4, layers_per_block=2, norm_num_groups=32, out_channels=3, sample_size=512,
    up_block_types=["UpDecoderBlock2D"] * 4,
)
SD1_TEXT = dict(
    attention_dropout=0.0, hidden_act="quick_gelu", hidden_size=768, intermediate_size=3072, layer_norm_eps=1e-05,
    max_position_embeddings=77, model_type="clip_text_model", num_attention_heads=12, num_hidden_layers=12,
    vocab_size=49408,
)
SD2_TEXT = dict(
    SD1_TEXT, hidden_act="gelu", hidden_size=1024, intermediate_size=4096, num_attention_heads=16, num_hidden_layers=23,
)
BEATS = dict(
    input_patch_size=16, embed_dim=512, conv_bias=False, encoder_layers=12, encoder_embed_dim=768,
    encoder_ffn_embed_dim=3072, encoder_attention_heads=12, activation_fn="gelu", layer_norm_first=False,
    deep_norm=True, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, encoder_layerdrop=0.05,
    dropout_input=0.0, conv_pos=128, conv_pos_groups=16, relative_position_embedding=True, num_buckets=320,
    max_distance=800, gru_rel_pos=True, finetuned_model=True, predictor_dropout=0.0, predictor_class=527,
    layer_wise_gradient_decay_ratio=0.6,
)


def rows(tensors):
    return [f"{name} {'x'.join(map(str, tensor.shape))}" for name, tensor in tensors.items()]


def unet(config):
    from diffusers import UNet2DConditionModel

    return {"config": config, "tensors": rows(UNet2DConditionModel.from_config(config).state_dict())}


def vae(older_names):
    from diffusers import AutoencoderKL

    tensors = AutoencoderKL.from_config(VAE).state_dict()
    if older_names:
        for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            tensors = {name.replace(f".{new}.", f".{old}."): tensor for name, tensor in tensors.items()}
    return {"config": VAE, "tensors": rows(tensors)}


def text(config, older_names):
    from transformers import CLIPTextConfig, CLIPTextModel

    tensors = CLIPTextModel(CLIPTextConfig(**{k: v for k, v in config.items() if k != "model_type"})).state_dict()
    tensors = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    if older_names:
        tensors = {"text_model." + name: tensor for name, tensor in tensors.items()}
        tensors["text_model.embeddings.position_ids"] = torch.arange(77).unsqueeze(0)
    return {"config": config, "tensors": rows(tensors)}


def beats(older_names):
    import beats_reference

    with torch.device("cpu"):
        tensors = beats_reference.build(BEATS).state_dict()
    if older_names:
        for new, old in (("original0", "weight_g"), ("original1", "weight_v")):
            tensors = {name.replace(f"parametrizations.weight.{new}", old): t for name, t in tensors.items()}
    return {"config": BEATS, "tensors": rows(tensors)}


def projector(width):
    from token_projector import TokenProjector

    return {"config": {}, "tensors": rows(TokenProjector(3 * BEATS["encoder_embed_dim"], width).state_dict())}


def names():
    with torch.device("meta"):
        return [
            {
                "name": "Stable Diffusion 1.4", "unet": unet(SD1_UNET), "vae": vae(True), "text": text(SD1_TEXT, True),
                "beats": beats(True), "projector": projector(768),
            },
            {
                "name": "Stable Diffusion 2.1", "unet": unet(SD2_UNET), "vae": vae(False),
                "text": text(SD2_TEXT, False), "beats": beats(False), "projector": projector(1024),
            },
            {"name": "BK-SDM-Small", "unet": unet(BK_SDM_SMALL_UNET)},
            {"name": "BK-SDM-Tiny", "unet": unet(BK_SDM_TINY_UNET)},
        ]


def folding():
    torch.manual_seed(0)
    weight, up, down = torch.randn(6, 5), torch.randn(6, 2), torch.randn(2, 5)
    folded = weight.double() + up.double() @ down.double()
    convolution = torch.nn.Conv1d(8, 6, 5, groups=2)
    torch.nn.init.normal_(convolution.weight)
    convolution = torch.nn.utils.parametrizations.weight_norm(convolution, dim=2)
    norm = convolution.parametrizations.weight
    with torch.no_grad():
        norm.original0.mul_(torch.rand(1, 1, 5) + 0.5)
    values = {
        "lora": {"weight": weight, "up": up, "down": down, "folded": folded},
        "norm": {"weight": norm.original1, "up": norm.original0, "down": torch.zeros(0), "folded": convolution.weight},
    }
    return {case: {name: t.detach().flatten().tolist() for name, t in row.items()} for case, row in values.items()}


def save(name, value):
    with open(os.path.join(HERE, name), "w") as file:
        json.dump(value, file, indent=0)
        file.write("\n")


if __name__ == "__main__":
    save("names.json", names())
    save("folding.json", folding())
