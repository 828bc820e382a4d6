"""Memory and time of `normcheck analyze`, as whole commands, beside what was promised.

    python tests/benchmarks/analyze.py [--only sharded|mobilenet] [--repeat 2]

`sharded`: a directory of 2 GiB as transformers saves a Llama, two shards of bfloat16 weights with 201 norms between
them; what counts is peak memory. `mobilenet`: the 52 batch norms (17,056 channels) of a MobileNetV2 beside its
convolutions, saved with torch; what counts is time, in all and to the first line on stderr.

Every run is a process of its own. This one imports nothing large: a child's peak memory is at least its parent's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

MEMORY_TARGET, TIME_TARGET = 700, 60
"""MiB for the sharded directory, seconds for the MobileNetV2."""

HIDDEN, INTERMEDIATE, BLOCKS, VOCABULARY = 1024, 2048, 100, 32000
SETTINGS = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
"""Of MobileNetV2's blocks: expansion, output channels, repetitions."""


@dataclass(frozen=True)
class Run:
    """What one command took, in seconds by the clock, and by the processors, which what else runs does not change.

    `first` is the time to its first line on stderr, None where it wrote none; the peak is in MiB.
    """

    code: int
    seconds: float
    processor: float
    first: float | None
    peak: float
    layers: int


def run(arguments: list[str], output: Path) -> Run:
    """Run `normcheck analyze`; its JSON goes into `output`."""
    command = [sys.executable, "-m", "normcheck", "analyze", *arguments, "--json", str(output)]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        first, said = None, b""
        for line in process.stderr or ():
            first = first or time.perf_counter() - start
            said += line
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = code = os.waitstatus_to_exitcode(status)
    if code not in {0, 1}:
        raise SystemExit(f"{' '.join(command)}: exit {code}\n{said.decode()}")
    peak = usage.ru_maxrss * (1024 if sys.platform == "linux" else 1) / 2**20
    processor = usage.ru_utime + usage.ru_stime
    return Run(code, seconds, processor, first, peak, json.loads(output.read_text())["summary"]["layers"])


# -------------------------------------------------------------------------------------------------- a large Llama


def make_sharded(directory: Path) -> int:
    """Write the directory and return its size in bytes; the matrices are holes, the norms are not."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": BLOCKS,
        "rms_norm_eps": 1e-5,
        "vocab_size": VOCABULARY,
    }
    (directory / "config.json").write_text(json.dumps(config))
    shapes = {"model.embed_tokens.weight": [VOCABULARY, HIDDEN], "model.norm.weight": [HIDDEN]}
    for block in range(BLOCKS):
        shapes |= {f"model.layers.{block}.{name}": shape for name, shape in _block_shapes().items()}
    names = list(shapes)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    index = {}
    for number, half in enumerate(halves, 1):
        file = directory / f"model-{number:05}-of-00002.safetensors"
        _write_shard(file, {name: shapes[name] for name in half})
        index |= dict.fromkeys(half, file.name)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return sum(file.stat().st_size for file in directory.iterdir())


def _block_shapes() -> dict[str, list[int]]:
    attention = {f"self_attn.{p}_proj.weight": [HIDDEN, HIDDEN] for p in "qkvo"}
    up = {f"mlp.{p}_proj.weight": [INTERMEDIATE, HIDDEN] for p in ("gate", "up")}
    norms = {f"{name}_layernorm.weight": [HIDDEN] for name in ("input", "post_attention")}
    return norms | attention | up | {"mlp.down_proj.weight": [HIDDEN, INTERMEDIATE]}


def _write_shard(file: Path, shapes: dict[str, list[int]]) -> None:
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    numbers = random.Random(0)  # noqa: S311 - weights, no secrets
    with file.open("wb") as shard:
        shard.write(struct.pack("<Q", len(text)) + text)
        begin = shard.tell()
        for name, shape in shapes.items():
            if len(shape) == 1:
                shard.seek(begin + header[name]["data_offsets"][0])
                floats = struct.pack(f"<{shape[0]}f", *(numbers.lognormvariate(0, 0.3) for _ in range(shape[0])))
                shard.write(b"".join(floats[i + 2 : i + 4] for i in range(0, len(floats), 4)))
        shard.truncate(begin + end)


# --------------------------------------------------------------------------------------------------- a MobileNetV2


def make_mobilenet(file: Path) -> None:
    """Write the state dict of a MobileNetV2, under torchvision's names, with running statistics as after training."""
    import torch  # in a process of its own

    torch.manual_seed(0)
    state: dict[str, torch.Tensor] = {}

    def convolution(name: str, shape: tuple[int, ...]) -> None:
        state[f"{name}.weight"] = torch.randn(shape) * 0.1

    def norm(name: str, channels: int) -> None:
        state[f"{name}.weight"] = torch.rand(channels) + 0.5
        state[f"{name}.bias"] = torch.randn(channels) * 0.5
        state[f"{name}.running_mean"] = torch.randn(channels)
        state[f"{name}.running_var"] = torch.randn(channels).mul(0.7).exp()
        state[f"{name}.num_batches_tracked"] = torch.tensor(100_000)

    convolution("features.0.0", (32, 3, 3, 3))
    norm("features.0.1", 32)
    channels, index = 32, 1
    for expansion, out, repeats in SETTINGS:
        for _ in range(repeats):
            name, wide, step = f"features.{index}.conv", channels * expansion, 0
            if expansion > 1:
                convolution(f"{name}.0.0", (wide, channels, 1, 1))
                norm(f"{name}.0.1", wide)
                step = 1
            convolution(f"{name}.{step}.0", (wide, 1, 3, 3))
            norm(f"{name}.{step}.1", wide)
            convolution(f"{name}.{step + 1}", (out, wide, 1, 1))
            norm(f"{name}.{step + 2}", out)
            channels, index = out, index + 1
    convolution("features.18.0", (1280, channels, 1, 1))
    norm("features.18.1", 1280)
    state |= {"classifier.1.weight": torch.randn(1000, 1280) * 0.02, "classifier.1.bias": torch.zeros(1000)}
    norms = [array.numel() for name, array in state.items() if name.endswith("running_var")]
    if (len(norms), sum(norms)) != (52, 17_056):
        raise SystemExit(f"not a MobileNetV2: {len(norms)} norms of {sum(norms)} channels")
    torch.save(state, file)


