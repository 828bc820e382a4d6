"""Whose kernels there are: each project is run in a process of its own, once for each of its environments."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from normcheck.errors import UsageError, unknown_name
from normcheck.fidelity.hosts import widest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from normcheck.fidelity.kernel import Kernel


@dataclass(frozen=True, slots=True)
class Project:
    """Kernels of one library.

    name: as it is asked for. module: with ``kernels() -> tuple[Kernel, ...]``. title: in words. packages: distributions
    without which it cannot be run. environment: variables for the process. isas: instruction sets that the library can
    be told to use, by what to set for them; empty where it cannot be told. by_torch: whether torch computes.
    """

    name: str
    module: str
    title: str
    packages: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    isas: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    by_torch: bool = False

    def kernels(self) -> tuple[Kernel, ...]:
        """Return its kernels; imports the library.

        Raises:
            ImportError: the library is not there.
        """
        found: tuple[Kernel, ...] = importlib.import_module(f"normcheck.fidelity.kernels.{self.module}").kernels()
        return found


_ATEN: dict[str, Mapping[str, str]] = {
    isa: {"ATEN_CPU_CAPABILITY": isa.lower()} for isa in ("AVX512", "AVX2", "DEFAULT")
}
"""torch's instruction sets on x86, the widest first, and how it is told."""

PROJECTS: dict[str, Project] = {
    row.name: row
    for row in (
        Project("torch-cpu", "torch_cpu", "PyTorch on the CPU", ("torch",), isas=_ATEN, by_torch=True),
        Project("transformers", "transformers", "Hugging Face Transformers", ("transformers", "torch"), by_torch=True),
        Project("onnx-reference", "onnx_reference", "the reference evaluator of ONNX", ("onnx",)),
        Project("onnxruntime", "onnxruntime", "ONNX Runtime on the CPU", ("onnxruntime", "onnx")),
        Project("flax", "flax", "Flax on JAX on the CPU", ("flax", "jax"), {"JAX_PLATFORMS": "cpu"}),
        Project(
            "keras-torch", "keras", "Keras 3 on PyTorch", ("keras", "torch"), {"KERAS_BACKEND": "torch"}, by_torch=True
        ),
        Project(
            "keras-jax", "keras", "Keras 3 on JAX", ("keras", "jax"), {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
        ),
        Project("mlx", "mlx", "MLX on the CPU", ("mlx",)),
        Project("tinygrad", "tinygrad", "tinygrad on the CPU", ("tinygrad",), {"DEV": "CPU"}),
        Project("cuda", "cuda", "PyTorch and Triton on a GPU of NVIDIA", ("torch",), by_torch=True),
    )
}


def projects_named(names: Iterable[str]) -> tuple[Project, ...]:
    """Return the projects of these names, each once, in the order of the table; all for no names.

    Raises:
        UsageError: a name that no project has.
    """
    wanted = {name.strip().lower() for name in names}
    for name in sorted(wanted - set(PROJECTS)):
        error = unknown_name("project", name, PROJECTS, "python -m normcheck.fidelity --help")
        raise UsageError(f"{error}: {', '.join(PROJECTS)}")
    return tuple(row for row in PROJECTS.values() if row.name in wanted or not wanted)


def environments(project: Project, isas: Iterable[str] = ()) -> tuple[Mapping[str, str], ...]:
    """Return the variables of each process: one for each instruction set that this machine has, or that is asked for.

    Raises:
        UsageError: an instruction set that the machine does not have.
    """
    if not project.isas:
        return (project.environment,)
    names = list(project.isas)
    here = names[names.index(widest()) :] if widest() in names else []
    wanted = [name.strip().upper().replace("-", "") for name in isas] or here
    for name in wanted:
        if name not in here:
            raise UsageError(f"instruction set {name!r}: {project.title} has {', '.join(here) or 'just one'} here")
    return tuple({**project.environment, **project.isas[name]} for name in wanted) or (project.environment,)
