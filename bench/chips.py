"""What is known, and what is assumed, of the GPUs that predictions are made for."""

from dataclasses import dataclass

from queueing import Machine


@dataclass(frozen=True)
class Gpu:
    """Per chip; tensor rates are dense, accumulating in float32."""

    name: str
    capability: int
    processors: int
    clock_ghz: float
    dram_gbps: float  # of a copy, read and written together
    l2_gbps: float
    tflops_16bit: float
    tflops_tf32: float


# Processors, clocks (boost), memory rates and tensor rates: NVIDIA's data sheets ("H100 Tensor Core GPU", SXM5; "H200
# Tensor Core GPU", SXM; "A100 80GB Tensor Core GPU", SXM4) and "NVIDIA Ada GPU Architecture", appendix A (RTX 4090).
# ASSUMED: a copy reaches 90 % of the data sheet's memory rate (3.35, 4.8, 2.04 and 1.01 TB/s), and L2 delivers 5.5 TB/s
# on an H100 and H200, 4.0 on an A100, 5.0 on an RTX 4090 (no data sheet names it).
GPUS = {
    "h100": Gpu("H100 SXM", 90, 132, 1.755, 3000, 5500, 989, 494),
    "h200": Gpu("H200 SXM", 90, 132, 1.755, 4300, 5500, 989, 494),
    "a100": Gpu("A100 SXM 80 GB", 80, 108, 1.41, 1840, 4000, 312, 156),
    "rtx4090": Gpu("GeForce RTX 4090", 89, 128, 2.52, 907, 5000, 165, 82.6),
}
SLOTS = 4  # warp instructions a clock and multiprocessor, on all of these


@dataclass(frozen=True)
class Assumption:
    """What nobody but a measurement can say."""

    dram_latency: float  # ns from a load to its data, unloaded
    l2_latency: float
    issue_share: float  # of the issue slots that warps fill while they have something to do
    product_share: float  # of the tensor rate in a product that runs


# ASSUMED, all of it: the range in which kernels of this kind have been found on such chips.
ASSUMPTIONS = {
    "low": Assumption(500, 250, 0.8, 0.9),
    "middle": Assumption(600, 280, 0.7, 0.8),
    "high": Assumption(750, 330, 0.55, 0.6),
}


def machine(gpu: Gpu, assumption: Assumption, element_bytes: int) -> Machine:
    """Rates per nanosecond for products of 16-bit numbers, or of float32 in three TF32 parts."""
    tflops = gpu.tflops_16bit if element_bytes == 2 else gpu.tflops_tf32 / 3
    return Machine(
        gpu.processors,
        gpu.dram_gbps,
        gpu.l2_gbps,
        SLOTS * gpu.clock_ghz * assumption.issue_share,
        tflops * 1e3 / gpu.processors * assumption.product_share,
        assumption.dram_latency,
        assumption.l2_latency,
    )


def named(device_name: str) -> Gpu | None:
    """The chip that `torch.cuda.get_device_name` speaks of, None if it is none of these."""
    words = device_name.upper().replace(" ", "")
    return next((gpu for key, gpu in GPUS.items() if key.upper() in words), None)
