import math
from pathlib import Path

from loopdit.deploy.bench.energy import EnergyMeter


def counter(folder: Path, name: str, energy_uj: int, most: int = 1_000_000) -> Path:
    package = folder / name
    package.mkdir(parents=True)
    (package / "max_energy_range_uj").write_text(f"{most}\n")
    (package / "energy_uj").write_text(f"{energy_uj}\n")
    return package / "energy_uj"


def test_packages_are_added_and_their_parts_are_not(tmp_path: Path):
    first = counter(tmp_path, "intel-rapl:0", 100)
    second = counter(tmp_path, "intel-rapl:1", 200)
    part = counter(tmp_path, "intel-rapl:0:0", 0)
    meter = EnergyMeter(tmp_path)
    assert meter.problem is None
    for path, more in ((first, 150), (second, 260), (part, 900)):
        path.write_text(str(more))
    assert math.isclose(meter.joules(), 110e-6)


def test_a_counter_that_wraps_is_counted_on(tmp_path: Path):
    path = counter(tmp_path, "intel-rapl:0", 990, most=999)
    meter = EnergyMeter(tmp_path)
    path.write_text("15")
    assert math.isclose(meter.joules(), 25e-6)


def test_without_counters_the_reading_is_not_a_number_and_the_reason_is_said(tmp_path: Path):
    meter = EnergyMeter(tmp_path)
    meter.start()
    assert math.isnan(meter.joules())
    assert meter.problem is not None
    assert str(tmp_path) in meter.problem


def test_a_counter_that_cannot_be_read_is_a_reason_not_an_error(tmp_path: Path):
    counter(tmp_path, "intel-rapl:0", 5).unlink()  # root alone may read it, on most machines
    meter = EnergyMeter(tmp_path)
    assert math.isnan(meter.joules())
    assert meter.problem is not None
    assert "cannot be read" in meter.problem
