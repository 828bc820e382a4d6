from __future__ import annotations

import dataclasses
import json
import re
from itertools import pairwise
from math import inf, nan
from pathlib import Path

import msgspec
import pytest
from markdown_it import MarkdownIt

from normcheck.errors import UsageError
from normcheck.render import plots, track, track_plots
from normcheck.results import Skipped, Tool
from normcheck.results.track import (
    Channel,
    Checkpoint,
    Drift,
    Lost,
    Point,
    Spread,
    TrackedLayer,
    TrackFinding,
    TrackReport,
)

WIDTHS = [40, 60, 80, 100, 132, 200]


def about(value):
    return Spread(median=value, low=value / 2, high=value * 2, smallest=value / 4, largest=value * 4)


def point(index, **changes):
    values = {
        "checkpoint": index,
        "norm": 8.0,
        "channel_norms": about(0.512 * 2**index),
        "zero_channels": 0,
        "nonfinite_channels": 0,
        "lr": 0.1,
        "effective_step": about(0.381 / 4**index),
        "angle_degrees": about(12.4) if index else None,
        "relative_change": 0.25 if index else None,
        "update_from": "optimizer" if index else None,
        "estimated": False,
        "relative_update": 0.0321 if index else None,
        "lost": (lost("fp16", 12), lost("bf16", 432)) if index else (),
        "norms_of_channels": None,
    }
    return Point(**{**values, **changes})


def lost(precision, share):
    return Lost(precision=precision, lost=share, of=1000, share=share / 1000, beyond=0, channels=3)


def layer(name, **changes):
    values = {
        "name": name,
        "shape": (32, 64, 3, 3),
        "channels": 32,
        "stored": "float32",
        "scope": "channel",
        "how": "followed by batch-l2 net.bn",
        "power": 2,
        "points": (point(0), point(1)),
        "drift": Drift(norm_ratio=about(2.0), step_ratio=about(0.25), trend=0.25),
        "worst": (Channel(index=3, norm=0.5, step_ratio=0.1, lost={"fp16": 0.5, "bf16": None}),),
    }
    return TrackedLayer(**{**values, **changes})


def checkpoint(number, **changes):
    values = {
        "path": f"run/epoch-{number}.pt",
        "reader": "PyTorch zip archive",
        "step": None,
        "steps_since": None,
        "optimizer": "sgd",
        "lr": (0.1,),
        "from_state": 2,
        "note": None,
    }
    return Checkpoint(**{**values, **changes})


def finding(name, kind="updates-lost", severity="warning", **changes):
    values = {"precision": "bf16", "checkpoint": "run/epoch-1.pt", "message": "43.2% are lost", "assumed": False}
    return TrackFinding(kind=kind, severity=severity, layer=name, fix="keep float32 copies", **{**values, **changes})


LAYERS = (layer("net.conv.weight"), layer("net.head.weight", scope="none", how="no norm is known to follow it"))
REPORT = TrackReport(
    format=1,
    tool=Tool(name="normcheck", version="0"),
    command="track",
    settings={"precision": ["fp16", "bf16"]},
    checkpoints=(checkpoint(0), checkpoint(1)),
    layers=LAYERS,
    findings=(finding("net.conv.weight"), finding("net.head.weight")),
    skipped=(Skipped(name="odd.weight", reason="its shape changes"),),
    unreadable=(),
    fail_on="error",
)


def rendered(report=REPORT, width=80, **options):
    return "".join(track.pieces(report, width=width, **options))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("color", [False, True])
def test_no_line_is_longer_than_the_width_and_nothing_is_cropped(width, color):
    text = re.sub(r"\x1b\[[0-9;]*m", "", rendered(width=width, color=color))
    assert max(map(len, text.splitlines())) <= width
    squeezed = re.sub(r"\s+", "", text)
    for told in ("net.conv.weight", "net.head.weight", "1.02", "0.0953", "0.25", "12.4°", "0.0321", "1.2 %", "43.2 %"):
        assert told.replace(" ", "") in squeezed


def test_the_widest_table_also_says_how_invariance_is_known():
    assert "followed by batch-l2 net.bn" in rendered(width=200)
    assert "each channel" in rendered(width=80)


