"""Writes the files that the checkpoint tests read, beside this script.

Needs torch, numpy, safetensors, diffusers and transformers; verified with torch 2.13 and diffusers 0.42.
  *.pt, *.ckpt, *.safetensors, sharded/   small checkpoints as users hold them, and files that must be refused
  expected.json                           what PyTorch reads from the good ones
  ldm_sd1.json, ldm_sd2.json              tensor names of the original latent diffusion code, with the names that
                                          diffusers' own converter gives them and the configurations of its models
"""
import argparse
import collections
import io
import json
import os
import sys
import types
import zipfile

import numpy
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

HERE = os.path.dirname(os.path.abspath(__file__))
EXPECTED = {}


def path(name):
    full = os.path.join(HERE, name)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    return full


def expect(name, tensors):
    EXPECTED[name] = {
        key: {"shape": list(value.shape), "values": value.detach().double().flatten().tolist()}
        for key, value in tensors.items()
    }


def save(name, value, **options):
    torch.save(value, path(name), **options)


def rezip(source, name, method=zipfile.ZIP_STORED, replace={}):
    """The archive `source` written again by Python's zipfile."""
    with zipfile.ZipFile(path(source)) as old, zipfile.ZipFile(path(name), "w", method) as new:
        for entry in old.infolist():
            data = replace.get(entry.filename.split("/")[-1], old.read(entry))
            new.writestr(zipfile.ZipInfo(entry.filename), data, method)


# Values of every type, with the extremes of the half formats.
HALVES = torch.tensor([0.0, -0.0, 1.0, -2.5, 6e-8, -6e-5, 65504.0, 0.333251953125])


