"""Writes a random-weight AudioToken checkpoint set in the exact layouts users hold.

  sd/            diffusers pipeline folder (unet, vae, text_encoder, tokenizer, scheduler)
  beats.pt       {'cfg': ..., 'model': state_dict}, torch zip pickle
  embedder.bin   token projector state_dict, torch zip pickle
  lora.bin       attention LoRA state_dict (diffusers' attention-processor names)
"""
import argparse
import os

import torch
from safetensors.torch import load_file, save_file

import beats_reference
import checkpoint_models as models
import tokenizer_files
from token_projector import TokenProjector


def use_hub_names(folder):
    """Rewrites the text encoder's and the VAE's files with the names that the released SD 1.4 files use."""
    path = os.path.join(folder, "text_encoder", "model.safetensors")
    save_file(models.hub_text_encoder(load_file(path)), path, {"format": "pt"})
    path = os.path.join(folder, "vae", "diffusion_pytorch_model.safetensors")
    save_file({models.hub_vae_name(name): tensor for name, tensor in load_file(path).items()}, path, {"format": "pt"})


def build(
    size, out, *, seed=0, sd2=False, naming="hub", dtype=torch.float32, merges_path=tokenizer_files.DEFAULT_MERGES
):
    """Writes one checkpoint set. The order in which models are made decides their random weights."""
    torch.manual_seed(seed)
    folder = os.path.join(out, "sd")
    os.makedirs(folder, exist_ok=True)
    unet, vae, text_encoder = models.make_unet(size, sd2), models.make_vae(size), models.make_text_encoder(size, sd2)
    unet.to(dtype).save_pretrained(os.path.join(folder, "unet"))
    vae.to(dtype).save_pretrained(os.path.join(folder, "vae"))
    text_encoder.to(dtype).save_pretrained(os.path.join(folder, "text_encoder"))
    models.save_pipeline_files(folder, sd2, tokenizer_files.read_merges(merges_path))
    if naming == "hub":
        use_hub_names(folder)

    torch.manual_seed(seed + 1)
    cfg = models.beats_cfg(size)
    beats = beats_reference.release_names(beats_reference.build(cfg).state_dict())
    torch.save({"cfg": cfg, "model": beats}, os.path.join(out, "beats.pt"))
    projector = TokenProjector(len(beats_reference.FEATURE_LAYERS) * size.beats[1], size.context)
    torch.save(projector.state_dict(), os.path.join(out, "embedder.bin"))
    torch.save(models.make_lora(unet), os.path.join(out, "lora.bin"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="tiny", choices=tuple(models.SIZES))
    parser.add_argument("--sd2", action="store_true", help="linear projections, heads per level, gelu, v_prediction")
    parser.add_argument("--naming", default="hub", choices=("hub", "new"), help="spelling of the tensors' names")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bpe", default=tokenizer_files.DEFAULT_MERGES, help="CLIP's merges, as text or OpenAI's .gz")
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    build(
        models.SIZES[options.size],
        options.out,
        seed=options.seed,
        sd2=options.sd2,
        naming=options.naming,
        dtype=getattr(torch, options.dtype),
        merges_path=options.bpe,
    )


if __name__ == "__main__":
    main()
