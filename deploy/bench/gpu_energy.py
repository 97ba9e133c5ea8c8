"""What a GPU's board has used, by NVML's counter, where its driver has one (Volta and later).

The counter is of the whole board and moves only every few tens of milliseconds, in which a GPU
computes many chunks: a visit of five says nothing. So a back end is asked to compute for a second
or more on end, alone, and what that took is divided by its chunks.

By ctypes: NVML comes with the driver, and Python bindings of it do not. Not yet run on a GPU; the
tests run it on a library that answers as NVML's documentation says.
"""

import ctypes
from collections.abc import Callable
from time import perf_counter

SECONDS = 2.0  # of one row: a hundred of the counter's steps
_SUCCESS = 0


class GpuEnergyMeter:
    """The counter of the GPU `uuid` ("GPU-...", as nvidia-smi -L says it).

    `problem` says why there is no reading, None where there is one.
    """

    def __init__(self, uuid: str) -> None:
        self.problem: str | None = None
        self._device = ctypes.c_void_p()
        try:
            self._library = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            self.problem = "no NVML (libnvidia-ml.so.1 is not found)"
            return
        status = self._library.nvmlInit_v2() or self._library.nvmlDeviceGetHandleByUUID(
            uuid.encode(), ctypes.byref(self._device)
        )
        if status != _SUCCESS:
            self.problem = f"NVML does not know {uuid} (status {status})"
        elif self._millijoules() is None:
            self.problem = f"{uuid} has no energy counter"

    def joules_of_each(self, call: Callable[[], object], seconds: float = SECONDS) -> float:
        """Of one `call`, repeated for so long; not a number where there is no reading."""
        before = None if self.problem else self._millijoules()
        if before is None:
            return float("nan")
        calls, until = 0, perf_counter() + seconds
        while perf_counter() < until:
            call()
            calls += 1
        after = self._millijoules()
        return float("nan") if after is None else 1e-3 * (after - before) / calls

    def _millijoules(self) -> int | None:
        """Since the driver was loaded."""
        counter = ctypes.c_ulonglong()
        status = self._library.nvmlDeviceGetTotalEnergyConsumption(
            self._device, ctypes.byref(counter)
        )
        return int(counter.value) if status == _SUCCESS else None