def test_only_the_first_layers_are_shown_on_request_and_the_rest_is_counted():
    text = rendered(dataclasses.replace(REPORT, findings=()), top=1)
    assert "net.conv.weight" in text
    assert "net.head.weight" not in text
    assert "1 more layers are not shown" in text


def test_findings_of_a_kind_stand_together_with_one_fix():
    text = rendered()
    assert text.count("warning updates-lost") == 1
    assert text.count("fix: keep float32 copies") == 1
    assert text.count("43.2% are lost") == 2


def test_of_many_findings_some_are_told_and_the_rest_is_counted():
    many = dataclasses.replace(REPORT, findings=tuple(finding(f"l{n}.weight") for n in range(300)))
    assert "and 294 more" in rendered(many)
    assert rendered(many).count("43.2%") == 6


def test_an_estimate_is_marked():
    guessed = layer("w", points=(point(0), point(1, estimated=True, update_from="difference")))
    assert "~43.2 %" in rendered(dataclasses.replace(REPORT, layers=(guessed,)))


@pytest.mark.parametrize(
    ("changes", "said", "failures"),
    [
        ({}, "passed; 0 errors, 2 warnings, 0 notes, 2 layers", 0),
        ({"fail_on": "warning"}, "failed: 2 findings at or above warning; 0 errors, 2 warnings", 2),
        ({"fail_on": "never"}, "passed; 0 errors", 0),
        ({"layers": ()}, "failed: no weight was followed", 0),
        ({"unreadable": (Skipped(name="x.pt", reason="x.pt: it is empty"),)}, "failed: 1 checkpoint could not be", 0),
    ],
)
def test_the_verdict_says_what_the_exit_code_says(changes, said, failures):
    report = dataclasses.replace(REPORT, **changes)
    assert track.verdict(report).startswith(said)
    assert track.failures(report) == failures
    assert said in " ".join(rendered(report).split())


def test_what_could_not_be_read_or_followed_is_told():
    report = dataclasses.replace(REPORT, unreadable=(Skipped(name="x.pt", reason="x.pt: it is empty"),))
    assert "unreadable x.pt: it is empty" in rendered(report)
    assert "skipped odd.weight: its shape changes" in rendered(report)


HOSTILE = "a\x1b[2Jb\nc|d`<b>$x$"


NAMED = dataclasses.replace(
    REPORT, layers=(layer(HOSTILE),), findings=(finding(HOSTILE),), checkpoints=(checkpoint(0, path=HOSTILE),) * 2
)


def test_names_cannot_steer_terminals():
    text = rendered(NAMED)
    assert "\x1b" not in text
    assert "a\\x1b[2Jb\\nc|d`<b>$x$" in text


def test_names_are_no_markup_in_markdown():
    html = MarkdownIt("commonmark").enable("table").render("".join(track.markdown_pieces(NAMED)))
    assert "<b>" not in html
    assert "\x1b" not in html
    assert html.count("&lt;b&gt;") == 3
    assert html.count("<td>") == len(track._wide(NAMED))


def test_markdown_has_the_table_the_findings_and_the_verdict():
    text = "".join(track.markdown_pieces(REPORT))
    assert text.startswith("## normcheck track: passed; ")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    assert len(rows) == 4
    assert "**warning: updates-lost**" in text
    assert "Fix: keep float32 copies" in text
    assert "odd.weight" in text


def test_json_is_strict_and_gives_the_report_back():
    odd = layer("w", points=(point(0, norm=inf, relative_update=nan), point(1)))
    text = "".join(track.json_pieces(dataclasses.replace(REPORT, layers=(odd,))))
    assert text.startswith('{\n  "format": 1')

    def refuse(token):
        raise AssertionError(token)

    loaded = json.loads(text, parse_constant=refuse)
    assert loaded["layers"][0]["points"][0]["norm"] == "inf"
    assert loaded["layers"][0]["points"][0]["relative_update"] == "nan"
    whole = "".join(track.json_pieces(REPORT))
    assert msgspec.json.decode(whole, type=TrackReport, strict=False) == REPORT