# ------------------------------------------------------------------------------------------------------- the runs


def _line(what: str, measured: str, target: str) -> None:
    print(f"  {what:<28} {measured:>14}   {target}")


def sharded(work: Path, repeat: int) -> None:
    """Measure the large directory."""
    directory = work / "llama"
    directory.mkdir()
    size = make_sharded(directory)
    print(f"sharded safetensors, {size / 2**30:.2f} GiB, {2 * BLOCKS + 1} norms")
    for _ in range(repeat):
        done = run([str(directory), "--format", "json"], work / "llama.json")
        _check(done.layers, 2 * BLOCKS + 1)
        _line("peak memory", f"{done.peak:.0f} MiB", f"target {MEMORY_TARGET} MiB: {_met(done.peak, MEMORY_TARGET)}")
        _line("time", f"{done.seconds:.1f} s", f"{done.processor:.1f} s of processors, exit {done.code}")


def mobilenet(work: Path, repeat: int) -> None:
    """Measure the batch norms."""
    file = work / "mobilenet_v2.pt"
    subprocess.run([sys.executable, __file__, "--make", str(file)], check=True)
    print(f"MobileNetV2, {file.stat().st_size / 2**20:.1f} MiB, 52 batch norms, fp16, bf16 and fp32")
    for _ in range(repeat):
        done = run([str(file), "--precision", "fp16,bf16,fp32"], work / "mobilenet.json")
        _check(done.layers, 52)
        _line("time", f"{done.seconds:.1f} s", f"target {TIME_TARGET} s: {_met(done.seconds, TIME_TARGET)}")
        _line("time of processors", f"{done.processor:.1f} s", "")
        _line("to the first line on stderr", "none" if done.first is None else f"{done.first:.1f} s", "")
        _line("peak memory", f"{done.peak:.0f} MiB", f"exit {done.code}")


def _met(measured: float, target: float) -> str:
    return "met" if measured <= target else "MISSED"


def _check(layers: int, expected: int) -> None:
    if layers != expected:
        raise SystemExit(f"{layers} layers were analysed, {expected} are there: the figures would mean nothing")


def main() -> None:
    """Make the models in a temporary directory, run, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("sharded", "mobilenet"), help="measure one of the two")
    parser.add_argument("--repeat", type=int, default=2, help="runs of each; the first one may compile kernels")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make is not None:
        make_mobilenet(arguments.make)
        return
    with tempfile.TemporaryDirectory() as work:
        for measure in (sharded, mobilenet):
            if arguments.only in {None, measure.__name__}:
                measure(Path(work), arguments.repeat)


if __name__ == "__main__":
    main()
