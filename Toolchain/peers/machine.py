"""What the numbers depend on: processor, kernel, versions."""
import datetime
import importlib.metadata
import os
import platform
import resource

#: Of all the flags of a processor, those that runtimes choose their kernels by.
FLAGS = (
    "sse4_1 avx f16c fma avx2 avx_vnni avx512f avx512_vnni avx512_bf16 amx_int8 asimd asimddp asimdhp i8mm bf16 sve"
).split()
PACKAGES = (
    "torch openvino nncf stable-diffusion-cpp-python diffusers transformers speechbrain numpy safetensors"
).split()


def busy_seconds():
    """Processor time that all programs of this machine have used."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, interrupts, soft_interrupts, stolen = map(int, file.readline().split()[1:9])
    return (user + nice + system + interrupts + soft_interrupts + stolen) / os.sysconf("SC_CLK_TCK")


def process_seconds(process):
    """Processor time that one process has used."""
    with open(f"/proc/{process}/stat", encoding="utf-8") as file:
        after_name = file.read().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def children_seconds():
    """Processor time of the child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
