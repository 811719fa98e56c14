"""Runs the AudioToken pipeline in float32 PyTorch on a checkpoint set and a WAV; writes every stage as .npy.

Order and names: waveform, fbank, audio_features, audio_token, token_ids, prompt_embeddings, negative_embeddings, noise,
eps_first (unconditional half first), latents_{step}, image (float [height, width, 3] in [0, 1]), image_u8.
"""
import argparse
import json
import os

import numpy as np
import torch

import beats_reference
from checkpoint_models import fold_lora
from token_projector import TokenProjector

SAMPLE_RATE = 16000
SECONDS = 10
PLACEHOLDER = "<*>"
DEFAULT_PROMPT = f"a photo of {PLACEHOLDER}, 4k, high resolution"


def add_options(parser):
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--cfg", type=float, default=7.5, help="guidance")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prompt", default=DEFAULT_PROMPT)
    parser.add_argument("--scheduler", help="diffusers class; without it the checkpoint's own")
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)


def read_waveform(path):
    """[1, samples]: channel 0, repeated ten times and cut at ten seconds, as AudioToken's authors do."""
    import soundfile

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    if rate != SAMPLE_RATE:
        raise SystemExit(f"{path} has {rate} Hz; the reference never resamples and needs {SAMPLE_RATE} Hz")
    return torch.from_numpy(samples.T.copy())[:1].repeat(1, 10)[:, : SAMPLE_RATE * SECONDS]


def audio_stages(checkpoint, wav, put):
    """Returns the audio token [1, context]."""
    waveform = read_waveform(wav)
    put("waveform", waveform[0])
    beats = torch.load(os.path.join(checkpoint, "beats.pt"), weights_only=True)
    filter_bank, features = beats_reference.features(beats, waveform)
    put("fbank", filter_bank)
    put("audio_features", features)
    projector = torch.load(os.path.join(checkpoint, "embedder.bin"), weights_only=True)
    token = TokenProjector.from_state_dict(projector)(features[None])[0]
    put("audio_token", token)
    return token


def text_stages(folder, prompt, token, put):
    """Returns the states of the empty prompt and of the prompt, [2, 77, context]."""
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(os.path.join(folder, "tokenizer"))
    if tokenizer.add_tokens(PLACEHOLDER) != 1:
        raise SystemExit(f"{folder}/tokenizer already holds {PLACEHOLDER}")
    encoder = CLIPTextModel.from_pretrained(os.path.join(folder, "text_encoder")).float().eval()
    encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    encoder.get_input_embeddings().weight.data[tokenizer.convert_tokens_to_ids(PLACEHOLDER)] = token

    def token_ids(text):
        return tokenizer(text, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids

    put("token_ids", token_ids(prompt)[0])
    conditional, unconditional = encoder(token_ids(prompt))[0], encoder(token_ids(""))[0]
    put("prompt_embeddings", conditional[0])
    put("negative_embeddings", unconditional[0])
    return torch.cat([unconditional, conditional])


def load_scheduler(folder, name):
    import diffusers

    with open(os.path.join(folder, "scheduler", "scheduler_config.json"), encoding="utf-8") as file:
        config = json.load(file)
    return getattr(diffusers, name or config["_class_name"]).from_config(config)


def sample(unet, scheduler, states, options, put, scale=8):
    """Returns the final latents [1, 4, height / scale, width / scale]."""
    native = unet.config.sample_size * scale
    height, width = (options.height or native) // scale, (options.width or native) // scale
    generator = torch.Generator("cpu").manual_seed(options.seed)
    noise = torch.randn((1, 4, height, width), generator=generator)
    put("noise", noise[0])
    scheduler.set_timesteps(options.steps)
    latents = noise * scheduler.init_noise_sigma
    extra = {"generator": generator} if "generator" in scheduler.step.__code__.co_varnames else {}
    for step, timestep in enumerate(scheduler.timesteps):
        prediction = unet(scheduler.scale_model_input(torch.cat([latents] * 2), timestep), timestep, states).sample
        if step == 0:
            put("eps_first", prediction)
        unconditional, conditional = prediction.chunk(2)
        guided = unconditional + options.cfg * (conditional - unconditional)
        latents = scheduler.step(guided, timestep, latents, **extra).prev_sample
        put(f"latents_{step:03d}", latents[0])
    return latents


@torch.no_grad()
def run(checkpoint, wav, options, put):
    """Runs every stage and hands each to `put(name, tensor)`."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    torch.set_num_threads(options.threads)
    folder = os.path.join(checkpoint, "sd")
    token = audio_stages(checkpoint, wav, put)
    states = text_stages(folder, options.prompt, token, put)
    unet = UNet2DConditionModel.from_pretrained(os.path.join(folder, "unet")).float().eval()
    if options.lora:
        fold_lora(unet, torch.load(os.path.join(checkpoint, "lora.bin"), weights_only=True))
    scheduler = load_scheduler(folder, options.scheduler)
    vae = AutoencoderKL.from_pretrained(os.path.join(folder, "vae")).float().eval()
    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    latents = sample(unet, scheduler, states, options, put, scale)
    image = vae.decode(latents / vae.config.scaling_factor).sample[0]
    image = (image / 2 + 0.5).clamp(0, 1).permute(1, 2, 0)
    put("image", image)
    put("image_u8", (image * 255).round().to(torch.uint8))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("wav")
    parser.add_argument("out")
    add_options(parser)
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    run(
        options.checkpoint,
        options.wav,
        options,
        lambda name, tensor: np.save(os.path.join(options.out, f"{name}.npy"), tensor.detach().cpu().numpy()),
    )
    with open(os.path.join(options.out, "args.json"), "w", encoding="utf-8") as file:
        json.dump(vars(options), file)


if __name__ == "__main__":
    main()
