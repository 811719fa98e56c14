"""Writes the layout of a random checkpoint: names, shapes and ranges taken from really initialised models."""
import argparse
import os
import tempfile
import zlib

import numpy as np
import torch

import beats_reference
import checkpoint_models as models
import layouts
import tokenizer_files
import write_checkpoint
from token_projector import TokenProjector

LAYOUTS = {"tiny": ("tiny", False), "tiny-sd2": ("tiny", True), "tiny-pruned": ("tiny-pruned", False)}
NORM_SPREAD = 0.3  # of norm weights around 1
BIAS_SPREAD = 0.2  # at least, of biases
#: (part of a name, factor on the spread). Initialisation leaves these tensors nearly without effect: attention is all
#: but uniform and positions hardly count, so that a mistake there would hide below the tolerance of a test.
GAINS = (
    ("relative_attention_bias.weight", 120),
    ("grep_linear.weight", 25),
    ("self_attn.v_proj.weight", 3),
    ("self_attn.out_proj.weight", 3),
    ("to_q.weight", 3),
    ("to_k.weight", 3),
    ("query.weight", 3),
    ("key.weight", 3),
    ("fga.reduce_potentials.0.weight", 15),
    ("feature_reduce.weight", 4),
)


def significant(value):
    return float(f"{value:.2g}")


def spread(name, values):
    """(mean, bound) of the uniform distribution that stands for an initialised tensor."""
    gain = next((factor for part, factor in GAINS if part in name), 1)
    if np.all(values == 1):
        return 1.0, NORM_SPREAD
    mean, deviation = values.mean(), values.std()
    if abs(mean) > 3 * deviation and values.size > 2:
        return significant(mean), significant(max(3**0.5 * deviation, NORM_SPREAD * abs(mean)))
    bound = gain * (3 * np.square(values).mean()) ** 0.5
    return 0.0, significant(max(bound, BIAS_SPREAD) if name.endswith("bias") else bound)


def tensor_rows(path, tensors):
    rows = []
    first = {}
    for name, tensor in tensors.items():
        row = {"name": name, "shape": list(tensor.shape)}
        owner = first.setdefault((tensor.data_ptr(), tensor.shape), name)
        if owner != name:
            row["tie"] = owner
        if tensor.dtype != torch.int64:
            row["mean"], row["bound"] = spread(name, tensor.detach().double().numpy())
        row["crc32"] = zlib.crc32(layouts.tensor_values(path, row).tobytes())
        rows.append(row)
    return rows


def text_file(path, folder):
    with open(os.path.join(folder, path), encoding="utf-8") as file:
        return {"path": path, "kind": "text", "text": file.read()}


def safetensors_file(path, tensors, new_names):
    rows = sorted(tensor_rows(path, tensors), key=lambda row: ("bound" in row, row["name"]))
    file = {"path": path, "kind": "safetensors", "crc32": 0, "newNames": new_names, "tensors": rows}
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint.write_safetensors(file, folder, "hub")
        file["crc32"] = crc32_of(os.path.join(folder, path))
    return file


def torch_file(path, tensors, *, cfg=None, ordered=False):
    file = {"path": path, "kind": "torch", "ordered": ordered}
    if cfg is not None:
        file["cfg"] = layouts.cfg_rows(cfg)
    return file | {"tensors": tensor_rows(path, tensors)}


def crc32_of(path):
    with open(path, "rb") as file:
        return zlib.crc32(file.read())


def text_encoder_names(tensors):
    """Names in the released files -> names in newer ones, for those that differ."""
    renamed = {}
    for name in tensors:
        hub = name if name.startswith("text_model.") else "text_model." + name
        if hub != name:
            renamed[hub] = name
    return renamed | {models.POSITION_IDS: None}


def pipeline_files(size, sd2, merges, seed):
    files = []
    with tempfile.TemporaryDirectory() as folder:
        stable_diffusion = os.path.join(folder, "sd")
        os.makedirs(stable_diffusion)
        torch.manual_seed(seed)
        unet = models.make_unet(size, sd2)
        torch.manual_seed(seed + 1)
        vae = models.make_vae(size)
        torch.manual_seed(seed + 2)
        text_encoder = models.make_text_encoder(size, sd2)
        unet.save_config(os.path.join(stable_diffusion, "unet"))
        vae.save_config(os.path.join(stable_diffusion, "vae"))
        text_encoder.config.save_pretrained(os.path.join(stable_diffusion, "text_encoder"))
        models.save_pipeline_files(stable_diffusion, sd2, merges)
        texts = (
            "model_index.json",
            "scheduler/scheduler_config.json",
            "tokenizer/tokenizer_config.json",
            "text_encoder/config.json",
            "unet/config.json",
            "vae/config.json",
        )
        files += [text_file("sd/" + name, folder) for name in texts]
        for kind, name in (("vocabulary", "vocab.json"), ("merges", "merges.txt")):
            path = "sd/tokenizer/" + name
            files.append({"path": path, "kind": kind, "crc32": crc32_of(os.path.join(folder, path))})
    text = text_encoder.state_dict()
    files.append(
        safetensors_file("sd/text_encoder/model.safetensors", models.hub_text_encoder(text), text_encoder_names(text))
    )
    files.append(safetensors_file("sd/unet/diffusion_pytorch_model.safetensors", unet.state_dict(), {}))
    tensors = vae.state_dict()
    new_names = {models.hub_vae_name(name): name for name in tensors if models.hub_vae_name(name) != name}
    hub = {models.hub_vae_name(name): tensor for name, tensor in tensors.items()}
    files.append(safetensors_file("sd/vae/diffusion_pytorch_model.safetensors", hub, new_names))
    return files, unet


def make(name, seed=0):
    """The layout of one of `LAYOUTS`. Each model has a seed of its own, so that equal models get equal weights."""
    size_name, sd2 = LAYOUTS[name]
    size = models.SIZES[size_name]
    files, unet = pipeline_files(size, sd2, tokenizer_files.read_merges(), seed)
    cfg = models.beats_cfg(size)
    torch.manual_seed(seed + 3)
    beats = beats_reference.release_names(beats_reference.build(cfg).state_dict())
    files.append(torch_file("beats.pt", beats, cfg=cfg))
    torch.manual_seed(seed + 4)
    projector = TokenProjector(len(beats_reference.FEATURE_LAYERS) * size.beats[1], size.context)
    files.append(torch_file("embedder.bin", projector.state_dict(), ordered=True))
    torch.manual_seed(seed + 5)
    files.append(torch_file("lora.bin", models.make_lora(unet)))
    return {"format": layouts.FORMAT, "name": name, "files": files}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(LAYOUTS), help=f"of {', '.join(LAYOUTS)}; without any, all")
    parser.add_argument("--out", required=True, help="folder")
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    for name in options.names:
        layouts.write(make(name), os.path.join(options.out, f"{name}.json"))


if __name__ == "__main__":
    main()