def plain_tensors():
    counting = torch.arange(24, dtype=torch.float32)
    return {
        "float32": counting.reshape(2, 3, 4) / 7,
        "float16": HALVES.half(),
        "bfloat16": torch.tensor([0.0, 1.0, -3.140625, 1e-38, 3e38, 1e-40]).bfloat16(),
        "float64": torch.tensor([0.1, -1e30, 3.0], dtype=torch.float64),
        "int64": torch.tensor([0, -5, 1 << 40]),
        "int32": torch.tensor([[7], [-8]], dtype=torch.int32),
        "int16": torch.tensor([-32768, 300], dtype=torch.int16),
        "int8": torch.tensor([-128, 127, 0], dtype=torch.int8),
        "uint8": torch.tensor([0, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
    }


def expect_as_float(name, tensors):
    expect(name, {key: value.float() for key, value in tensors.items()})


def views():
    counting = torch.arange(60, dtype=torch.float32)
    return {
        "transposed": counting[:12].reshape(3, 4).t(),
        "permuted": counting.reshape(3, 4, 5).permute(2, 0, 1),
        "sliced": counting.reshape(6, 10)[1:5, 2:9:3],
        "half_transposed": counting[:15].half().reshape(5, 3).t(),
        "channels_last": counting[:48].reshape(2, 2, 3, 4).contiguous(memory_format=torch.channels_last),
        "shared_head": counting[:6],
        "shared_tail": counting[54:],
        "parameter": torch.nn.Parameter(counting[:4].reshape(2, 2).clone()),
    }


class Evil:
    """Would create a file named `executed` in the current folder if anything ran it."""

    def __reduce__(self):
        return (os.system, ("touch executed",))


def good_checkpoints():
    plain = plain_tensors()
    save("plain.pt", {**plain, "step": 12, "note": "text"})
    expect_as_float("plain.pt", plain)
    save_file(plain, path("plain.safetensors"), {"format": "pt"})
    expect_as_float("plain.safetensors", plain)
    save("views.pt", views())
    expect_as_float("views.pt", views())
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    for protocol in (2, 3, 4, 5):
        name = f"protocol{protocol}.bin"
        save(name, module.state_dict(), pickle_protocol=protocol)
        expect_as_float(name, module.state_dict())
    save("beats.pt", {
        "cfg": {"encoder_layers": 12, "deep_norm": True, "layer_norm_first": False, "dropout": 0.0, "conv_pos": 128,
                "activation_fn": "gelu", "missing": None, "sizes": [1, 2], "negative": -7, "wide": 1 << 40},
        "model": collections.OrderedDict(module.state_dict()),
    })
    expect_as_float("beats.pt", module.state_dict())
    split = plain_tensors()
    first, second = {"float32": split["float32"]}, {"float16": split["float16"], "int64": split["int64"]}
    for number, shard in enumerate((first, second), 1):
        save_file(shard, path(f"sharded/model-{number:05}-of-00002.safetensors"))
    files = {key: f"model-{number:05}-of-00002.safetensors" for number, shard in enumerate((first, second), 1)
             for key in shard}
    with open(path("sharded/model.safetensors.index.json"), "w") as index:
        json.dump({"metadata": {"total_size": 136}, "weight_map": files}, index)
    expect_as_float("sharded", {**first, **second})
    zipfile.ZIP64_LIMIT, limits = 16, (zipfile.ZIP64_LIMIT, zipfile.ZIP_FILECOUNT_LIMIT)
    zipfile.ZIP_FILECOUNT_LIMIT = 1
    rezip("protocol2.bin", "zip64.bin")
    zipfile.ZIP64_LIMIT, zipfile.ZIP_FILECOUNT_LIMIT = limits
    EXPECTED["zip64.bin"] = EXPECTED["protocol2.bin"]


def lightning_checkpoint():
    """A trainer's file: classes that we do not have, sets, numpy and namespaces beside the state dictionary."""
    package = types.ModuleType("pytorch_lightning")
    callbacks = types.ModuleType("pytorch_lightning.callbacks")
    ModelCheckpoint = type("ModelCheckpoint", (dict,), {"__module__": "pytorch_lightning.callbacks"})
    callbacks.ModelCheckpoint = ModelCheckpoint
    sys.modules.update({"pytorch_lightning": package, "pytorch_lightning.callbacks": callbacks})
    weights = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([0.5, -1.0])}
    save("lightning.ckpt", {
        "epoch": 3, "global_step": 1 << 80, "pytorch-lightning_version": "1.4.2", "state_dict": weights,
        "callbacks": {ModelCheckpoint: ModelCheckpoint(best=numpy.float64(0.5), path=b"a/b")},
        "hyper_parameters": argparse.Namespace(rate=1e-4, tags={"a", "b"}), "frozen": frozenset((1,)),
        "dtype": torch.float16, "device": torch.device("cpu"),
    }, pickle_protocol=4)
    expect_as_float("lightning.ckpt", weights)


def refused_checkpoints():
    weights = {"weight": torch.ones(2)}
    save("evil_entry.pt", {**weights, "extra": Evil()})
    save("evil_root.pt", Evil())
    save("evil_beside.ckpt", {"state_dict": weights, "extra": Evil()})
    save("evil_inside.ckpt", {"state_dict": {**weights, "extra": Evil()}})
    save("evil_settings.pt", {"cfg": {"layers": Evil()}, "model": weights})
    save("module.pt", torch.nn.Linear(2, 1))
    save("complex.pt", {"weight": torch.ones(2, dtype=torch.complex64)})
    save("expanded.pt", {"weight": torch.ones(1).expand(1000)})
    save("legacy.pt", weights, _use_new_zipfile_serialization=False)
    rezip("protocol2.bin", "compressed.pt", zipfile.ZIP_DEFLATED)
    rezip("protocol2.bin", "big_endian.pt", replace={"byteorder": b"big"})
    with zipfile.ZipFile(path("no_torch.zip"), "w") as archive:
        archive.writestr("readme.txt", "not a checkpoint")


# The original names, from the layout of the original code: diffusers name -> original name.

RESIDUAL = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
            "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
UNET_ENDS = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
             "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}


def original_unet_name(name, layers, attention_blocks):
    module, kind = name.rsplit(".", 1)
    if module in UNET_ENDS:
        return f"{UNET_ENDS[module]}.{kind}"
    parts = name.split(".")
    if parts[0] == "mid_block":
        slot = {"resnets0": "0", "attentions0": "1", "resnets1": "2"}[parts[1] + parts[2]]
        rest = parts[3:]
        rest = RESIDUAL[rest[0]].split(".") + rest[1:] if parts[1] == "resnets" else rest
        return ".".join(["middle_block", slot] + rest)
    block, group, layer, rest = int(parts[1]), parts[2], int(parts[3]), parts[4:]
    if group == "resnets":
        rest = RESIDUAL[rest[0]].split(".") + rest[1:]
    if parts[0] == "down_blocks":
        start = block * (layers + 1) + 1
        if group == "downsamplers":
            return f"input_blocks.{start + layers}.0.op.{kind}"
        return ".".join([f"input_blocks.{start + layer}", "0" if group == "resnets" else "1"] + rest)
    start = block * (layers + 1)
    if group == "upsamplers":
        return f"output_blocks.{start + layers}.{2 if block in attention_blocks else 1}.conv.{kind}"
    return ".".join([f"output_blocks.{start + layer}", "0" if group == "resnets" else "1"] + rest)


def original_vae_name(name, levels):
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    name = name.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
    if "mid_block.attentions.0" in name:
        name = name.replace("mid_block.attentions.0", "mid.attn_1")
        for new, old in (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
            name = name.replace(f"attn_1.{new}.", f"attn_1.{old}.")
    if ".up_blocks." in name:
        parts = name.split(".")
        level = levels - 1 - int(parts[2])
        inner = ["upsample"] + parts[5:] if parts[3] == "upsamplers" else ["block"] + parts[4:]
        name = ".".join(["decoder", "up", str(level)] + inner)
    return name


def unet_rows(config):
    with torch.device("meta"):
        model = UNet2DConditionModel(**config)
    layers = config["layers_per_block"]
    attention = {i for i, kind in enumerate(model.config.up_block_types) if kind.startswith("CrossAttn")}
    original = {"model.diffusion_model." + original_unet_name(name, layers, attention): value
                for name, value in model.state_dict().items()}
    converted = convert_ldm_unet_checkpoint(original, model.config)
    check(converted, model.state_dict())
    return model.config, original, converted


def vae_rows(config):
    with torch.device("meta"):
        model = AutoencoderKL(**config)
    state = {k: v for k, v in model.state_dict().items() if k.startswith(("decoder.", "post_quant_conv."))}
    original = {}
    for name, value in state.items():
        if ".attentions." in name and value.dim() == 2:
            value = value[:, :, None, None]
        original["first_stage_model." + original_vae_name(name, len(config["block_out_channels"]))] = value
    converted = convert_ldm_vae_checkpoint(original, model.config)
    check(converted, state)
    return model.config, original, converted


def check(converted, state):
    """diffusers' converter must accept the original names made here and give back its own."""
    assert set(converted) == set(state), set(converted) ^ set(state)
    assert all(converted[key].shape == state[key].shape for key in state)


def text_config(hidden, layers, act):
    return CLIPTextConfig(vocab_size=80, hidden_size=hidden, num_attention_heads=hidden // 64, intermediate_size=160,
                          num_hidden_layers=layers, max_position_embeddings=77, hidden_act=act)


def clip_rows(layers):
    config = text_config(128, layers, "quick_gelu")
    with torch.device("meta"):
        state = CLIPTextModel(config).state_dict()
    names = {k if k.startswith("text_model.") else "text_model." + k: v for k, v in state.items()}
    return config, {"cond_stage_model.transformer." + k: v for k, v in names.items()}, names


def open_clip_rows(layers):
    """open_clip has one layer more than is used; diffusers' converter skips it by the number that full models have."""
    config = text_config(64, layers, "gelu")
    width, hidden = config.hidden_size, config.intermediate_size
    prefix = "cond_stage_model.model."
    shapes = {"positional_embedding": (77, width), "token_embedding.weight": (80, width), "ln_final.weight": (width,),
              "ln_final.bias": (width,), "text_projection": (width, width)}
    for layer in range(layers):
        block = f"transformer.resblocks.{layer}."
        shapes.update({
            block + "attn.in_proj_weight": (3 * width, width), block + "attn.in_proj_bias": (3 * width,),
            block + "attn.out_proj.weight": (width, width), block + "attn.out_proj.bias": (width,),
            block + "mlp.c_fc.weight": (hidden, width), block + "mlp.c_fc.bias": (hidden,),
            block + "mlp.c_proj.weight": (width, hidden), block + "mlp.c_proj.bias": (width,)})
        shapes.update({f"{block}ln_{i}.{kind}": (width,) for i in (1, 2) for kind in ("weight", "bias")})
    # Values rise by one from element to element, so that a converted slice tells where it begins.
    used = {prefix + k: torch.arange(float(torch.Size(s).numel())).reshape(s) for k, s in shapes.items()}
    converted = convert_open_clip_checkpoint(types.SimpleNamespace(config=config), used, prefix)
    last = {k.replace(f"resblocks.{layers - 1}.", f"resblocks.{layers}."): v.clone() for k, v in used.items()
            if f"resblocks.{layers - 1}." in k}
    return config, {**used, **last, prefix + "logit_scale": torch.zeros(())}, converted


def write_names(name, components, extra):
    """rows: [original name, shape, component, [new name], ...], where a new name is followed by the first element and
    the shape if it is not simply the original tensor; configs: component -> what its class was made with."""
    rows, configs = [[key, shape, ""] for key, shape in extra.items()], {}
    for component, (config, original, converted) in components.items():
        values = config.to_dict() if component == "text_encoder" else config
        configs[component] = {key: value for key, value in values.items() if not key.startswith("_")}
        identity = {id(value): key for key, value in original.items()}
        targets = collections.defaultdict(list)
        for key, value in converted.items():
            if id(value) in identity:
                targets[identity[id(value)]].append([key])
            else:
                first = int(value.flatten()[0]) if component == "text_encoder" else 0
                targets[source_of(key, original, component)].append([key, first, list(value.shape)])
        rows += [[key, list(value.shape), component] + targets[key] for key, value in original.items()]
    with open(path(name), "w") as out:
        json.dump({"configs": configs, "rows": rows}, out, separators=(",", ":"))


def source_of(key, original, component):
    """The original of a tensor that the converter cut out of another: VAE projections and text in_proj parts."""
    if component == "vae":
        return "first_stage_model." + original_vae_name(key, 0)
    layer, kind = key.split(".")[3], key.split(".")[-1]
    return f"cond_stage_model.model.transformer.resblocks.{layer}.attn.in_proj_{kind}"


def original_name_tables():
    vae = dict(down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
               block_out_channels=(32, 32, 64, 96), layers_per_block=2, latent_channels=4)
    write_names("ldm_sd1.json", {
        "unet": unet_rows(dict(block_out_channels=(32, 64, 96, 96), layers_per_block=2, cross_attention_dim=128,
                               attention_head_dim=8, sample_size=64)),
        "vae": vae_rows(vae), "text_encoder": clip_rows(3),
    }, {"first_stage_model.encoder.conv_in.weight": [32, 3, 3, 3], "model_ema.decay": [], "alphas_cumprod": [1000]})
    small = dict(vae, down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
                 block_out_channels=(32, 64), layers_per_block=1)
    write_names("ldm_sd2.json", {
        "unet": unet_rows(dict(
            block_out_channels=(64, 128), layers_per_block=1, cross_attention_dim=64, attention_head_dim=(1, 2),
            use_linear_projection=True, sample_size=96, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))),
        "vae": vae_rows(small), "text_encoder": open_clip_rows(2),
    }, {"first_stage_model.quant_conv.weight": [8, 8, 1, 1], "betas": [1000]})


def main():
    good_checkpoints()
    lightning_checkpoint()
    refused_checkpoints()
    original_name_tables()
    with open(path("expected.json"), "w") as out:
        json.dump(EXPECTED, out, separators=(",", ":"))


if __name__ == "__main__":
    main()
