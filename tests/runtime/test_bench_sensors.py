"""Sensors of a Jetson, a desktop CPU and a GPU, by files and a library that are made up here."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from cycleisp_runtime.bench.machine import busy_warning, describe_machine
from cycleisp_runtime.bench.nvml import Nvml
from cycleisp_runtime.bench.sensors import Rapl, Sampler, Sensors, find_sensors, gpu_clock_files

ORIN_NANO = {
    "sys/class/hwmon/hwmon3/name": "ina3221\n",
    "sys/class/hwmon/hwmon3/in1_label": "VDD_IN\n",
    "sys/class/hwmon/hwmon3/in1_input": "5072\n",
    "sys/class/hwmon/hwmon3/curr1_input": "1000\n",
    "sys/class/hwmon/hwmon3/in2_label": "VDD_CPU_GPU_CV\n",
    "sys/class/hwmon/hwmon3/in2_input": "5000\n",
    "sys/class/hwmon/hwmon3/curr2_input": "-8\n",
    "sys/class/hwmon/hwmon3/in3_label": "VDD_SOC\n",
    "sys/class/hwmon/hwmon3/in3_input": "5000\n",
    "sys/class/hwmon/hwmon3/in7_label": "sum of shunt voltages\n",
    "sys/class/hwmon/hwmon3/in7_input": "15000\n",
    "sys/class/hwmon/hwmon3/curr7_input": "1000\n",
    "sys/class/hwmon/hwmon0/name": "acpitz\n",
    "sys/class/hwmon/hwmon0/power1_input": "1000000\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "612000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "1020000000\n",
    "sys/class/devfreq/17000000.gpu/device/of_node/name": "gpu\0",
    "sys/class/devfreq/3507000.ufshci/cur_freq": "1\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "47593\n",
    "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "-256000\n",
    "sys/class/thermal/thermal_zone2/type": "gpu-thermal\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "729600\n",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1728000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd asimddp aes\nCPU part\t: 0xd42\n",
    "proc/meminfo": "MemTotal:        7802096 kB\nMemFree: 1 kB\n",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic\n",
}
"""Every trap of such a tree: another hwmon chip, a label of no rail, a rail without a current, one
that is gated and reads below zero, a zone of a block without power, one that cannot be read."""


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr("cycleisp_runtime.bench.machine.find_gpu", lambda: None)


def test_a_jetson(tmp_path: Path) -> None:
    reading = find_sensors(tree(tmp_path, ORIN_NANO)).read(1.0)
    assert reading.watts == pytest.approx({"VDD_IN": 5.072, "VDD_CPU_GPU_CV": -0.04})
    assert reading.celsius == {"cpu-thermal": 47.593}
    assert reading.mhz == pytest.approx({"CPU": 729.6, "GPU": 612.0})


def test_rails_without_a_total_are_summed(tmp_path: Path) -> None:
    agx = {
        "hwmon1/name": "ina3221",
        "hwmon1/in1_label": "VDD_GPU_SOC",
        "hwmon1/in1_input": "20000",
        "hwmon1/curr1_input": "150",
        "hwmon1/in2_label": "NC",
        "hwmon1/in2_input": "20000",
        "hwmon1/curr2_input": "50",
        "hwmon2/name": "ina3221",
        "hwmon2/in2_label": "VDDQ_VDD2_1V8AO",
        "hwmon2/in2_input": "5000",
        "hwmon2/curr2_input": "200",
    }
    root = tree(tmp_path, {f"sys/class/hwmon/{name}": text for name, text in agx.items()})
    assert find_sensors(root).read(0.0).watts == pytest.approx(
        {"VDD_GPU_SOC": 3.0, "VDDQ_VDD2_1V8AO": 1.0, "sum of rails": 4.0}
    )


def test_a_single_power_chip(tmp_path: Path) -> None:
    thor = {"name": "ina238", "power1_input": "42000000", "label": "VIN"}
    root = tree(tmp_path, {f"sys/class/hwmon/hwmon9/{name}": text for name, text in thor.items()})
    assert find_sensors(root).read(0.0).watts == {"VIN": 42.0}


def test_a_machine_without_sensors(tmp_path: Path) -> None:
    reading = find_sensors(tmp_path).read(0.5)
    assert (reading.watts, reading.celsius, reading.mhz) == ({}, {}, {})
    assert gpu_clock_files(tmp_path) is None


def test_rapl_counts_over_its_wrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone = "sys/class/powercap/intel-rapl:0"
    tree(tmp_path, {f"{zone}/name": "package-0\n", f"{zone}/max_energy_range_uj": "1000000\n"})
    tree(tmp_path, {f"{zone}:0/name": "core\n", f"{zone}:0/energy_uj": "5\n"})
    moments = iter((10.0, 10.5, 11.0))
    monkeypatch.setattr(time, "perf_counter", lambda: next(moments))
    rapl = Rapl(tmp_path)
    told = []
    for microjoules in ("900000", "950000", "50000"):
        tree(tmp_path, {f"{zone}/energy_uj": microjoules})
        told.append(rapl())
    assert told == [{}, {"RAPL package-0": pytest.approx(0.1)}, {"RAPL package-0": 0.2}]


def test_rapl_that_only_root_may_read_gives_nothing(tmp_path: Path) -> None:
    tree(tmp_path, {"sys/class/powercap/intel-rapl:0/name": "package-0\n"})
    rapl = Rapl(tmp_path)
    assert [rapl(), rapl()] == [{}, {}]


class NotSupportedError(Exception):
    """As pynvml's own."""


