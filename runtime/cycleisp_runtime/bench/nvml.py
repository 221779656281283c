"""NVIDIA's management library, for GPUs that answer it; a Jetson's knows little but its name."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

__all__ = ["Nvml"]


class Nvml:
    """The first GPU; what it does not support is left out.

    Args:
        pynvml: the module of the package nvidia-ml-py, already initialised.
    """

    def __init__(self, pynvml: ModuleType) -> None:
        self._nvml = pynvml
        self._gpu = pynvml.nvmlDeviceGetHandleByIndex(0)

    @classmethod
    def open(cls) -> Nvml | None:
        """The library, where package, driver and GPU are there; else None."""
        try:
            import pynvml
        except ImportError:
            return None
        try:
            pynvml.nvmlInit()
            return cls(pynvml)
        except pynvml.NVMLError:
            return None

    def watts(self) -> dict[str, float]:
        """Of the whole board."""
        milliwatts = self._asked(self._nvml.nvmlDeviceGetPowerUsage)
        return {} if milliwatts is None else {"NVML GPU board": milliwatts / 1e3}

    def celsius(self) -> dict[str, float]:
        """Of the GPU's die."""
        degrees = self._asked(self._nvml.nvmlDeviceGetTemperature, self._nvml.NVML_TEMPERATURE_GPU)
        return {} if degrees is None else {"NVML GPU": float(degrees)}

    def mhz(self) -> dict[str, float]:
        """Of the multiprocessors."""
        clock = self._asked(self._nvml.nvmlDeviceGetClockInfo, self._nvml.NVML_CLOCK_SM)
        return {} if clock is None else {"NVML GPU": float(clock)}

    def used_bytes(self) -> int | None:
        """Memory in use on the whole GPU, by all processes; None where it is not told."""
        memory = self._asked(self._nvml.nvmlDeviceGetMemoryInfo)
        return None if memory is None else int(memory.used)

    def _asked(self, question: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401
        """The answer; None where this GPU has none."""
        try:
            return question(self._gpu, *arguments)
        except self._nvml.NVMLError:
            return None
