"""One accelerator per job: `--resources gpu=N` only counts, so each process takes a slot.

A slot is a locked file per device in a per-user runtime folder. The lock ends with the process,
however that ends. A device that a scheduler or the user chose (`CUDA_VISIBLE_DEVICES`) narrows
the choice; inside a Slurm job it is taken as it is.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from reelstack.errors import DeviceError

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_SLURM_VARIABLES = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "SLURM_GPUS_ON_NODE")


def list_devices() -> list[str]:
    """UUIDs of this machine's NVIDIA devices, MIG instances in place of a partitioned GPU."""
    if not shutil.which("nvidia-smi"):
        return []
    answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    if answer.returncode:
        raise DeviceError(f"nvidia-smi -L failed: {(answer.stderr or answer.stdout).strip()}")
    devices: list[str] = []
    for line in answer.stdout.splitlines():
        if match := re.match(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)", line):
            if devices and devices[-1].startswith("GPU-"):
                devices.pop()
            devices.append(match[1])
        elif match := re.match(r"GPU \d+: .*\(UUID: (GPU-[^)]+)\)", line):
            devices.append(match[1])
    return devices


def visible_devices() -> list[str]:
    """`list_devices` narrowed by `CUDA_VISIBLE_DEVICES`, indices and UUID prefixes resolved."""
    devices = list_devices()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return devices
    visible: list[str] = []
    for token in (part.strip() for part in chosen.split(",")):
        if token.isdigit() and int(token) < len(devices):
            visible.append(devices[int(token)])
        elif matches := [d for d in devices if token and d.startswith(token)]:
            visible.append(matches[0])
        else:
            break  # CUDA ignores an invalid entry and all that follow it
    return visible


@contextmanager
def device_slot(gpus: int) -> Iterator[str]:
    """Hold a device for the block: yields "cuda" with only that device visible, or "cpu".

    Args:
        gpus: the job's `gpu` resource; 0 means CPU. With 1 on a machine without a GPU the job
            runs on the CPU and says so.

    Must be entered before CUDA is initialised in the process.
    """
    if gpus <= 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        yield "cpu"
        return
    if "SLURM_JOB_ID" in os.environ and any(name in os.environ for name in _SLURM_VARIABLES):
        yield "cuda"
        return
    candidates = visible_devices()
    if not candidates:
        log.info("no NVIDIA device is visible: computing on the CPU")
        yield "cpu"
        return
    device, handle = _acquire(candidates)
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["CUDA_VISIBLE_DEVICES"] = device
    try:
        yield "cuda"
    finally:
        handle.close()


def _acquire(candidates: list[str]) -> tuple[str, IO[str]]:
    folder = _slot_folder()
    waiting_since = time.monotonic()
    told = False
    while True:
        for device in candidates:
            handle = open(folder / f"{device}.slot", "a+")
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.close()
                continue
            return device, handle
        if not told and time.monotonic() - waiting_since > 10:
            log.info("waiting for one of %s", ", ".join(candidates))
            told = True
        time.sleep(_POLL_SECONDS)


def _slot_folder() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(runtime) if runtime and os.access(runtime, os.W_OK) else None
    folder = base / "reelstack" if base else Path(tempfile.gettempdir(), f"reelstack-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
