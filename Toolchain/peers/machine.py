"""What the numbers depend on: processor, kernel, versions."""
import datetime
import importlib.metadata
import os
import platform

#: Of all the flags of a processor, those that runtimes choose their kernels by.
FLAGS = (
    "sse4_1 avx f16c fma avx2 avx_vnni avx512f avx512_vnni avx512_bf16 amx_int8 asimd asimddp asimdhp i8mm bf16 sve"
).split()
PACKAGES = (
    "torch openvino nncf stable-diffusion-cpp-python diffusers transformers speechbrain numpy safetensors"
).split()


def fields_of(path):
    """The first value of each `name : value`; empty where there is no such file."""
    fields = {}
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                name, _, value = line.partition(":")
                fields.setdefault(name.strip(), value.strip())
    except OSError:
        pass
    return fields


def system_name():
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()


def versions():
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def describe(revision):
    processor = fields_of("/proc/cpuinfo")
    flags = (processor.get("flags") or processor.get("Features") or "").split()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": processor.get("model name") or processor.get("CPU part") or platform.machine(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in FLAGS if flag in flags],
        "memory_bytes": int(fields_of("/proc/meminfo")["MemTotal"].split()[0]) * 1024,
        "kernel": platform.release(),
        "system": system_name(),
        "audiotoken_revision": revision,
        "versions": versions(),
    }
