"""Print the metrics of this host's GPUs, read from NVML.

Called by collect.py. The argument is the directory of pynvml.py. The names that begin with DCGM_
are those of NVIDIA's DCGM exporter, with its units and labels (dcgm-exporter,
etc/default-counters.csv). Exit status 1 if NVML does not work.
"""

import sys

sys.path.insert(0, sys.argv[1])
import pynvml

MIB = 1 << 20

# nvml.h, nvmlClocksEventReason*: why the clocks are lower than requested.
REASONS = {
    "power_cap": 0x4,
    "hardware_slowdown": 0x8,
    "thermal_software": 0x20,
    "thermal_hardware": 0x40,
    "power_brake": 0x80,
}

GAUGES = {
    "DCGM_FI_DEV_SM_CLOCK": ("Clock of the multiprocessors in MHz", lambda gpu: clock(gpu, 1)),
    "DCGM_FI_DEV_MEM_CLOCK": ("Clock of the memory in MHz", lambda gpu: clock(gpu, 2)),
    "DCGM_FI_DEV_GPU_TEMP": (
        "Temperature in degrees Celsius",
        lambda gpu: pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU),
    ),
    "DCGM_FI_DEV_POWER_USAGE": (
        "Power in W",
        lambda gpu: pynvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
    ),
    "DCGM_FI_DEV_GPU_UTIL": (
        "Share of the time in which the GPU computed, in %",
        lambda gpu: pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
    ),
    "DCGM_FI_DEV_MEM_COPY_UTIL": (
        "Share of the time in which the memory was read or written, in %",
        lambda gpu: pynvml.nvmlDeviceGetUtilizationRates(gpu).memory,
    ),
    "DCGM_FI_DEV_FB_FREE": (
        "Free memory in MiB",
        lambda gpu: pynvml.nvmlDeviceGetMemoryInfo(gpu).free // MIB,
    ),
    "DCGM_FI_DEV_FB_USED": (
        "Used memory in MiB",
        lambda gpu: pynvml.nvmlDeviceGetMemoryInfo(gpu).used // MIB,
    ),
}


def clock(gpu, kind):
    """`kind` is NVML_CLOCK_SM or NVML_CLOCK_MEM."""
    return pynvml.nvmlDeviceGetClockInfo(gpu, kind)


def text(value):
    """Older nvidia-ml-py answers with bytes."""
    return value.decode() if isinstance(value, bytes) else value


def labels(index, gpu, **more):
    named = {
        "gpu": index,
        "UUID": text(pynvml.nvmlDeviceGetUUID(gpu)),
        "device": f"nvidia{index}",
        "modelName": text(pynvml.nvmlDeviceGetName(gpu)),
        **more,
    }
    return ",".join(f'{name}="{value}"' for name, value in named.items())


def handles():
    """GPUs by number; one that fell off the bus is missing."""
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
            pynvml.nvmlDeviceGetMemoryInfo(gpu)
        except pynvml.NVMLError:
            continue
        yield index, gpu


def samples(name, gpus, read):
    """A sample for each GPU that reports the value."""
    for index, gpu in gpus:
        try:
            yield f"{name}{{{labels(index, gpu)}}} {read(gpu)}"
        except pynvml.NVMLError:
            continue


def throttled(gpus):
    for index, gpu in gpus:
        try:
            seen = pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
        except pynvml.NVMLError:
            continue
        for reason, bit in REASONS.items():
            where = labels(index, gpu, reason=reason)
            yield f"llmhost_gpu_throttled{{{where}}} {int(bool(seen & bit))}"


def main():
    try:
        pynvml.nvmlInit()
        gpus = [*handles()]
    except pynvml.NVMLError as error:
        sys.exit(str(error))
    print("# HELP llmhost_gpus GPUs that answer")
    print("# TYPE llmhost_gpus gauge")
    print(f"llmhost_gpus {len(gpus)}")
    for name, (about, read) in GAUGES.items():
        print(f"# HELP {name} {about}\n# TYPE {name} gauge", *samples(name, gpus, read), sep="\n")
    name = "llmhost_gpu_throttled"
    about = "Whether something keeps the GPU below its requested clocks"
    print(f"# HELP {name} {about}\n# TYPE {name} gauge", *throttled(gpus), sep="\n")


if __name__ == "__main__":
    main()
