"""The catalogue: every row can be run, says what it is and where that is from, and its files are read strictly."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from importlib.resources import files

import numpy as np
import pytest

from normcheck import UsageError, analyze, emulate, implementations, simulate
from normcheck.arithmetic.formats import FLOAT32, format_named
from normcheck.arithmetic.moment_schedules import MOMENTS
from normcheck.arithmetic.orders import ORDERS, Layout, Order, order_named
from normcheck.arithmetic.schedules import MERGE_PARTIAL, TAKE_PARTIAL
from normcheck.arithmetic.sum_schedules import sum_schedule
from normcheck.norms import catalogue as module
from normcheck.norms import contradictions
from normcheck.norms.aliases import Alias, chosen_rows, read_aliases
from normcheck.norms.catalogue import (
    aliases,
    catalogue,
    choice_named,
    implementation_named,
    implementations_of_file,
)
from normcheck.norms.evidence import VERIFIED_OUTPUTS, Evidence, Run, digest, evidence, evidence_for, parsed, rendered
from normcheck.norms.implementations import IMPLEMENTATIONS, Implementation
from normcheck.norms.row_files import read_rows
from normcheck.norms.table import grouping, norm_named
from normcheck.norms.wording import glossary, in_words

ROWS = {name: row for name, row in catalogue().items() if name not in IMPLEMENTATIONS}
ALIASES = [alias for alias in aliases() if not alias.every]
FILES = sorted(path.name for path in (files("normcheck.norms") / "catalogue").iterdir() if path.name.endswith(".toml"))
STORAGES = {"half": "io", "autocast": "float32"}


def shape_for(row, norm):
    """The smallest shape of some size that a row takes for a norm."""
    if norm_named(norm).where == "layer":
        return (3, max(24, row.size_from))
    side = 3 if not row.spatial_from else 32
    return (2, 8, side, side)


def resolve(name, norm, io, param=None, group=None):
    """The row that a name means; None where there is none."""
    rows, _ = chosen_rows([choice_named(name)], norm, io, param, group)
    return rows[0] if rows else None


def runs_of(row):
    """Every norm, precision, storage of parameters and mode that a row defines."""
    for norm in row.norms:
        what = norm_named(norm)
        group = grouping(what, shape_for(row, norm), 4)
        for precision in row.precisions or ("fp32", "fp16", "bf16"):
            io = format_named(precision)
            for params, storage in STORAGES.items():
                for mode in ("train", "eval") if what.where == "batch" else ("train",):
                    if row.defines(what, io, io if storage == "io" else FLOAT32, group, mode):
                        yield norm, precision, params, mode


# ------------------------------------------------------------------------------------------------------- the rows


@pytest.mark.parametrize("name", ROWS)
def test_every_row_runs_in_all_that_it_defines(name):
    row, rng, ran = ROWS[name], np.random.default_rng(0), set()
    for norm, precision, params, mode in runs_of(row):
        shape = shape_for(row, norm)
        channels = shape[1]
        given = {"weight": np.linspace(0.5, 1.5, channels), "bias": np.linspace(-1, 1, channels)}
        if norm_named(norm).where == "batch":
            given |= {"running_mean": np.zeros(channels), "running_var": np.ones(channels)}
        if norm_named(norm).where == "group":
            given["num_groups"] = 4
        settings = {"precision": precision, "params": params, "mode": mode, "k": 3}
        x = rng.standard_normal(shape).astype(np.float32)
        got = emulate(x, norm, implementation=name, **settings, **given)
        wide = emulate(x, norm, implementation="wide", **settings, **given)
        assert np.isfinite(got.output).all()
        offset = row.weight_offset != 0 or row.statistic_centred or row.rescale != "none"
        if not offset and precision != "bf16":  # the same norm, as near as 11 bits have it
            assert np.abs(got.output - wide.output).max() < (0.3 if row.store.startswith("float8") else 0.05)
        ran.add((norm, precision))
    assert {norm for norm, _ in ran} == set(row.norms)
    assert {precision for _, precision in ran} == set(row.precisions or ("fp32", "fp16", "bf16"))


@pytest.mark.parametrize("name", ROWS)
def test_every_row_says_what_it_is_and_where_that_is_from(name):
    row = ROWS[name]
    assert name == name.lower()
    assert row.title
    assert row.project
    assert row.platform
    assert len(row.citation) > 10
    assert row.norms
    assert row.precisions
    assert row.status in ("verified", "from source", "reported")
    assert max(map(len, row.title.split())) < 60


def test_titles_are_unlike_one_another():
    titles = {}
    for name, row in ROWS.items():
        titles.setdefault((row.project, row.title), []).append(name)
    assert {title: names for title, names in titles.items() if len(names) > 1} == {}


def test_there_are_the_rows_that_real_kernels_need():
    assert len(ROWS) >= 100
    assert len({row.project for row in ROWS.values()}) >= 30
    by_status = {row.status for row in ROWS.values()}
    assert by_status >= {"from source", "reported"}


def test_the_public_table_is_the_catalogue():
    assert implementations() == tuple(catalogue().values())


def test_reading_all_rows_is_fast():
    module.catalogue.cache_clear()
    module.aliases.cache_clear()
    start = time.perf_counter()
    module.aliases()
    assert time.perf_counter() - start < 0.5  # 20 ms on an idle machine; tests share theirs


LOADED = "print(*sorted({'torch', 'numba', 'scipy.stats', 'matplotlib'} & set(sys.modules)))"


def test_the_catalogue_loads_no_engine():
    code = f"import sys; from normcheck.norms.catalogue import aliases; aliases(); {LOADED}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_generic_names_need_no_file():
    code = (
        "import sys; from normcheck.norms.catalogue import catalogue, implementation_named as named; named('wide'); "
        "print(catalogue.cache_info().misses)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


# ----------------------------------------------------------------------------------------------------- the aliases


@pytest.mark.parametrize("alias", ALIASES, ids=lambda alias: alias.name)
def test_an_alias_reaches_each_of_its_rows(alias):
    reached = set()
    for row in alias.rows:
        for norm, precision, params, mode in runs_of(row):
            what, io = norm_named(norm), format_named(precision)
            group = grouping(what, shape_for(row, norm), 4)
            (found,), without = chosen_rows([alias], what, io, io if STORAGES[params] == "io" else FLOAT32, group, mode)
            assert without == []
            reached.add(found.name)
    for name in {row.name for row in alias.rows} - reached:  # those for the sizes that another row leaves
        what, io = norm_named(ROWS[name].norms[0]), format_named(ROWS[name].precisions[0])
        (found,), _ = chosen_rows([alias], what, io, io, grouping(what, (3, 7)))
        assert found.name == name


def test_names_are_of_one_thing():
    names = [*catalogue(), *(name for alias in aliases() for name in (alias.name, *alias.also))]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("alias", ALIASES, ids=lambda alias: alias.name)
def test_all_names_of_an_alias_mean_it(alias):
    for name in (alias.name, *alias.also, alias.name.upper()):
        assert choice_named(name) == alias


WANTED = [
    ("torch", "layer-l2", "fp16", (4, 64), "torch-cpu-layernorm-fp16"),
    ("torch-cpu", "rms", "bf16", (4, 64), "torch-rmsnorm-composite"),
    ("torch-cpu", "batch-l2", "fp32", (4, 8, 3, 3), "torch-cpu-batchnorm-fp32"),
    ("torch-cuda", "layer-l2", "fp16", (4, 64), "torch-cuda-layernorm-vec"),
    ("torch-cuda", "layer-l2", "fp16", (4, 63), "torch-cuda-layernorm-fallback"),
    ("torch-cpu-groupnorm-channels-last", "group-l2", "fp32", (1, 8, 4, 4), "torch-cpu-groupnorm-channels-last-fp32"),
    (
        "torch-cpu-groupnorm-channels-last", "group-l2", "fp32", (1, 8, 32, 32),
        "torch-cpu-groupnorm-channels-last-large-fp32",
    ),
    ("onnxruntime-cpu", "layer-l2", "fp32", (4, 7), "ort-cpu-layernorm-scalar"),
    ("onnxruntime-cpu", "layer-l2", "fp32", (4, 8), "ort-cpu-layernorm"),
    ("onnxruntime-cuda-skip", "rms", "fp16", (4, 64), "ort-cuda-skiplayernorm-fp16"),
    ("hf-llama", "rms", "fp16", (4, 64), "hf-llama-rmsnorm"),
    ("wide", "batch-l1", "fp8_e5m2", (4, 8, 3, 3), "wide"),
    ("hf-llama", "layer-l2", "fp16", (4, 64), None),
    ("torch", "layer-l2", "float8_e4m3fn", (4, 64), None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "norm", "precision", "shape", "wanted"), WANTED)
def test_an_alias_picks_by_norm_precision_and_size(name, norm, precision, shape, wanted):
    what, io = norm_named(norm), format_named(precision)
    found = resolve(name, what, io, io, grouping(what, shape, 4 if norm == "group-l2" else None))
    assert (found and found.name) == wanted


def test_the_storage_of_parameters_picks_too():
    what, io = norm_named("rms"), format_named("fp16")
    assert resolve("apex", what, io, io).name == "apex-fused-rmsnorm"
    assert resolve("apex", what, io, FLOAT32).name == "apex-mixed-fused-rmsnorm"
    assert resolve("autocast", what, io, io) is None
    assert resolve("autocast", what, io, FLOAT32).name == "torch-autocast-rmsnorm"


def test_the_mode_picks_too():
    x, stats = np.ones((4, 8, 3, 3), np.float32), {"running_mean": np.zeros(8), "running_var": np.ones(8)}
    by_mode = {
        mode: emulate(x, "batch-l2", precision="fp32", implementation="torch", mode=mode, **stats).output
        for mode in ("train", "eval")
    }
    assert not by_mode["train"].any()
    assert by_mode["eval"] == pytest.approx(1, abs=1e-4)


REFUSALS = [
    ("hf-llama", "layer-l2", "fp16", "half", (2, 8), "hf-llama does not define layer-l2, only rms"),
    ("torch", "layer-l2", "fp64", "half", (2, 8), "torch-cpu does not define layer-l2 in fp64, only in fp32, fp16"),
    ("autocast", "rms", "fp16", "half", (2, 8), "takes parameters in float32; give --params autocast"),
    ("torch-cuda-rmsnorm-vec", "rms", "fp16", "half", (2, 7), "takes rows of a multiple of 4 elements, not of 7"),
    ("ort-cpu-layernorm", "layer-l2", "fp32", "half", (2, 7), "takes rows from 8 elements, not of 7"),
    (
        "torch-cpu-groupnorm-channels-last-large-fp32", "group-l2", "fp32", "half", (1, 8, 4, 4),
        "takes spatial sizes from 1024, not 16",
    ),
    (
        "torch-cpu-groupnorm-channels-last-fp32", "group-l2", "fp32", "half", (1, 8, 32, 32),
        "takes spatial sizes below 1024, not 1024",
    ),
    ("torch-cpu-batchnorm-eval", "batch-l2", "fp32", "half", (2, 8), "is the kernel of eval mode"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "norm", "precision", "params", "shape", "reason"), REFUSALS)
def test_what_no_row_defines_is_refused_with_the_reason(name, norm, precision, params, shape, reason):
    with pytest.raises(UsageError, match=reason):
        emulate(np.ones(shape, np.float32), norm, precision=precision, params=params, implementation=name)
    report = simulate(norms=[norm], precisions=[precision], params=params, implementations=[name], shape=shape)
    assert report.results == ()
    (skipped,) = report.skipped
    assert reason in skipped.reason
    assert skipped.name == f"{norm} {precision} {choice_named(name).name}"


def test_an_alias_is_no_single_row():
    with pytest.raises(UsageError, match="torch-cpu is an alias of several implementations; name one of them"):
        implementation_named("torch-cpu")


def test_an_unknown_name_has_the_nearest_of_rows_and_aliases():
    with pytest.raises(UsageError, match=r"did you mean .*hf-llama"):
        choice_named("hf-lama")


def test_results_carry_the_names_of_rows_and_each_row_once():
    report = simulate(
        norms=["layer-l2"], implementations=["torch", "torch-cpu-layernorm-fp16", "apex", "wide"], shape=(2, 32)
    )
    assert {r.implementation for r in report.results} == {"torch-cpu-layernorm-fp16", "apex-fused-layernorm", "wide"}
    assert list(report.settings["implementations"]) == ["torch", "torch-cpu-layernorm-fp16", "apex", "wide"]


def test_all_is_every_row_that_defines_the_norm_and_precision():
    report = simulate(norms=["rms"], precisions=["bf16"], implementations=["all"], shape=(2, 32))
    what, io = norm_named("rms"), format_named("bf16")
    group = grouping(what, (2, 32))
    wanted = {name for name, row in catalogue().items() if row.defines(what, io, io, group, "train")}
    assert {r.implementation for r in report.results} == wanted
    assert len(wanted) > 30
    assert report.skipped == ()


def test_analyze_takes_aliases_and_says_what_they_leave_out():
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.LayerNorm(32), torch.nn.BatchNorm1d(32))
    report = analyze(net, implementations=["torch-cuda", "hf-llama"], mode="train")
    assert {(r.norm, r.implementation) for r in report.results} == {
        ("layer-l2", "torch-cuda-layernorm-vec"),
        ("batch-l2", "torch-cuda-batchnorm-native"),
    }
    assert {item.name for item in report.skipped} == {"layer-l2 hf-llama", "batch-l2 hf-llama"}


def test_simulate_and_analyze_take_rows_of_ones_own():
    mine = dataclasses.replace(IMPLEMENTATIONS["wide"], name="mine", sum="io", norms=("layer-l2",))
    report = simulate(norms=["layer-l2", "rms"], implementations=[mine, "wide"], shape=(2, 32))
    assert {(r.norm, r.implementation) for r in report.results} == {
        ("layer-l2", "mine"), ("layer-l2", "wide"), ("rms", "wide"),
    }  # fmt: skip
    assert list(report.settings["implementations"]) == ["mine", "wide"]
    (skipped,) = report.skipped
    assert skipped.reason == "mine does not define rms, only layer-l2"


def test_an_alias_of_a_row_that_does_not_exist_is_refused():
    text = '[[alias]]\nname = "mine"\ntitle = "x"\nrows = ["wid"]\n'
    with pytest.raises(UsageError, match=r"a\.toml: alias 'mine': unknown implementation 'wid': did you mean wide"):
        read_aliases(text, "a.toml", IMPLEMENTATIONS)
    with pytest.raises(UsageError, match="alias 'pure': the name is taken"):
        read_aliases('[[alias]]\nname = "pure"\ntitle = "x"\nrows = ["wide"]\n', "a.toml", IMPLEMENTATIONS)


# ------------------------------------------------------------------------------------------------------- the files


def test_every_file_is_in_the_package():
    assert {"aliases.toml", "pytorch.toml", "onnxruntime.toml", "mlx.toml"} <= set(FILES)


def read(text, known=IMPLEMENTATIONS):
    return read_rows(text, "mine.toml", known)


def row_of(**given):
    """Read a row with these fields."""
    values = {"name": "mine"} | given
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    (row,) = read("[[implementation]]\n" + "\n".join(lines))
    return row


def test_a_file_takes_fields_from_its_base_and_not_what_identifies_it():
    row = row_of(base="wide", sum="fp64", order="lanes(8, serial)", norms=["layernorm", "rms"], precisions=["float16"])
    wide = IMPLEMENTATIONS["wide"]
    assert (row.sum, str(row.order), row.norms, row.precisions) == (
        "float64", "lanes(8, serial)", ("layer-l2", "rms"), ("fp16",),
    )  # fmt: skip
    assert (row.mean_sum, row.product, row.title, row.status) == (wide.mean_sum, wide.product, "", "generic")


def test_a_base_may_be_a_row_above():
    first, second = read('[[implementation]]\nname = "a"\nsum = "wide"\n[[implementation]]\nname = "b"\nbase = "a"\n')
    assert (first.name, second.name, second.sum) == ("a", "b", "wide")


def test_a_file_may_say_once_what_its_rows_share():
    (row,) = read('project = "mine"\nplatform = "CPU"\nstatus = "reported"\n[[implementation]]\nname = "a"\n')
    assert (row.project, row.platform, row.status) == ("mine", "CPU", "reported")


def test_a_users_file_is_read_by_its_path(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[[implementation]]\nname = "mine"\nbase = "torch-cpu-layernorm-fp16"\nsum = "float64"\n')
    (row,) = implementations_of_file(path)
    kernel = catalogue()["torch-cpu-layernorm-fp16"]
    assert row == dataclasses.replace(
        kernel, name="mine", title="", project="generic", platform="", status="generic", citation="", sum="float64"
    )
    with pytest.raises(UsageError, match="cannot be read as a TOML file of implementations"):
        implementations_of_file(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"bytes\.toml: cannot be read"):
        implementations_of_file(str(tmp_path / "bytes.toml"))


def test_a_path_stands_for_all_rows_of_a_file_wherever_names_are_taken(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[[implementation]]\nname = "a"\nbase = "wide"\nnorms = ["rms"]\n'
        '[[implementation]]\nname = "b"\nbase = "wide"\nsum = "io"\nnorms = ["layer-l2"]\n'
    )
    report = simulate(norms=["rms", "layer-l2"], implementations=[str(path), "wide"], shape=(2, 32))
    assert {(r.norm, r.implementation) for r in report.results} == {
        ("rms", "a"), ("layer-l2", "b"), ("rms", "wide"), ("layer-l2", "wide"),
    }  # fmt: skip
    x = np.random.default_rng(0).standard_normal((2, 32))
    mine, wide = (emulate(x, "layer-l2", precision="fp16", implementation=name).output for name in (str(path), "wide"))
    assert mine == pytest.approx(wide, abs=0.01)
    with pytest.raises(UsageError, match="a does not define batch-l2, only rms"):
        emulate(np.ones((2, 3, 4)), "batch-l2", precision="fp16", implementation=str(path))


def test_two_rows_of_one_name_are_refused_whatever_they_define(tmp_path):
    for name, order in (("a", "tree"), ("b", "sequential"), ("c", "tree")):
        norms = '["rms"]' if name != "b" else '["layer-l2"]'
        text = f'[[implementation]]\nname = "mine"\nbase = "wide"\norder = "{order}"\nnorms = {norms}\n'
        (tmp_path / f"{name}.toml").write_text(text)
    a, b, c = (str(tmp_path / f"{name}.toml") for name in "abc")
    with pytest.raises(UsageError, match="'mine': two different rows have this name; rename one of them"):
        simulate(norms=["rms"], implementations=[a, b], shape=(2, 8))
    report = simulate(norms=["rms"], precisions=["fp16"], implementations=[a, c], shape=(2, 8))
    assert [r.implementation for r in report.results] == ["mine"]


def test_a_row_of_ones_own_beside_the_catalogues_of_its_name_is_refused():
    mine = dataclasses.replace(catalogue()["torch-cpu-layernorm-fp16"], sum="float64")
    with pytest.raises(UsageError, match="'torch-cpu-layernorm-fp16': two different rows have this name"):
        simulate(norms=["layer-l2"], precisions=["fp16"], implementations=[mine, "torch"], shape=(2, 8))


@pytest.mark.parametrize("name", ["torch-cpu", "torch"])
def test_a_users_row_may_not_have_the_name_of_an_alias(tmp_path, name):
    path = tmp_path / "mine.toml"
    path.write_text(f'[[implementation]]\nname = "{name}"\n')
    with pytest.raises(UsageError, match=f"name: '{name}' is taken by an alias"):
        implementations_of_file(path)


def test_a_note_is_said_to_be_one():
    with pytest.raises(
        UsageError, match="torch-sum-fp16 is a note of the list and no implementation that can be run: "
    ):
        choice_named("torch-sum-fp16")


@pytest.mark.parametrize(
    ("name", "kernel", "norm", "shape"),
    [
        ("whisper-layernorm", "torch-cpu-layernorm-fp32", "layer-l2", (3, 77)),
        ("guided-diffusion-groupnorm32", "torch-cpu-groupnorm-contiguous-fp32", "group-l2", (2, 8, 5, 3)),
    ],
)
def test_norms_of_a_cast_input_are_the_float32_kernel_rounded_once(name, kernel, norm, shape):
    x = (np.random.default_rng(0).standard_normal(shape) + 2).astype(np.float16).astype(np.float32)
    more = {"num_groups": 2} if norm == "group-l2" else {}
    more |= {"weight": np.linspace(0.5, 1.5, shape[1]), "bias": np.linspace(-1, 1, shape[1]), "params": "autocast"}
    got = emulate(x, norm, precision="fp16", implementation=name, **more).output
    inside = emulate(x, norm, precision="fp32", implementation=kernel, **more).output
    assert np.array_equal(got, inside.astype(np.float16))


BROKEN = {
    "no TOML": ("sum = =", "mine.toml: not TOML: "),
    "no table": ('name = "x"\n', r"mine.toml: no \[\[implementation\]\] table"),
    "a table of one": ('[implementation]\nname = "x"\n', r"no \[\[implementation\]\] table"),
    "a field above": (
        'sum = "io"\n[[implementation]]\nname = "x"\n', "'sum' stands above the tables, where project, platform",
    ),
    "no name": ('[[implementation]]\nsum = "io"\n', "mine.toml: implementation 1: name: missing"),
    "a second time": (
        '[[implementation]]\nname = "a"\n[[implementation]]\nname = "a"\n',
        "mine.toml: implementation 'a': name: 'a' is taken",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_holds_no_rows_is_refused(case):
    text, message = BROKEN[case]
    with pytest.raises(UsageError, match=message):
        read(text)


FUSED_EPS = {"contracted": ["eps"], "division": "multiply"}
WRONG = {
    "a taken name": ({"name": "wide"}, "implementation 'wide': name: 'wide' is taken by another row"),
    "capitals": ({"name": "Mine"}, "name: received 'Mine': a name has small letters"),
    "all": ({"name": "all"}, "name: received 'all', which means every row"),
    "a number for a name": ({"name": 3}, "implementation 1: name: give a name, received 3"),
    "an unknown field": ({"oder": "tree"}, "unknown field 'oder': did you mean order"),
    "an unknown base": ({"base": "wde"}, "base: unknown implementation 'wde': did you mean wide"),
    "a base that is no name": ({"base": 1}, "base: give the name of a row, received 1"),
    "an unknown format": ({"sum": "fp33"}, "sum: unknown format 'fp33': did you mean fp32"),
    "a format that is a number": ({"sum": 32}, "sum: give a format: io, wide, param, promoted, or a format's name"),
    "an unknown order": ({"order": "lane(8)"}, "order: unknown order 'lane\\(8\\)': did you mean lanes"),
    "an unknown variance": ({"variance": "one"}, "variance: it can be two-pass, one-pass, .*, received 'one'"),
    "an unknown recurrence": (
        {"variance": "welford", "recurrence": "mine", "order": "sequential"}, "recurrence: it can be chan, ",
    ),
    "an unknown norm": ({"norms": ["layr"]}, "norms: unknown norm 'layr': did you mean layer"),
    "a norm that is no list": ({"norms": "rms"}, "norms: give a list of names in brackets, received 'rms'"),
    "an unknown precision": ({"precisions": ["fp17"]}, "precisions: unknown format 'fp17'"),
    "unknown parameters": ({"parameters": ["half"]}, "parameters: it can be io, float32, received 'half'"),
    "an unknown step": ({"contracted": ["gain"]}, "contracted: it can be sum, variance, .*, received 'gain'"),
    "text for a number": ({"eps_min": "1e-5"}, "eps_min: give a finite number from 0, received '1e-5'"),
    "a negative number": ({"eps_min": -1.0}, "eps_min: give a finite number from 0, received -1.0"),
    "a fraction for a count": ({"chunk": 1.5}, "chunk: give a whole number from 1, received 1.5"),
    "truth for a count": ({"size_from": True}, "size_from: give a whole number from 0, received True"),
    "text for truth": ({"clip": "yes"}, "clip: give true or false, received 'yes'"),
    "verified by hand": ({"status": "verified"}, "status: received 'verified', which a row becomes by a run"),
    "an unknown status": ({"status": "sure"}, "status: it can be generic, from source, reported, received 'sure'"),
    "a fused sum online": (
        {"variance": "welford", "order": "sequential", "contracted": ["sum"]}, "contracted: 'sum' has no products",
    ),
    "a fused sum of scaled terms": (
        {"division": "prescale", "contracted": ["sum"]}, "contracted: 'sum' takes products unrounded, division",
    ),
    "a fused difference of two passes": ({"contracted": ["variance"]}, "contracted: 'variance' is of one-pass"),
    "a fused eps of a quotient": ({"contracted": ["eps"]}, "contracted: 'eps' is of division = 'multiply', which is"),
    "a fused eps of a mean of means": (
        FUSED_EPS | {"order": "blocks(64)"}, "contracted: 'eps' takes sum \\* \\(1/n\\), order = 'blocks",
    ),
    "a fused eps of a difference": (
        FUSED_EPS | {"variance": "one-pass"}, "contracted: 'eps' takes sum .* variance = 'one-pass' subtracts",
    ),
    "a fused eps of a clipped statistic": (FUSED_EPS | {"clip": True}, "contracted: 'eps' leaves no statistic"),
    "deviations that are never formed": (
        {"recentred": "wide", "normalize_form": "fold"}, "recentred: normalize_form = 'fold' forms no x - mean",
    ),
    "a moment of two passes": ({"moment": "wide"}, "moment: is of one-pass algorithms, variance is 'two-pass'"),
    "a division of an online mean": (
        {"variance": "welford", "order": "sequential", "mean_division": "multiply"}, "mean_division: variance = 'welf",
    ),
    "a division of a mean of means": (
        {"mean_division": "multiply", "order": "blocks(64)"}, "mean_division: order = 'blocks\\(64\\)' makes a mean",
    ),
    "a scaled mean of means": (
        {"division": "prescale", "order": "blocks(64)"}, "division: 'prescale' scales each term by 1/n, order",
    ),
    "scaled terms online": (
        {"division": "prescale", "variance": "welford", "order": "sequential"}, "division: 'prescale' scales the terms",
    ),
    "an order of its own for an online mean": (
        {"variance": "welford", "order": "sequential", "mean_order": "tree"}, "mean_order: variance = 'welford' makes",
    ),
    "an order that no online algorithm has": ({"variance": "welford", "order": "tree"}, "order: variance = 'welford'"),
    "an online order of a sum": ({"order": "rowwise(8)"}, "order: 'rowwise\\(8\\)' is of variance = 'welford' or"),
    "a chunk without chunks": ({"chunk": 8}, "chunk: is of variance = 'chunked-welford', which is 'two-pass'"),
    "a chunk of an order that has its own": (
        {"variance": "chunked-welford", "order": "rowwise(8)", "chunk": 8}, "chunk: order = 'rowwise\\(8\\)' says it",
    ),
    "channels-last moments": (
        {"variance": "welford", "order": "sequential", "layout": "channels-last"}, "layout: variance = 'welford' vis",
    ),
    "a reciprocal that no division forms": ({"inverse_count": "wide"}, "inverse_count: division = 'divide' forms no"),
    "a fold of centred elements": ({"fold": "wide"}, "fold: normalize_form = 'center' forms neither"),
    "partial sums that no order merges": (
        {"partial": "wide", "order": "lanes(8)"}, "partial: is of orders that merge partial sums, .*; order is 'lanes",
    ),
    "a recurrence of two passes": ({"recurrence": "chan"}, "recurrence: is of variance = 'welford' or"),
    "a shift without a reciprocal": (
        {"root_form": "divide", "normalize_form": "shift"}, "root_form: 'divide' forms no reciprocal, normalize_form",
    ),
    "a folded value rounded": (
        {"normalize_form": "fold", "normalized": "io"}, "normalized: normalize_form = 'fold' never forms",
    ),
    "a fold that is none": ({"contracted": ["fold"]}, "contracted: 'fold' is of normalize_form = 'fold'"),
    "a value between fused steps": (
        {"normalize_form": "shift", "contracted": ["normalize", "bias"], "normalized": "io"}, "leave no value to round",
    ),
    "no spatial size left": ({"spatial_from": 8, "spatial_below": 8}, "spatial_below: 8 leaves no size"),
    "no size left": ({"size_from": 8, "size_below": 4}, "size_below: 4 leaves no size"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_row_that_cannot_be_is_refused_in_one_line(case):
    given, message = WRONG[case]
    with pytest.raises(UsageError, match=message) as caught:
        row_of(**given)
    assert str(caught.value).startswith("mine.toml: implementation ")
    assert "\n" not in str(caught.value)


def test_the_orders_of_online_moments_are_those_of_the_engine():
    assert set(contradictions._OF_MOMENTS) == {"sequential", "lanes", *MOMENTS}


def test_the_orders_that_merge_partial_sums_are_those_of_the_engine():
    layout, merging = Layout(run=16, threads=4), set()
    for kind in ORDERS:
        order = order_named(kind).resolved(8)
        if order.is_scheduled and kind not in MOMENTS:
            plan = sum_schedule(256, order, layout)
            merging |= {kind} if {TAKE_PARTIAL, MERGE_PARTIAL} & set(plan.kind.tolist()) else set()
    assert set(contradictions._WITH_PARTIALS) == merging


def test_channels_last_rows_of_batch_norms_may_be_online():
    row = row_of(variance="welford", order="sequential", layout="channels-last", norms=["batch-l2"])
    words = " ".join(in_words(row))
    assert "sample by sample" in words
    assert "position by position" not in words


# -------------------------------------------------------------------------------------------------- the evidence


def run_of(identical, outputs=VERIFIED_OUTPUTS):
    return Run(norm="rms", precision="fp16", outputs=outputs, identical=identical, largest_ulp=1)


def test_evidence_is_written_as_it_is_read():
    rows = {
        "wide": Evidence(
            date="2026-01-02", host="x", versions={"a": "1"}, digest="0f", runs=(run_of(999), run_of(1000))
        )
    }
    assert parsed(rendered(rows)) == rows
    assert rendered(parsed(rendered(rows))) == rendered(rows)
    assert (rows["wide"].outputs, rows["wide"].identical, rows["wide"].largest_ulp) == (20000, 1999, 1)


@pytest.mark.parametrize(
    ("runs", "verifies"),
    [((), False), ((9990,), True), ((9989,), False), ((10_000, 9990), True), ((10_000, 9989), False)],
)
def test_a_row_is_verified_by_the_share_of_identical_outputs_in_every_run(runs, verifies):
    found = Evidence(date="2026-01-02", host="x", versions={}, runs=tuple(map(run_of, runs)))
    assert found.verifies is verifies


def test_few_outputs_verify_no_row():
    few = tuple(run_of(count, count) for count in (9000, 999))
    assert not Evidence(date="2026-01-02", host="x", versions={}, runs=few).verifies
    assert Evidence(date="2026-01-02", host="x", versions={}, runs=(*few, run_of(1, 1))).verifies


def test_the_digest_of_a_row_is_of_its_arithmetic_alone():
    row = catalogue()["hf-llama-rmsnorm"]
    told = {"name": "a", "title": "b", "status": "verified", "citation": "c", "approximation": "d", "platform": "e"}
    same = dataclasses.replace(row, **told, norms=("rms",), precisions=("bf16",), parameters=("io",), modes=("train",))
    assert digest(same) == digest(row)
    others = ({"store": "fp8-e4m3"}, {"order": Order("pairwise")}, {"mean_order": Order("pairwise")}, {"size_below": 9})
    others += ({"contracted": ("bias",)}, {"eps_min": 1e-3})
    assert len({digest(row), *(digest(dataclasses.replace(row, **other)) for other in others)}) == 1 + len(others)


def test_the_loader_raises_the_status_of_verified_rows_alone(monkeypatch):
    names = ["hf-llama-rmsnorm", "hf-t5-layernorm"]
    known = {
        name: Evidence(
            date="2026-01-02", host="x", versions={}, runs=(run_of(count),), digest=digest(catalogue()[name])
        )
        for name, count in zip(names, (10_000, 9_000), strict=True)
    }
    known |= {"gone": known[names[0]], "hf-gemma-rmsnorm": known[names[0]]}
    monkeypatch.setattr(module, "evidence", lambda: known)
    rows = module.catalogue.__wrapped__()
    assert [rows[name].status for name in names] == ["verified", "from source"]
    assert rows["hf-gemma-rmsnorm"].status == "from source", "the evidence is of a row with another digest"


def test_the_evidence_of_the_package_is_of_rows_that_exist():
    assert set(evidence()) <= set(catalogue())
    verified = {name for name, row in catalogue().items() if row.status == "verified"}
    assert verified == {name for name, row in catalogue().items() if (found := evidence_for(row)) and found.verifies}


# ---------------------------------------------------------------------------------------------------- the words


ONLINE = {"variance": "welford"}
FOLD = {"normalize_form": "fold"}
CHANGES = {
    "residual": ({}, "float64"),
    "load": ({}, "wide"),
    "layout": ({}, "channels-last"),
    "rescale": ({}, "max"),
    "mean_sum": ({}, "float64"),
    "mean": ({}, "float64"),
    "center": ({}, "float64"),
    "recentred": ({}, "float64"),
    "product": ({}, "float64"),
    "contracted": ({}, ("sum",)),
    "sum": ({}, "float64"),
    "partial": ({}, "float64"),
    "mean_partial": ({}, "float64"),
    "own_mean": ({}, True),
    "total": ({}, "float64"),
    "mean_total": ({}, "float64"),
    "count": ({}, "float64"),
    "mean_count": ({}, "float64"),
    "inverse_count": ({"division": "multiply"}, "float64"),
    "statistic_centred": ({"norms": ("rms",)}, True),
    "variance": ({}, "one-pass"),
    "chunk": ({"variance": "chunked-welford"}, 8),
    "recurrence": (ONLINE, "apex"),
    "clip": ({}, True),
    "order": ({}, module.IMPLEMENTATIONS["pure-sequential"].order),
    "mean_order": ({}, module.IMPLEMENTATIONS["pure-sequential"].order),
    "division": ({}, "multiply"),
    "mean_division": ({}, "multiply"),
    "statistic": ({}, "float64"),
    "moment": ({"variance": "one-pass"}, "float64"),
    "eps": ({}, "float64"),
    "eps_rounded": ({}, "float64"),
    "eps_min": ({}, 1e-5),
    "root": ({}, "float64"),
    "reciprocal": ({}, "float64"),
    "root_form": ({}, "rsqrt"),
    "kept": ({}, "float64"),
    "normalize": ({}, "float64"),
    "normalize_form": ({}, "shift"),
    "fold": (FOLD, "float64"),
    "normalized": ({}, "float64"),
    "gain": ({}, "float64"),
    "bias": ({}, "float64"),
    "weight_offset": ({}, 1.0),
    "absent_bias": ({}, "zero"),
    "store": ({}, "float64"),
    "saved": ({}, "float64"),
    "running": ({}, "float64"),
    "running_mean": ({}, "float64"),
    "running_batch": ({}, "float64"),
    "running_variance": ({}, "float64"),
    "momentum_of": ({}, "batch"),
    "bessel": ({}, "none"),
}
SAID_ELSEWHERE = {
    "name", "title", "status", "citation", "project", "platform", "approximation", "norms", "precisions", "parameters",
    "modes", "multiple_of", "size_from", "size_below", "spatial_from", "spatial_below",
}  # fmt: skip


def test_every_field_has_its_words():
    assert {field.name for field in dataclasses.fields(Implementation)} == set(CHANGES) | SAID_ELSEWHERE


@pytest.mark.parametrize("field", CHANGES)
def test_a_field_that_differs_changes_the_words(field):
    context, value = CHANGES[field]
    base = dataclasses.replace(IMPLEMENTATIONS["pure"], **context)
    assert in_words(dataclasses.replace(base, **{field: value})) != in_words(base)


@pytest.mark.parametrize("step", ["sum", "variance", "eps", "normalize", "fold", "fold-gain", "bias"])
def test_every_contraction_changes_the_words(step):
    context = {"variance": {"variance": "one-pass"}, "fold": FOLD, "fold-gain": FOLD}.get(step, {})
    base = dataclasses.replace(IMPLEMENTATIONS["pure"], **context)
    assert in_words(dataclasses.replace(base, contracted=(step,))) != in_words(base)


def test_words_and_glossary_of_online_moments_have_the_order_that_runs():
    lanes = dataclasses.replace(IMPLEMENTATIONS["pure"], variance="welford", norms=("layer-l2",))
    assert (str(lanes.order), str(lanes.orders()["moments"])) == ("lanes(32)", "sequential")
    words = " ".join(in_words(lanes))
    assert "in the order sequential, by" in words
    assert "lanes" not in words
    assert "sequential" in glossary(lanes)
    assert "lanes(32)" not in glossary(lanes)
    chunked = dataclasses.replace(lanes, variance="chunked-welford", order=order_named("sequential"))
    assert "sequential, in chunks of 16" in " ".join(in_words(chunked))


def test_words_of_online_moments_divide_as_they_do():
    row = dataclasses.replace(
        IMPLEMENTATIONS["pure"], variance="welford", division="multiply", total="float64", inverse_count="wide"
    )
    wanted = "the squared deviations, rounded to float64, times 1/n in the io format rounded to float32, rounded to"
    assert wanted in " ".join(in_words(row))
    assert "squared deviations divided by n in" in " ".join(
        in_words(dataclasses.replace(row, division="divide", total=None))
    )


@pytest.mark.parametrize("name", catalogue())
def test_words_are_sentences_of_what_the_row_has(name):
    row = catalogue()[name]
    words = in_words(row)
    assert 7 <= len(words) <= 16
    assert len(set(words)) == len(words)
    for sentence in words:
        assert sentence.endswith(".")
        assert "  " not in sentence
        assert "None" not in sentence
    assert str(row.order) in " ".join(words) or "|" in " ".join(words)
    assert all(glossary(row).values())


def test_the_words_of_a_float16_kernel():
    assert in_words(catalogue()["ort-cuda-skiplayernorm-fp16"])[:3] == (
        "A residual, where there is one, is added to x in float16.",
        "Mean: the elements times 1/n in float16 are added in float16 in the order cub(256, 2), rounded to float16.",
        (
            "Mean square: the products (x * (1/n)) * x in float16, 1/n in float16, are added in float16 in the order "
            "cub(256, 2)."
        ),
    )


def test_all_is_an_alias_of_all():
    every = choice_named("all")
    assert isinstance(every, Alias)
    assert every.rows == tuple(catalogue().values())
