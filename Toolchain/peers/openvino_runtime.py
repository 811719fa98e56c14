"""OpenVINO: the float32 models exported from PyTorch, and NNCF's 8-bit quantisation of weights and activations."""
import gc
import os
import time

import openvino

from .workload import UNET

#: Random weights need no more: how many samples there are does not change what is computed.
CALIBRATION_SAMPLES = 2


class OpenVINO:
    """The exported float32 model."""

    variant = "float32"
    configuration = {"INFERENCE_PRECISION_HINT": "f32"}

    def __init__(self, workload):
        self.workload = workload

    def model_path(self, stage, variant=None):
        return os.path.join(self.workload.cache, f"openvino-{stage}-{variant or self.variant}.xml")

    def weight_files(self, stages):
        return [self.model_path(stage).replace(".xml", ".bin") for stage in stages]

    def inputs(self, stage, seed=0):
        return self.workload.unet_inputs(seed) if stage == UNET else self.workload.vae_inputs(seed)

    def prepare(self, stages):
        for stage in stages:
            if not os.path.exists(self.model_path(stage, "float32")):
                self.export(stage)
            if not os.path.exists(self.model_path(stage)):
                self.quantise(stage)

    def export(self, stage):
        import torch
        from . import pytorch

        torch.set_num_threads(self.workload.threads)
        module = pytorch.load_unet(self.workload) if stage == UNET else pytorch.load_vae(self.workload)
        example = tuple(torch.from_numpy(array) for array in self.inputs(stage))
        with torch.no_grad():
            model = openvino.convert_model(module, example_input=example, input=[tuple(x.shape) for x in example])
        self.save(model, self.model_path(stage, "float32"))
        del model, module
        gc.collect()

    def quantise(self, stage):
        raise NotImplementedError

    def save(self, model, path):
        """Under its name only when complete, because a file that is there is taken as finished."""
        partial = path.replace(".xml", ".partial.xml")
        openvino.save_model(model, partial, compress_to_fp16=False)
        os.replace(partial.replace(".xml", ".bin"), path.replace(".xml", ".bin"))
        os.replace(partial, path)

    def load(self, stages):
        core = openvino.Core()
        properties = {
            "INFERENCE_NUM_THREADS": self.workload.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            **self.configuration,
        }
        if self.workload.avx2:
            # It would choose bf16 where the processor has that, and then find no kernels among those for AVX2.
            properties["INFERENCE_PRECISION_HINT"] = "f32"
        self.requests = {
            stage: core.compile_model(self.model_path(stage), "CPU", properties).create_infer_request()
            for stage in stages
        }
        self.arrays = {stage: self.inputs(stage) for stage in stages}

    def measure(self, stages):
        seconds = {}
        for stage in stages:
            started = time.perf_counter()
            self.requests[stage].infer(list(self.arrays[stage]), share_inputs=True)
            seconds[stage] = time.perf_counter() - started
        return seconds


class OpenVINOInt8(OpenVINO):
    """Post-training quantisation of everything that NNCF quantises for a transformer, convolutions included."""

    variant = "int8"
    configuration = {}
    ignored_operations = ()

    def quantise(self, stage):
        import nncf

        model = openvino.Core().read_model(self.model_path(stage, "float32"))
        samples = [list(self.inputs(stage, seed)) for seed in range(CALIBRATION_SAMPLES)]
        ignored = nncf.IgnoredScope(types=list(self.ignored_operations)) if self.ignored_operations else None
        quantised = nncf.quantize(
            model,
            nncf.Dataset(samples),
            subset_size=CALIBRATION_SAMPLES,
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=ignored,
        )
        self.save(quantised, self.model_path(stage))


class OpenVINOInt8FloatAttention(OpenVINOInt8):
    """As above, but softmax(Q K) V stays float; the projections before and after it are 8-bit."""

    variant = "int8-float-attention"
    ignored_operations = ("ScaledDotProductAttention",)
