"""What torch's CPU kernels give, and what the engine's orders and recurrences do, in this process: printed as JSON."""

from __future__ import annotations

import json
import sys

import numpy as np
import torch

from normcheck.arithmetic.emulated import Emulated, Machine
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.operations import summed
from normcheck.arithmetic.orders import Layout, host_lanes, order_named
from normcheck.arithmetic.values import Elements

FLOAT32 = format_named("float32")
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
WIDTHS = (*range(1, 36), 63, 64, 65, 127, 129, 255, 257, 300, 513, 1000, 2049, 4097, 16391)
EPS = np.float32(1e-5)
portable = torch.backends.cpu.get_cpu_capability() == "DEFAULT"
rng = np.random.default_rng(101)


def draw(*shape):
    return ((rng.standard_normal(shape) * np.exp(rng.standard_normal(shape))) + rng.integers(0, 3) * 10).astype("f4")


def moments(x, order, recurrence):
    a = Emulated(Machine({"mean": FLOAT32, "sum": FLOAT32}, {}), *x.shape)
    mean, total = a.moments("mean", "sum", Elements.of(x, FLOAT32), order_named(order), 0, recurrence)
    return mean.data[:, 0].astype("f4"), total.data[:, 0].astype("f4")


def sums(x, order, layout, *, square=False, fused=False, form="float32", partial="float32"):
    formats = {"sum": format_named(form), "partial": format_named(partial)}
    a = Emulated(Machine(formats, {"sum": order_named(order)}, layout=layout), *x.shape)
    terms = Elements.of(x * x if square and not fused else x, FLOAT32)
    return a.sum("sum", terms, terms if fused else None).data[:, 0]


def differing(*pairs):
    return [sum(int((a != b).sum()) for a, b in each) for each in zip(*pairs, strict=True)]


def row_sums():
    for n in WIDTHS:
        x = draw(3, n)
        yield [(summed(x, format="fp32", order="cascade").result, torch.from_numpy(x).sum(-1).numpy())]


def layer_norms(io):
    recurrence = "aten-cpu-portable" if portable else "aten-cpu-half-tail" if io == "fp16" else "aten-cpu"
    for n in WIDTHS:
        x = torch.from_numpy(draw(3, n)).to(DTYPES[io])
        _, mean, rstd = torch.native_layer_norm(x, (n,), torch.ones(n), torch.zeros(n), float(EPS))
        m, total = moments(x.float().numpy(), "rowwise" if io == "fp32" else "rowwise(simd, 2)", recurrence)
        r = np.float32(1) / np.sqrt(total / np.float32(n) + EPS)
        yield [(m, mean.numpy()[:, 0]), (r, rstd.numpy()[:, 0])]


def group_norms(io, *, large):
    for d in (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33):
        for h, w in ((32, 32), (33, 37)) if large else ((2, 2), (3, 5), (7, 7)):
            x = torch.from_numpy(draw(1, 2 * d, h, w)).to(DTYPES[io]).to(memory_format=torch.channels_last)
            if x.is_contiguous():
                continue
            run = h * w
            affine = torch.ones(2 * d), torch.zeros(2 * d)
            _, mean, rstd = torch.native_group_norm(x, *affine, 1, 2 * d, run, 2, float(EPS))
            rows, layout = x.float().contiguous().numpy().reshape(2, -1), Layout(run, True, torch.get_num_threads())
            half = "" if io == "fp32" else ", 2"
            order = "channels" if large else f"vertical(simd{half}{', serial' if portable else ''})"
            total = sums(rows, order, layout).astype("f4")
            squares = sums(rows, order, layout, square=True, fused=large and not portable).astype("f4")
            scale = np.float32(1) / np.float32(d * run)
            m = total * scale
            if portable:
                variance = squares * scale - m * m
            else:  # one rounding: in float64 the product is exact, and the sum off by far less than half an ulp
                variance = (squares.astype(float) * scale - (m * m).astype(float)).astype("f4")
            r = (1 / np.sqrt(np.maximum(variance, 0).astype(float) + float(EPS))).astype("f4")
            yield [(m, mean.numpy().ravel()), (r, rstd.numpy().ravel())]


def batch_norms(io, *, channels_last):
    threads = torch.get_num_threads()
    for samples in (1, 2, 5):
        for h, w in ((3, 5), (4, 4), (7, 9), (16, 16)):
            x = torch.from_numpy(draw(samples, 5, h, w)).to(DTYPES[io])
            x = x.to(memory_format=torch.channels_last) if channels_last else x
            n, run = samples * h * w, h * w
            _, mean, rstd = torch.native_batch_norm(x, torch.ones(5), torch.zeros(5), None, None, True, 0.1, float(EPS))
            rows = x.float().contiguous().numpy().transpose(1, 0, 2, 3).reshape(5, -1)
            layout = Layout(run, channels_last, threads)
            if channels_last:
                how = {"order": "threads", "layout": layout, "partial": "float64" if io == "fp32" else "float32"}
            elif io == "fp32":
                how = {"order": "sequential", "layout": Layout(), "form": "float64"}
            else:
                how = {"order": "runs", "layout": layout}
            m = (sums(rows, **how) / n).astype("f4")
            fused = channels_last and not portable
            total = sums(rows - m[:, None], square=True, fused=fused, **how).astype("f4")
            r = (1 / np.sqrt((total / np.float32(n)).astype(float) + float(EPS))).astype("f4")
            yield [(m, mean.numpy()), (r, rstd.numpy())]


def report():
    out = {"sum": differing(*row_sums())}
    for io in DTYPES:
        out[f"layer norm {io}"] = differing(*layer_norms(io))
        out[f"group norm {io}"] = differing(*group_norms(io, large=False))
        out[f"large group norm {io}"] = differing(*group_norms(io, large=True))
        out[f"batch norm {io}"] = differing(*batch_norms(io, channels_last=False))
        out[f"batch norm channels last {io}"] = differing(*batch_norms(io, channels_last=True))
    return out


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    capability = torch.backends.cpu.get_cpu_capability()
    sys.stdout.write(json.dumps({"capability": capability, "lanes": host_lanes(), "differing": report()}))
