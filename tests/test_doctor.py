"""The doctor: judgements over planted facts, and one look at the machine that runs the tests."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from yunque.doctor import (
    GIB,
    PACKAGES,
    PYTHON,
    Check,
    Cpu,
    Facts,
    Gpu,
    Package,
    Torch,
    cudnn_version,
    diagnose,
    judge,
    look_at,
    parse,
    render,
    runs,
    to_json,
)
from yunque.words import say, table

GOOD = {
    "numpy": "2.4.6",
    "torch": "2.13.0+cu130",
    "transformers": "5.23.0",
    "tokenizers": "0.23.3",
    "tiktoken": "0.14.0",
    "sentencepiece": "0.2.1",
    "pyarrow": "18.0.0",
    "zstandard": "0.25.0",
    "safetensors": "0.8.0",
    "accelerate": "1.15.0",
    "plotly": "7.1.0",
    "matplotlib": "3.11.2",
    "peft": "0.19.0",
    "bitsandbytes": "0.49.0",
    "gguf": "0.19.0",
    "datasets": "4.4.0",
}
CU130 = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
RTX_3060 = Gpu("RTX 3060", "sm_86", (8, 6), 12 * GIB, 11 * GIB)
GTX_1050_TI = Gpu("GTX 1050 Ti", "sm_61", (6, 1), 4 * GIB)
FACTS = Facts(
    python=(3, 12, 3),
    packages={name: Package(version) for name, version in GOOD.items()},
    torch=Torch(cuda="13.0", cudnn=91002, arch_list=CU130, gpus=(RTX_3060,)),
    driver="580.65.06",
    cpu=Cpu("Test CPU", 8, 8, ("AVX2", "AVX-512"), fp32_rate=80.0, bf16_rate=16.0),
    memory_bytes=32 * GIB,
    available_bytes=20 * GIB,
    disk_bytes=100 * GIB,
    compiler="/usr/bin/c++",
)


def found(facts: Facts) -> dict[str, Check]:
    checks = judge(facts)
    assert len({check.id for check in checks}) == len(checks)
    return {check.id: check for check in checks}


def with_torch(**changes: Any) -> Facts:
    assert FACTS.torch is not None
    return dataclasses.replace(FACTS, torch=dataclasses.replace(FACTS.torch, **changes))


def with_package(name: str, package: Package | None) -> Facts:
    packages = {key: value for key, value in FACTS.packages.items() if key != name}
    if package is not None:
        packages[name] = package
    return dataclasses.replace(FACTS, packages=packages)


def test_a_sound_machine_has_every_layer_and_nothing_to_mend() -> None:
    checks = found(FACTS)
    assert list(checks) == [
        "python",
        "numpy",
        "torch",
        "cuda_driver",
        "cuda_runtime",
        "cudnn",
        "gpu.0",
        "gpu.0.memory",
        "gpu.0.precision",
        "transformers",
        "tokenizers",
        "tiktoken",
        "sentencepiece",
        "pyarrow",
        "zstandard",
        "safetensors",
        "accelerate",
        "peft",
        "plotly",
        "matplotlib",
        "bitsandbytes",
        "gguf",
        "datasets",
        "cpu",
        "cpu_features",
        "matmul",
        "memory",
        "disk",
        "compiler",
    ]
    assert {check.status for check in checks.values()} == {"ok"}
    assert all(check.fix == "" for check in checks.values())
    assert checks["torch"].found == "2.13.0+cu130 (CUDA 13.0)"
    assert checks["cudnn"].found == "9.10.2"
    assert checks["gpu.0.memory"].found == "12.0 GiB"
    assert checks["gpu.0.memory"].text["en"] == "11.0 GiB of it are free."
    assert checks["gpu.0.precision"].found == "bf16"


def test_versions_are_those_of_the_project_file() -> None:
    path = Path(__file__).parents[1] / "pyproject.toml"
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    wanted = {re.split(r"[<>=]", line)[0]: line for line in project["dependencies"]}
    for needed in PACKAGES:
        if needed.required:
            assert needed.requirement.strip('"') == wanted[needed.name]
        else:
            assert needed.name not in wanted
    assert project["requires-python"] == f">={PYTHON[0]}.{PYTHON[1]}"


@pytest.mark.parametrize(
    ("name", "package", "status", "fix"),
    [
        ("transformers", None, "missing", 'pip install "transformers>=4.56"'),
        ("torch", Package("2.10.1"), "old", 'pip install --upgrade "torch>=2.11,<2.14"'),
        ("torch", Package("2.14.0"), "unusable", 'pip install "torch>=2.11,<2.14"'),
        ("accelerate", Package("1.9.9"), "old", 'pip install --upgrade "accelerate>=1.10"'),
        ("accelerate", Package("1.10.0"), "ok", ""),
        ("gguf", None, "missing", "pip install gguf"),
        (
            "bitsandbytes",
            Package("0.49.0", "OSError: libcudart.so.12"),
            "unusable",
            "pip install --force-reinstall bitsandbytes",
        ),
    ],
)
def test_packages(name: str, package: Package | None, status: str, fix: str) -> None:
    check = found(with_package(name, package))[name]
    assert (check.status, check.fix) == (status, fix)
    if package is not None and package.error:
        assert package.error in check.text["en"]
        assert package.error in check.text["es"]
    assert check.required == (name not in ("gguf", "bitsandbytes", "datasets"))


def test_versions_compare_as_numbers() -> None:
    assert parse("2.13.0+cpu") == (2, 13, 0)
    assert parse("1.10.0rc1") > parse("1.9.9")
    assert parse("unknown") == ()


def test_old_python() -> None:
    check = found(dataclasses.replace(FACTS, python=(3, 10, 14)))["python"]
    assert (check.status, check.found, check.needed) == ("old", "3.10.14", ">=3.11")
    assert "3.11" in check.text["es"]


def test_a_gtx_1050_ti_with_a_build_without_pascal() -> None:
    checks = found(with_torch(gpus=(GTX_1050_TI,)))
    gpu = checks["gpu.0"]
    assert gpu.status == "unusable"
    assert gpu.found == "GTX 1050 Ti, sm_61"
    assert "sm_75 sm_80" in gpu.text["en"]
    assert "--torch-backend=cu126" in gpu.fix
    assert "gpu.0.memory" not in checks
    cu126 = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")
    checks = found(with_torch(gpus=(GTX_1050_TI,), arch_list=cu126, cuda="12.6"))
    assert checks["gpu.0"].status == "ok"
    assert checks["gpu.0.precision"].found == "fp32"


@pytest.mark.parametrize(
    ("capability", "arch_list", "expected"),
    [
        ((8, 6), ("sm_86",), True),
        ((8, 9), ("sm_86",), True),  # same major version, newer minor
        ((8, 0), ("sm_86",), False),  # same major version, older minor
        ((9, 0), ("sm_80", "sm_86"), False),
        ((9, 0), ("sm_80", "compute_80"), True),  # the driver translates PTX
        ((7, 5), ("compute_80",), False),
        ((12, 1), ("sm_120",), True),
        ((9, 0), ("sm_90a",), False),  # code for one architecture alone
        ((6, 1), CU130, False),
        ((10, 0), CU130, True),
    ],
)
def test_which_code_runs_where(
    capability: tuple[int, int], arch_list: tuple[str, ...], expected: bool
) -> None:
    gpu = Gpu("", f"sm_{capability[0]}{capability[1]}", capability, GIB)
    assert runs(gpu, arch_list) is expected


def test_amd_code_runs_on_its_own_architecture() -> None:
    assert runs(Gpu("MI210", "gfx90a", (9, 0), GIB), ("gfx906", "gfx90a"))
    assert not runs(Gpu("MI50", "gfx908", (9, 0), GIB), ("gfx906", "gfx90a"))


def test_kepler_has_no_build_and_a_new_gpu_needs_a_newer_one() -> None:
    kepler = Gpu("K40", "sm_35", (3, 5), GIB)
    assert found(with_torch(gpus=(kepler,)))["gpu.0"].fix == ""
    coming = Gpu("Next", "sm_130", (13, 0), GIB)
    facts = with_torch(gpus=(coming,), arch_list=("sm_75", "sm_120"))
    assert "--torch-backend=auto" in found(facts)["gpu.0"].fix


def test_gpu_whose_first_computation_fails() -> None:
    gpu = dataclasses.replace(RTX_3060, error="AcceleratorError: out of memory")
    check = found(with_torch(gpus=(gpu,)))["gpu.0"]
    assert check.status == "unusable"
    assert "AcceleratorError: out of memory" in check.text["es"]


def test_nvidia_gpu_with_the_cpu_build() -> None:
    facts = dataclasses.replace(FACTS, torch=Torch())
    checks = found(facts)
    assert checks["cuda_driver"].status == "ok"
    assert checks["cuda_runtime"].status == "missing"
    assert "--torch-backend=auto" in checks["cuda_runtime"].fix
    assert checks["gpu"].status == "unusable"


def test_machine_without_gpu_has_nothing_to_mend() -> None:
    facts = dataclasses.replace(FACTS, torch=Torch(), driver="")
    checks = found(facts)
    for layer in ("cuda_driver", "cuda_runtime", "cudnn", "gpu"):
        assert (checks[layer].status, checks[layer].fix) == ("missing", "")
        assert not checks[layer].required
    assert checks["torch"].found == "2.13.0+cu130 (CPU)"


def test_driver_too_old_for_the_build() -> None:
    error = "RuntimeError: The NVIDIA driver on your system is too old (found version 11040)"
    checks = found(with_torch(gpus=(), arch_list=(), cuda_error=error))
    assert checks["cuda_driver"].status == "old"
    assert "11040" in checks["cuda_driver"].text["en"]
    assert "--torch-backend=auto" in checks["cuda_driver"].fix
    checks = found(with_torch(gpus=(), arch_list=(), cuda_error="RuntimeError: unknown error"))
    assert checks["cuda_driver"].status == "unusable"


def test_apple_and_amd() -> None:
    apple = found(dataclasses.replace(FACTS, torch=Torch(mps=True), driver=""))
    assert apple["gpu"].found == "Apple Metal"
    assert "cuda_driver" not in apple
    gpu = Gpu("MI210", "gfx90a", (9, 0), 64 * GIB)
    amd = found(
        dataclasses.replace(
            FACTS, torch=Torch(hip="6.4", arch_list=("gfx90a",), gpus=(gpu,)), driver=""
        )
    )
    assert amd["gpu.0"].status == "ok"
    assert amd["torch"].found.endswith("(ROCm 6.4)")
    assert "cuda_driver" not in amd


def test_volta_and_turing_train_faster_in_fp16() -> None:
    turing = Gpu("T4", "sm_75", (7, 5), 16 * GIB)
    check = found(with_torch(gpus=(turing,)))["gpu.0.precision"]
    assert check.found == "fp16"
    assert "precision auto takes fp32" in check.text["en"]


@pytest.mark.parametrize(
    ("features", "bf16_rate", "sentence", "fix"),
    [
        (("AVX2",), 16.0, "bf16 is slower than fp32 on this CPU: precision auto takes fp32.", ""),
        (("AVX2", "AMX BF16"), 900.0, "precision auto takes bf16.", ""),
        (("AVX2",), 90.0, "takes fp32 on this CPU, but bf16 measured faster", "bf16"),
        (("AVX2", "AVX-512 BF16"), 60.0, "takes bf16 on this CPU, but fp32", "fp32"),
    ],
)
def test_measured_rates_against_what_auto_takes(
    features: tuple[str, ...], bf16_rate: float, sentence: str, fix: str
) -> None:
    cpu = dataclasses.replace(FACTS.cpu, features=features, bf16_rate=bf16_rate)
    check = found(dataclasses.replace(FACTS, cpu=cpu))["matmul"]
    assert sentence in check.text["en"]
    assert check.fix.removeprefix("yunque pretrain … --precision ") == fix
    assert check.found == f"fp32 80, bf16 {bf16_rate:.0f} GFLOP/s"


def test_cpu_memory_disk_and_compiler() -> None:
    old = dataclasses.replace(FACTS.cpu, features=(), fp32_rate=0.0)
    facts = dataclasses.replace(
        FACTS, cpu=old, memory_bytes=None, available_bytes=None, disk_bytes=GIB // 2, compiler=""
    )
    checks = found(facts)
    assert checks["cpu_features"].status == "old"
    assert "matmul" not in checks
    assert (checks["memory"].found, checks["memory"].status) == ("", "ok")
    assert (checks["disk"].found, checks["disk"].status) == ("0.5 GiB", "missing")
    assert checks["compiler"].status == "missing"
    arm = dataclasses.replace(FACTS.cpu, features=("NEON",), x86=False)
    assert found(dataclasses.replace(FACTS, cpu=arm))["cpu_features"].status == "ok"
    assert found(dataclasses.replace(FACTS, headers=False))["compiler"].status == "unusable"


def test_without_a_usable_torch_the_rest_is_still_judged() -> None:
    packages = {**FACTS.packages, "torch": Package("2.13.0", "OSError: libtorch_cpu.so")}
    checks = found(dataclasses.replace(FACTS, packages=packages, torch=None))
    assert checks["torch"].status == "unusable"
    assert "gpu" not in checks
    assert checks["transformers"].status == "ok"


def test_cudnn_versions() -> None:
    assert cudnn_version(91002) == "9.10.2"
    assert cudnn_version(8902) == "8.9.2"
    assert cudnn_version(0) == ""


def plant(folder: Path, name: str, source: str) -> None:
    """An installed package with this source."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(source, encoding="utf-8")
    (folder / f"{name}-1.2.3.dist-info").mkdir()
    (folder / f"{name}-1.2.3.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2.3\n", encoding="utf-8"
    )


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("x = 1", ""),
        ("raise OSError('libcudart.so.12: cannot open\\nmore')", "OSError: libcudart.so.12"),
        ("import no_such_module_at_all", "ModuleNotFoundError: No module named"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError"),
    ],
)
def test_an_installed_package_is_really_imported(
    source: str,
    error: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plant(tmp_path, "yunque_planted", f"print('noise')\n{source}")
    monkeypatch.syspath_prepend(tmp_path)
    package = look_at("yunque_planted")
    sys.modules.pop("yunque_planted", None)
    assert package is not None
    assert package.version == "1.2.3"
    assert package.error.startswith(error)
    assert bool(package.error) == bool(error)
    assert "more" not in package.error
    assert capsys.readouterr().out == ""


def test_absent_package() -> None:
    assert look_at("yunque_not_installed_anywhere") is None


def test_render_in_both_languages() -> None:
    checks = judge(with_package("gguf", None))
    english, spanish = render(checks, "en"), render(checks, "es")
    assert "missing   gguf" in english
    assert "→ pip install gguf" in english
    assert "falta       gguf" in spanish
    assert "Controlador NVIDIA" in spanish
    assert "Sirve para escribir archivos GGUF (opcional)." in spanish
    assert len(english.splitlines()) == 2 * len(checks) + 1


def test_placeholders_of_both_languages_agree() -> None:
    words = table("doctor")
    for key, (english, spanish) in words.items():
        places = [sorted(re.findall(r"\{(\w+)\}", text)) for text in (english, spanish)]
        assert places[0] == places[1], key
    for needed in PACKAGES:
        assert say(f"doctor.for_{needed.name}", "es")


def test_this_machine() -> None:
    checks = diagnose()
    by_id = {check.id: check for check in checks}
    import torch
    import transformers

    assert by_id["torch"].found.startswith(torch.__version__)
    assert by_id["torch"].status == "ok"
    assert by_id["transformers"].found == transformers.__version__
    assert by_id["python"].found == ".".join(map(str, sys.version_info[:3]))
    rates = re.fullmatch(r"fp32 (\d+), bf16 (\d+) GFLOP/s", by_id["matmul"].found)
    assert rates is not None
    assert int(rates[1]) > 0
    read = json.loads(json.dumps(to_json(checks)))["checks"]
    assert [row["id"] for row in read] == [check.id for check in checks]
    assert set(read[0]) == {
        "id",
        "name",
        "status",
        "found",
        "needed",
        "text",
        "fix",
        "required",
    }
    assert set(read[0]["text"]) == {"en", "es"}
