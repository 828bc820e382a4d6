"""What is seen: with and without a terminal, in colour, by a reader that goes away, under an interrupt."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios

import pytest
from hand_built import REPORT

from normcheck.render import json_report, table

CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


COMMANDS = {"simulate": ("simulate",), "analyze": ("analyze", "model.pt")}


def environment(**more):
    unwanted = ("COLUMNS", "NO_COLOR", "TERM", "FORCE_COLOR")
    return {**{key: value for key, value in os.environ.items() if key not in unwanted}, "TERM": "xterm", **more}


def on_terminal(process, *arguments, columns=80, stream="stdout", **more):
    """Return what a terminal shows of a stream, and the exit code."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    child = process(*arguments, **{stream: terminal}, env=environment(**more))
    os.close(terminal)
    chunks = []
    try:
        while chunk := os.read(controller, 4096):
            chunks.append(chunk)
    except OSError:  # what Linux says when the other end is closed
        pass
    os.close(controller)
    child.communicate(timeout=20)
    return b"".join(chunks).decode().replace("\r\n", "\n"), child.returncode


def piped(process, *arguments, **more):
    child = process(*arguments, env=environment(**more))
    out, err = child.communicate(timeout=20)
    return out.decode(), err.decode(), child.returncode


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize(("command", "expected"), [("simulate", 1), ("analyze", 2)])
def test_a_terminal_shows_the_same_text_in_colour(process, columns, command, expected):
    shown, code = on_terminal(process, "report", *COMMANDS[command], columns=columns)
    out, err, piped_code = piped(process, "report", *COMMANDS[command], "--quiet", COLUMNS=str(columns))
    assert "\x1b[" in shown
    assert CODES.sub("", shown) == out
    assert "\x1b" not in out
    assert err.count("\n") == (command == "analyze")  # of a file that could not be read
    assert (code, piped_code) == (expected, expected)


@pytest.mark.parametrize("more", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colour_can_be_refused(process, more):
    shown, _ = on_terminal(process, "report", "simulate", **more)
    assert shown == piped(process, "report", "simulate")[0]


def test_without_a_terminal_the_width_is_80_unless_columns_says_otherwise(process):
    def expected(width):
        return table.render(REPORT, width=width)

    assert piped(process, "report", "simulate")[0] == expected(80)
    assert piped(process, "report", "simulate", COLUMNS="132")[0] == expected(132)


def test_json_is_the_same_on_a_terminal(process):
    shown, _ = on_terminal(process, "report", "simulate", "--format", "json")
    assert shown == json_report.render(REPORT)


def test_long_runs_draw_a_bar_on_the_terminal_and_short_ones_do_not(process):
    shown, _ = on_terminal(process, "slow", "simulate", stream="stderr")
    assert "simulating" in shown
    assert "%" in shown
    assert on_terminal(process, "report", "simulate", stream="stderr")[0] == ""


def test_the_bar_shows_the_layer_at_work_and_survives_its_name(process):
    shown, code = on_terminal(process, "slow", *COMMANDS["analyze"], stream="stderr", columns=200)
    assert code == 2
    assert "analyzing" in shown
    assert r"layer1.\x1b[2J[/red]{0}\n.norm" in CODES.sub("", shown)
    assert "\x1b[2J" not in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_no_bar_where_it_is_not_wanted(process, command):
    unreadable = "normcheck: error: broken.pt: the archive ends early; download it again\n" * (command == "analyze")
    assert on_terminal(process, "slow", *COMMANDS[command], "--quiet", stream="stderr")[0] == unreadable
    assert piped(process, "slow", *COMMANDS[command])[1] == unreadable


def test_what_was_found_is_said_on_standard_error(process):
    out, err, _ = piped(process, "report", *COMMANDS["analyze"])
    assert err.splitlines()[0] == "normcheck: resnet.pt: 14 layers"
    assert out.startswith("analyze resnet.pt")


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_reader_that_goes_away_is_no_error(process, form, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    path = tmp_path / "report.json"
    child = process("report", "simulate", "--format", form, "--json", path, stdout=writing, env=environment())
    os.close(writing)
    _, err = child.communicate(timeout=20)
    assert err == b""
    assert child.returncode == 1  # of the findings, as ever
    assert json.loads(path.read_text())["format"] == 1


@pytest.mark.parametrize("arguments", [["--help"], ["simulate", "--help"], ["schema"], ["formats"]])
def test_a_reader_that_goes_away_hears_no_complaint_from_any_command(process, arguments):
    reading, writing = os.pipe()
    os.close(reading)
    child = process("report", *arguments, stdout=writing, env=environment())
    os.close(writing)
    assert child.communicate(timeout=20)[1] == b""


def test_a_full_standard_output_is_one_line(process):
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        child = process("report", "simulate", stdout=full, env=environment())
        _, err = child.communicate(timeout=20)
    assert err.decode() == "normcheck: error: cannot write to standard output: No space left on device\n"
    assert child.returncode == 2


def test_an_interrupt_is_one_line(process, tmp_path):
    child = process("interrupt", "simulate", "--json", tmp_path / "report.json", env=environment())
    assert child.stderr.readline() == b"ready\n"
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out, err) == (130, b"", b"normcheck: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_leaves_nothing_half_written(process, tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    child = process("interrupt", "simulate", "--json", path, env=environment())
    child.stderr.readline()
    child.kill()
    child.communicate(timeout=20)
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("report.json", "old")]


def test_internal_errors_have_no_traceback_in_a_process_either(process):
    assert piped(process, "fail", "simulate") == (
        "",
        "normcheck: error: internal error: RuntimeError: two lines; --debug shows the traceback\n",
        2,
    )


def test_names_that_the_terminal_cannot_show_are_escaped(process):
    arguments = ["formats", "σ"]
    _, err, code = piped(process, "report", *arguments, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert code == 2
    assert err.startswith("normcheck: error: unknown format")


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "normcheck", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("normcheck ")
