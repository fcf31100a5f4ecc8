"""Device slots, with a fake nvidia-smi and real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from reelstack.errors import DeviceError
from reelstack.extract.devices import device_slot, list_devices, visible_devices
from reelstack.files import CHECKOUT

PLAIN = """\
GPU 0: NVIDIA H100 (UUID: GPU-aaaa1111-0000)
GPU 1: NVIDIA H100 (UUID: GPU-bbbb2222-0000)
"""
PARTITIONED = """\
GPU 0: NVIDIA A100 (UUID: GPU-aaaa1111-0000)
  MIG 3g.20gb     Device  0: (UUID: MIG-1111-0)
  MIG 3g.20gb     Device  1: (UUID: MIG-2222-0)
GPU 1: NVIDIA A100 (UUID: GPU-bbbb2222-0000)
"""
ONE, TWO = "GPU-aaaa1111-0000", "GPU-bbbb2222-0000"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of the test's own: no scheduler, no chosen devices, an empty runtime folder."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "CUDA_")):
            monkeypatch.delenv(name)
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.setenv(name, "")  # so that what a test sets is undone
        monkeypatch.delenv(name)
    (tmp_path / "run").mkdir()
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return tmp_path


def install(machine: Path, listing: str, *, status: int = 0) -> None:
    script = machine / "bin" / "nvidia-smi"
    script.write_text(f"#!/bin/sh\ncat <<'END'\n{listing}END\nexit {status}\n")
    script.chmod(0o755)


def test_devices_by_uuid(machine: Path) -> None:
    install(machine, PLAIN)
    assert list_devices() == [ONE, TWO]


def test_partitions_in_place_of_a_partitioned_device(machine: Path) -> None:
    install(machine, PARTITIONED)
    assert list_devices() == ["MIG-1111-0", "MIG-2222-0", TWO]


def test_no_driver_is_no_device(machine: Path) -> None:
    assert list_devices() == []
    install(machine, "")
    assert list_devices() == []


def test_a_broken_driver_is_told(machine: Path) -> None:
    install(machine, "NVML: Driver/library version mismatch\n", status=18)
    with pytest.raises(DeviceError, match="nvidia-smi -L failed: NVML: Driver/library"):
        list_devices()


@pytest.mark.parametrize(
    ("chosen", "visible"),
    [
        ("0", [ONE]),
        ("1", [TWO]),
        ("1,0", [TWO, ONE]),
        (" 1 , 0 ", [TWO, ONE]),
        (TWO, [TWO]),
        ("GPU-bbbb", [TWO]),
        ("", []),
        ("-1", []),
        ("7", []),
        ("0,7,1", [ONE]),
        ("GPU-zzzz", []),
    ],
)
def test_the_users_choice_narrows(
    machine: Path, monkeypatch: pytest.MonkeyPatch, chosen: str, visible: list[str]
) -> None:
    install(machine, PLAIN)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_devices() == visible


def test_a_slot_shows_one_device(machine: Path) -> None:
    install(machine, PLAIN)
    with device_slot(1) as first:
        assert first == "cuda"
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ONE
        assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_no_device_is_the_processor_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"), device_slot(1) as device:
        assert device == "cpu"
    assert "no NVIDIA device is visible: computing on the CPU" in caplog.text


def test_gpu_0_means_the_processor_also_beside_a_device(machine: Path) -> None:
    install(machine, PLAIN)
    with device_slot(0) as device:
        assert device == "cpu"
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert not list((machine / "run").iterdir())


def test_a_hidden_device_is_not_used(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(machine, PLAIN)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with device_slot(1) as device:
        assert device == "cpu"


def test_slurm_s_choice_is_left_alone(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(machine, PLAIN)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_GPUS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with device_slot(1) as device:
        assert device == "cuda"
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert not list((machine / "run").iterdir())


def test_slots_are_private_where_there_is_no_runtime_folder(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(machine, PLAIN)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(machine))
    with device_slot(1):
        (folder,) = machine.glob("reelstack-*")
        assert folder.stat().st_mode & 0o777 == 0o700


WORKER = """
import json, os, sys, time
from reelstack.extract.devices import device_slot
with device_slot(1) as device:
    start = time.monotonic()
    print(json.dumps(["holds", os.environ.get("CUDA_VISIBLE_DEVICES")]), flush=True)
    time.sleep(float(sys.argv[1]))
    print(json.dumps([device, os.environ["CUDA_VISIBLE_DEVICES"], start, time.monotonic()]))
"""


def start_worker(seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(seconds)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "scripts")}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_two_processes_never_hold_one_device(machine: Path) -> None:
    install(machine, PLAIN)
    workers = [start_worker(0.15) for _ in range(8)]
    outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    held = [json.loads(output.splitlines()[-1]) for output in outputs]
    assert {device for device, *_ in held} == {"cuda"}
    assert {uuid for _, uuid, *_ in held} == {ONE, TWO}, "one device is idle"
    for uuid in (ONE, TWO):
        spans = sorted((start, end) for _, own, start, end in held if own == uuid)
        for (_, end), (start, _) in pairwise(spans):
            assert end <= start, f"two processes held {uuid} at the same time"


def test_a_killed_process_frees_its_device(machine: Path) -> None:
    install(machine, PLAIN.splitlines(keepends=True)[0])
    holder = start_worker(600)
    assert holder.stdout is not None
    assert json.loads(holder.stdout.readline()) == ["holds", ONE]
    waiting = start_worker(0)
    time.sleep(0.3)
    assert waiting.poll() is None, "the device is held twice"
    holder.send_signal(signal.SIGKILL)
    holder.wait(timeout=20)
    output, _ = waiting.communicate(timeout=60)
    assert json.loads(output.splitlines()[-1])[:2] == ["cuda", ONE]


def test_a_failed_job_frees_its_device(machine: Path) -> None:
    install(machine, PLAIN.splitlines(keepends=True)[0])
    with pytest.raises(RuntimeError), device_slot(1):
        raise RuntimeError
    os.environ.pop("CUDA_VISIBLE_DEVICES")
    with device_slot(1):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ONE
