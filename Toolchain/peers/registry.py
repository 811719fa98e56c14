"""The list of peers. Their modules are imported in the workers alone, because each loads a runtime."""
import importlib
from dataclasses import dataclass

from .workload import SOUND, UNET, VAE


@dataclass(frozen=True)
class Entry:
    label: str
    module: str
    class_name: str
    #: The stages that each worker process measures. A program that makes whole pictures cannot be asked for less.
    runs: tuple
    #: False for a runtime that knows only the shapes of released models.
    any_size: bool = True


PEERS = {
    "pytorch": Entry("PyTorch, float32", "pytorch", "PyTorch", ((UNET,), (VAE,), (SOUND,))),
    "openvino": Entry("OpenVINO, float32", "openvino_runtime", "OpenVINO", ((UNET,), (VAE,))),
    "openvino-int8": Entry("OpenVINO, int8", "openvino_runtime", "OpenVINOInt8", ((UNET,), (VAE,))),
    "openvino-int8-float-attention": Entry(
        "OpenVINO, int8, attention in float", "openvino_runtime", "OpenVINOInt8FloatAttention", ((UNET,),)
    ),
    "stable-diffusion.cpp": Entry(
        "stable-diffusion.cpp, q8_0", "stable_diffusion_cpp_runtime", "StableDiffusionCpp", ((UNET, VAE),), False
    ),
}


def make(name, workload):
    """A peer has prepare(stages), weight_files(stages), load(stages) and measure(stages) -> {stage: seconds}."""
    entry = PEERS[name]
    module = importlib.import_module(f"peers.{entry.module}")
    return getattr(module, entry.class_name)(workload)