# ------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_a_picture_is_of_its_kind_and_the_same_bytes_again(kind):
    first = track_plots.picture(REPORT, kind)
    assert first.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind])
    assert track_plots.picture(REPORT, kind) == first
    assert plots.is_ours(first, kind)
    assert not plots.is_ours(first.replace(b"normcheck", b"something"), kind)


def texts(picture):
    """What an SVG says: matplotlib writes each text as a comment beside its outlines."""
    return re.findall(r"<!-- (.*?) -->", picture.decode())


def test_a_picture_names_layers_and_panels():
    said = texts(track_plots.picture(REPORT, "svg"))
    assert "net.conv.weight" in said
    assert "net.head.weight (not scale invariant)" in said
    for panel in ("norm of a channel", "effective step size", "turned since", "updates lost in fp16", "lost in bf16"):
        assert any(panel in text for text in said)
    assert "checkpoint" in said


def test_steps_are_the_axis_where_all_checkpoints_state_them():
    stated = dataclasses.replace(REPORT, checkpoints=(checkpoint(0, step=100), checkpoint(1, step=5000)))
    assert "step" in texts(track_plots.picture(stated, "svg"))


def test_what_is_not_known_has_no_panel():
    alone = layer("w", points=(point(0, lr=None, effective_step=None),), drift=None)
    said = texts(track_plots.picture(dataclasses.replace(REPORT, layers=(alone,), checkpoints=(checkpoint(0),)), "svg"))
    assert any("norm of a channel" in text for text in said)
    assert not any(word in text for text in said for word in ("effective", "turned", "lost"))


def test_of_many_layers_the_worst_are_drawn_and_it_is_said():
    many = dataclasses.replace(REPORT, layers=tuple(layer(f"l{n}.weight") for n in range(20)))
    said = texts(track_plots.picture(many, "svg"))
    assert f"normcheck track: the {track_plots.MOST} worst of 20 layers" in said
    assert sum(text.startswith("l") and text.endswith(".weight") for text in said) == track_plots.MOST


def test_names_are_no_mathematics_in_a_picture():
    said = texts(track_plots.picture(dataclasses.replace(REPORT, layers=(layer("a$x_1$b\n\\frac"),)), "svg"))
    assert any("x_1" in text and "\n" not in text for text in said)


def test_a_picture_of_numbers_that_are_missing_or_zero_is_drawn():
    bad = point(
        1, channel_norms=None, effective_step=about(0.0), lost=(dataclasses.replace(lost("fp16", 0), share=None),)
    )
    report = dataclasses.replace(REPORT, layers=(layer("w", points=(point(0), bad)),), settings={"precision": ["fp16"]})
    assert track_plots.picture(report, "png").startswith(b"\x89PNG")


def test_a_users_settings_of_matplotlib_change_nothing():
    from matplotlib import rc_context, rcParams

    wanted = track_plots.picture(REPORT, "png")
    before = rcParams["font.size"]
    with rc_context({"font.size": 30, "savefig.dpi": 10, "axes.facecolor": "red"}):
        assert track_plots.picture(REPORT, "png") == wanted
    assert rcParams["font.size"] == before


@pytest.mark.parametrize("path", ["a.jpg", "a", "png", "a.png.txt"])
def test_an_ending_that_is_no_pictures_is_refused(path):
    with pytest.raises(UsageError, match=r"pictures end in \.png, \.svg, \.pdf"):
        plots.kind_of(path, "--plot")


def test_the_ending_may_be_in_capitals():
    assert plots.kind_of("A.PNG") == "png"


def test_lines_are_told_apart_by_more_than_colour():
    looks = [plots.styled(index) for index in range(len(plots.PALETTE) * len(plots.DASHES))]
    assert len({str(look) for look in looks}) == len(looks)
    assert all(a["linestyle"] != b["linestyle"] for a, b in pairwise(looks))


def test_an_empty_file_may_be_replaced_and_a_foreign_picture_not():
    assert plots.is_ours(b"", "png")
    assert not plots.is_ours(b"\x89PNG\r\n\x1a\n and so on", "png")
    assert not plots.is_ours(Path(__file__).read_bytes(), "png")
