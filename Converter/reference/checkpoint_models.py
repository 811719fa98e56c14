"""The random-weight models of a checkpoint set, built with the classes that wrote the released files."""
import json
import os
from dataclasses import dataclass

import torch

import tokenizer_files

NORM_GROUPS = 32
LORA_RANK = 4
ATTENTION_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out")
#: The decoder's attention: (name in newer files, name in the released SD 1.4 files).
VAE_ATTENTION_NAMES = (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn"))
VAE_ATTENTION_PREFIX = "mid_block.attentions.0."
POSITION_IDS = "text_model.embeddings.position_ids"


@dataclass(frozen=True)
class Size:
    """Widths of every model of one checkpoint set."""

    unet: tuple  # channels per block
    heads: int  # of the UNet's first block
    context: int  # width of the text encoder's states, hence of the audio token
    unet_layers: int  # resnets per down block
    vae: tuple  # channels per block
    vae_layers: int
    text: tuple  # width, heads, layers, feed-forward width
    beats: tuple  # patch width, width, layers, heads, feed-forward width
    latent: int  # native side of the latents
    mid_block: bool = True
    last_block_attends: bool = False  # pruned relatives that lose the innermost block keep attention in all others


SIZES = {
    "tiny": Size((32, 64, 64, 64), 4, 64, 1, (32, 32, 64, 64), 1, (64, 4, 2, 256), (48, 64, 12, 4, 128), 16),
    "tiny-pruned": Size(
        (32, 64, 64), 4, 64, 2, (32, 32, 64, 64), 2, (64, 4, 2, 256), (48, 64, 12, 4, 128), 16, False, True
    ),
    "small": Size((64, 128, 192, 192), 4, 96, 2, (32, 64, 96, 96), 2, (96, 6, 4, 384), (64, 96, 12, 6, 192), 32),
    "sd14": Size(
        (320, 640, 1280, 1280), 8, 768, 2, (128, 256, 512, 512), 2, (768, 12, 12, 3072), (512, 768, 12, 12, 3072), 64
    ),
}


def make_unet(size, sd2):
    from diffusers import UNet2DConditionModel

    blocks = len(size.unet)
    attending = blocks if size.last_block_attends else blocks - 1
    plain = blocks - attending
    heads = [max(1, channels // (size.unet[0] // size.heads)) for channels in size.unet] if sd2 else size.heads
    pruned = {} if size.mid_block else {"mid_block_type": None}
    return UNet2DConditionModel(
        sample_size=size.latent,
        block_out_channels=size.unet,
        down_block_types=("CrossAttnDownBlock2D",) * attending + ("DownBlock2D",) * plain,
        up_block_types=("UpBlock2D",) * plain + ("CrossAttnUpBlock2D",) * attending,
        layers_per_block=size.unet_layers,
        cross_attention_dim=size.context,
        attention_head_dim=heads,
        norm_num_groups=NORM_GROUPS,
        use_linear_projection=sd2,
        **pruned,
    )


def make_vae(size):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=size.vae,
        layers_per_block=size.vae_layers,
        latent_channels=4,
        norm_num_groups=NORM_GROUPS,
        sample_size=size.latent * 8,
    )


def make_text_encoder(size, sd2):
    from transformers import CLIPTextConfig, CLIPTextModel

    width, heads, layers, feed_forward = size.text
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=width,
            num_attention_heads=heads,
            num_hidden_layers=layers,
            intermediate_size=feed_forward,
            max_position_embeddings=77,
            hidden_act="gelu" if sd2 else "quick_gelu",
            projection_dim=width,
            bos_token_id=49406,
            eos_token_id=49407,
        )
    )


def make_scheduler(sd2):
    from diffusers import DDIMScheduler, PNDMScheduler

    shared = dict(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, set_alpha_to_one=False
    )
    if sd2:
        return DDIMScheduler(**shared, prediction_type="v_prediction", clip_sample=False)
    return PNDMScheduler(**shared, skip_prk_steps=True)


def beats_cfg(size):
    patch_width, width, layers, heads, feed_forward = size.beats
    return dict(
        input_patch_size=16,
        embed_dim=patch_width,
        conv_bias=False,
        encoder_layers=layers,
        encoder_embed_dim=width,
        encoder_ffn_embed_dim=feed_forward,
        encoder_attention_heads=heads,
        activation_fn="gelu",
        layer_norm_first=False,
        deep_norm=True,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        encoder_layerdrop=0.05,
        dropout_input=0.0,
        conv_pos=128,
        conv_pos_groups=16,
        relative_position_embedding=True,
        num_buckets=320,
        max_distance=800,
        gru_rel_pos=True,
        finetuned_model=True,
        predictor_dropout=0.0,
        predictor_class=527,
        layer_wise_gradient_decay_ratio=0.6,
    )


def attention_projections(unet):
    """(name in a LoRA file, linear) for every attention projection of the UNet."""
    for name, module in unet.named_modules():
        if name.endswith(("attn1", "attn2")):
            for projection in ATTENTION_PROJECTIONS:
                linear = module.to_out[0] if projection == "to_out" else getattr(module, projection)
                yield f"{name}.processor.{projection}_lora", linear


def make_lora(unet):
    """A LoRA on every attention projection, under the names of diffusers' attention processors."""
    lora = {}
    for name, linear in attention_projections(unet):
        outputs, inputs = linear.weight.shape
        lora[f"{name}.down.weight"] = torch.randn(LORA_RANK, inputs) / 4
        lora[f"{name}.up.weight"] = torch.randn(outputs, LORA_RANK) * 0.05
    return lora


def fold_lora(unet, lora):
    for name, linear in attention_projections(unet):
        linear.weight.data += lora[f"{name}.up.weight"] @ lora[f"{name}.down.weight"]


def hub_text_encoder(tensors):
    """The text encoder's tensors under the names that released files use."""
    prefix = "text_model."
    renamed = {name if name.startswith(prefix) else prefix + name: tensor for name, tensor in tensors.items()}
    renamed[POSITION_IDS] = torch.arange(77).unsqueeze(0)
    return renamed


def hub_vae_name(name):
    """The released SD 1.4 files' name of a VAE tensor."""
    for new, old in VAE_ATTENTION_NAMES:
        name = name.replace(f"{VAE_ATTENTION_PREFIX}{new}.", f"{VAE_ATTENTION_PREFIX}{old}.")
    return name


def model_index_text(sd2):
    return json.dumps(
        {
            "_class_name": "StableDiffusionPipeline",
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "scheduler": ["diffusers", "DDIMScheduler" if sd2 else "PNDMScheduler"],
        }
    )


def state_all_settings(path):
    """States, as the released SD 1.x and SD 2.x files do, the settings that only the other of the two samplers reads.
    Without them diffusers' DDIM clips the predicted picture and its PNDM begins with Runge-Kutta steps."""
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config | {"clip_sample": False, "skip_prk_steps": True}, file, indent=2, sort_keys=True)


def save_pipeline_files(folder, sd2, merges):
    """Writes what a diffusers folder holds beside its models: scheduler, tokenizer, model_index.json."""
    make_scheduler(sd2).save_pretrained(os.path.join(folder, "scheduler"))
    state_all_settings(os.path.join(folder, "scheduler", "scheduler_config.json"))
    tokenizer_files.write(os.path.join(folder, "tokenizer"), merges, "!" if sd2 else "<|endoftext|>")
    with open(os.path.join(folder, "model_index.json"), "w", encoding="utf-8") as file:
        file.write(model_index_text(sd2))
