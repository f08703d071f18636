"""A driver that is missing, fails, hangs, loses a GPU, and what becomes of that."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.fakes.nvml import TWO_GPUS, FakeNvml, ReaderProcess, Reading
from tests.telemetry.gpu_expectations import expect_sound, values_of

MINUTE = 60.0


def answered(reader: ReaderProcess) -> Reading:
    deadline = time.monotonic() + 60.0
    while (reading := reader.read()).backend.status == "error":
        assert time.monotonic() < deadline
    return reading


def test_no_gpu_then_one(nvml: FakeNvml) -> None:
    nvml.script("gpus 0", "text nvmlSystemGetDriverVersion * 580.95.05")
    with nvml.reader() as reader:
        reading = reader.read()
        assert (reading.gpus, reading.backend.status, reading.backend.driver_version) == ([], "no_gpu", "580.95.05")
        assert reading.logged == ["INFO GPUs: the NVIDIA driver finds no GPU"]
        nvml.script(TWO_GPUS)
        assert reader.read(advance=MINUTE - 1).backend.status == "no_gpu"
        assert len(reader.read(advance=2).gpus) == 2


def test_a_driver_that_appears(bare: FakeNvml) -> None:
    with bare.reader() as reader:
        reading = reader.read()
        assert (reading.gpus, reading.backend.status) == ([], "no_driver")
        assert len(reading.logged) == 1
        assert reading.logged[0].startswith("INFO ")
        assert [reader.read(advance=5.0).logged for _ in range(20)] == [[]] * 20
        assert not reader.read().has_bindings, "they are large, and of no use here"
        bare.script(TWO_GPUS)
        bare.install()
        reading = reader.read(advance=2 * MINUTE)
        assert (len(reading.gpus), reading.backend.status) == (2, "ok")
        assert reading.logged == ["INFO GPUs: 2, NVIDIA driver 580.95.05"]


def test_a_missing_driver_is_asked_ever_more_rarely(nvml: FakeNvml) -> None:
    nvml.script("fail nvmlInitWithFlags * 9")
    with nvml.reader() as reader:
        tries = []
        for second in range(0, 3600, 5):
            reading = reader.read(advance=5.0)
            tries += [second] * nvml.calls()["nvmlInitWithFlags"]
            assert reading.backend.status == "no_driver"
        assert tries == [0, 60, 180, 420, 900, 1500, 2100, 2700, 3300]
        nvml.script(TWO_GPUS)
        assert reader.read(advance=10 * MINUTE).backend.status == "ok"
        nvml.script(TWO_GPUS, "fail * * 9")
        assert reader.read(advance=5.0).backend.status == "no_driver"
        nvml.script(TWO_GPUS)
        assert reader.read(advance=MINUTE).backend.status == "ok", "a minute again"


@pytest.mark.parametrize(
    ("code", "status"), [(1, "error"), (9, "no_driver"), (18, "error"), (12, "no_driver")], ids=str
)
def test_a_driver_that_disappears_and_comes_back(nvml: FakeNvml, code: int, status: str) -> None:
    with nvml.reader() as reader:
        before = reader.read()
        nvml.script(TWO_GPUS, f"fail * * {code}")
        reading = reader.read(advance=5.0)
        assert (reading.gpus, reading.backend.status) == ([], status)
        assert reading.backend.detail
        assert len(reading.logged) == 1
        assert reading.logged[0].startswith("WARNING ")
        nvml.calls()
        assert not [reader.read(advance=5.0).logged for _ in range(11)][-1]
        assert not nvml.calls(), "it is left alone for a minute"
        nvml.script(TWO_GPUS)
        after = reader.read(advance=5.0)
        assert (after.gpus, after.backend) == (before.gpus, before.backend)
        assert len(after.logged) == 1


@pytest.mark.parametrize(("code", "failure"), [(15, "gpu_is_lost"), (16, "reset_required"), (28, "gpu_not_found")])
def test_one_gpu_is_lost_and_the_other_goes_on(nvml: FakeNvml, code: int, failure: str) -> None:
    with nvml.reader() as reader:
        before = reader.read()
        nvml.script(TWO_GPUS, f"fail * 0 {code}")
        reading = reader.read(advance=5.0)
        expect_sound(reading.gpus, reading.backend)
        assert reading.gpus[1] == before.gpus[1]
        assert reading.gpus[0].uuid == "GPU-aaaa"
        assert set(values_of(reading.gpus[0]).values()) == {None}
        assert set(reading.gpus[0].unavailable.values()) == {failure}
        assert (reading.backend.status, reading.backend.detail) == ("ok", f"GPU 0 cannot be read: {failure}")
        assert reading.logged == [f"WARNING GPUs: GPU 0 cannot be read: {failure}"]
        nvml.calls()
        assert not any(reader.read(advance=5.0).logged for _ in range(11))
        assert nvml.calls()["nvmlInitWithFlags"] == 0
        again = reader.read(advance=5.0)
        assert nvml.calls()["nvmlInitWithFlags"] == 1
        assert again.gpus[1] == before.gpus[1]
        assert not again.logged, "still the same"
        nvml.script(TWO_GPUS)
        after = reader.read(advance=2 * MINUTE)
        assert (after.gpus, after.backend) == (before.gpus, before.backend)


def test_the_only_gpu_is_lost(nvml: FakeNvml) -> None:
    nvml.script(TWO_GPUS, "gpus 1")
    with nvml.reader() as reader:
        assert reader.read().backend.status == "ok"
        nvml.script(TWO_GPUS, "gpus 1", "fail * 0 15")
        assert reader.read(advance=5.0).backend.status == "error"


def test_a_lost_gpu_that_the_driver_no_longer_lists_is_looked_for(nvml: FakeNvml) -> None:
    with nvml.reader() as reader:
        before = reader.read()
        nvml.script(TWO_GPUS, "gpus 1", "fail * 1 15")
        assert len(reader.read(advance=5.0).gpus) == 2
        reading = reader.read(advance=MINUTE)
        assert (len(reading.gpus), reading.backend.status) == (1, "ok")
        assert reading.backend.detail == "1 of 2 GPUs are missing"
        nvml.script(TWO_GPUS)
        assert reader.read(advance=2 * MINUTE).gpus == before.gpus


def test_a_reset_makes_handles_invalid_and_energy_begins_anew(nvml: FakeNvml) -> None:
    with nvml.reader() as reader:
        assert reader.read().gpus[0].energy_joules == 98765432.1
        nvml.script(TWO_GPUS, "generation 0 1", "value nvmlDeviceGetTotalEnergyConsumption 0 5000")
        reading = reader.read(advance=5.0)
        assert reading.backend.detail == "GPU 0 cannot be read: invalid_argument"
        assert set(values_of(reading.gpus[0]).values()) == {None}
        assert reading.gpus[1].energy_joules == 98765432.1
        reading = reader.read(advance=MINUTE)
        assert [gpu.energy_joules for gpu in reading.gpus] == [5.0, 98765432.1]
        assert (reading.backend.status, reading.backend.detail) == ("ok", None)


def test_a_call_that_hangs_holds_up_nothing(nvml: FakeNvml) -> None:
    with nvml.reader(timeout_seconds=2.0) as reader:
        before = answered(reader)
        nvml.script(TWO_GPUS, "hang nvmlDeviceGetPowerUsage")
        reading = reader.read()
        assert (reading.gpus, reading.backend.status) == ([], "error")
        assert reading.backend.detail == "the driver does not answer"
        assert reading.duration_seconds >= 2.0
        assert len(reading.logged) == 1
        nvml.calls()
        for _ in range(3):
            reading = reader.read()
            assert reading.backend.status == "error"
            assert reading.duration_seconds < 2.0, "it is not waited for again"
            assert not reading.logged
            assert reading.threads == 1
        assert not nvml.calls(), "nothing else is asked meanwhile"
        nvml.script(TWO_GPUS, "value nvmlDeviceGetTemperatureV 0 99")
        reading = answered(reader)
        assert reading.gpus[0].temperature_celsius == 99, "not what the late answer said"
        assert (reading.backend, reading.threads) == (before.backend, 1)
        assert len(reading.logged) == 1


@pytest.mark.parametrize("is_closed", [True, False])
def test_the_program_ends_while_a_call_hangs(nvml: FakeNvml, *, is_closed: bool) -> None:
    nvml.script(TWO_GPUS, "hang nvmlInitWithFlags")
    with nvml.reader(timeout_seconds=0.2) as reader:
        assert reader.read().backend.status == "error"
        if is_closed:
            reader.close()
        assert reader.exit_code() == 0


def test_bindings_of_a_foreign_version_are_an_error_of_the_driver(nvml: FakeNvml, tmp_path: Path) -> None:
    (tmp_path / "pynvml.py").write_text("class NVMLError(Exception): pass")
    nvml.environment["PYTHONPATH"] = str(tmp_path)
    with nvml.reader() as reader:
        reading = reader.read()
        assert (reading.gpus, reading.backend.status) == ([], "error")
        assert "has no attribute" in (reading.backend.detail or "")
        again = reader.read()
        assert (again.backend, again.logged, again.threads) == (reading.backend, [], 1)


def test_closing_lets_go_of_the_driver(nvml: FakeNvml) -> None:
    with nvml.reader() as reader:
        reader.read()
        reader.close()
        assert nvml.calls()["nvmlShutdown"] == 1
        reading = reader.read()
        assert (reading.gpus, reading.backend.status, reading.threads) == ([], "disabled", 0)
        assert reader.exit_code() == 0


def test_no_permission_for_the_driver_or_for_some_gpus(nvml: FakeNvml) -> None:
    nvml.script(TWO_GPUS, "fail nvmlDeviceGetHandleByIndex_v2 0 4")
    with nvml.reader() as reader:
        reading = reader.read()
        assert [gpu.index for gpu in reading.gpus] == [1]
        assert (reading.backend.status, reading.backend.detail) == ("ok", None)
    nvml.script(TWO_GPUS, "fail nvmlDeviceGetHandleByIndex_v2 * 4")
    with nvml.reader() as reader:
        assert (reader.read().gpus, reader.read().backend.status) == ([], "no_permission")
    nvml.script(TWO_GPUS, "fail nvmlInitWithFlags * 4")
    with nvml.reader() as reader:
        reading = reader.read()
        assert (reading.gpus, reading.backend.status) == ([], "no_permission")
        nvml.script(TWO_GPUS)
        assert len(reader.read(advance=MINUTE).gpus) == 2