def fake_nvml(*, supported: bool) -> ModuleType:
    module = ModuleType("pynvml")

    def answer(value: object) -> object:
        def asked(*_: object) -> object:
            if not supported:
                raise NotSupportedError
            return value

        return asked

    vars(module).update(
        NVMLError=NotSupportedError,
        NVML_TEMPERATURE_GPU=0,
        NVML_CLOCK_SM=1,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetPowerUsage=answer(72500),
        nvmlDeviceGetTemperature=answer(61),
        nvmlDeviceGetClockInfo=answer(1980),
        nvmlDeviceGetMemoryInfo=answer(SimpleNamespace(used=123456789)),
    )
    return module


def test_nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(supported=True))
    reading = find_sensors(tmp_path).read(0.0)
    assert reading.watts == {"NVML GPU board": 72.5}
    assert (reading.celsius, reading.mhz) == ({"NVML GPU": 61.0}, {"NVML GPU": 1980.0})
    nvml = Nvml.open()
    assert nvml is not None
    assert nvml.used_bytes() == 123456789


def test_nvml_that_knows_only_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(supported=False))
    reading = find_sensors(tree(tmp_path, ORIN_NANO)).read(0.0)
    assert "NVML GPU board" not in reading.watts
    assert "VDD_IN" in reading.watts
    nvml = Nvml.open()
    assert nvml is not None
    assert nvml.used_bytes() is None


def test_nvml_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    module = fake_nvml(supported=True)

    def no_driver() -> None:
        raise NotSupportedError

    vars(module)["nvmlInit"] = no_driver
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert Nvml.open() is None


def test_the_sampler_reads_beside_the_work_and_ends_with_it() -> None:
    threads = threading.active_count()
    with Sampler(Sensors(watts=(lambda: {"rail": 2.0},)), 0.005) as sampler:
        deadline = time.monotonic() + 10
        while len(sampler.readings) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        sampler.begin()
        idle = len(sampler.readings)
        while len(sampler.readings) < idle + 3 and time.monotonic() < deadline:
            time.sleep(0.005)
    times = [reading.at_s for reading in sampler.readings]
    assert times == sorted(times)
    assert all(at_s <= 0 for at_s in times[:idle])
    assert all(at_s > 0 for at_s in times[idle + 1 :])  # one may have begun before the clock
    assert len(times) >= idle + 3
    assert threading.active_count() == threads


def test_the_facts_of_a_jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "bin" / "nvpmodel"
    answer = "#!/bin/sh\necho NV Power Mode: MAXN_SUPER\necho 2\n"
    tree(tmp_path, {**ORIN_NANO, "bin/nvpmodel": answer})
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    machine = describe_machine(tmp_path)
    assert machine.board == machine.cpu == "NVIDIA Jetson Orin Nano Developer Kit"
    assert (machine.l4t, machine.power_mode, machine.governor) == (
        "36.4.3",
        "MAXN_SUPER",
        "schedutil",
    )
    assert (machine.cpu_mhz, machine.gpu_mhz) == (1728.0, 1020.0)
    assert machine.cpu_features == ("asimd", "asimddp")
    assert machine.memory_bytes == 7802096 * 1024
    assert machine.versions["numpy"]


def test_a_tool_that_hangs_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvpmodel"
    tree(tmp_path, {"nvpmodel": "#!/bin/sh\nexec sleep 60\n"})
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("cycleisp_runtime.bench.machine.MODE_SECONDS", 0.2)
    begin = time.monotonic()
    assert describe_machine(tmp_path).power_mode is None
    assert time.monotonic() - begin < 30


def test_a_busy_machine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    for load in (0.1, 1.7):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0.0, 0.0))
        told.append(busy_warning(describe_machine(tmp_path)))
    assert told[0] is None
    assert "1.7 processes" in str(told[1])
