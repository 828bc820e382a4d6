from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import stat
import threading
import time
from pathlib import Path

import pytest
from hand_built import REPORT

from normcheck.cli.files import check_writable, write_whole
from normcheck.errors import NormcheckError, UsageError
from normcheck.render import json_report, table

OLD = '{"format": 1, "said": "what was there before"}'
OLD_OF = {"json": OLD, "html": "<!doctype html><p>what was there before</p>"}


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def full(monkeypatch):
    """Let the disk be full when a file is to reach it."""

    def fsync(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.usefixtures("engine")
def test_the_report_goes_to_the_file_and_the_table_to_standard_output(normcheck, tmp_path):
    path = tmp_path / "report.json"
    outcome = normcheck("simulate", "--json", path)
    assert path.read_text() == json_report.render(REPORT)
    assert outcome.out.startswith("simulate ")
    assert listing(tmp_path) == ["report.json"]


@pytest.mark.usefixtures("engine")
def test_two_reports_may_go_to_two_places(normcheck, tmp_path):
    outcome = normcheck("simulate", "--format", "jsonl", "--json", tmp_path / "report.json")
    assert json.loads(outcome.out.splitlines()[-1])["type"] == "summary"
    assert json.loads((tmp_path / "report.json").read_text())["format"] == 1


@pytest.mark.usefixtures("engine")
def test_a_dash_puts_json_in_the_tables_place(normcheck, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = normcheck("simulate", "--json", "-")
    assert outcome.out == json_report.render(REPORT)
    assert listing(tmp_path) == []


@pytest.mark.usefixtures("engine")
def test_json_on_standard_output_is_the_report(normcheck):
    assert normcheck("simulate", "--format", "json").out == json_report.render(REPORT)


def unwritable(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    return {
        "no directory": tmp_path / "no" / "report.json",
        "a directory": tmp_path,
        "below a file": tmp_path / "file" / "report.json",
        "too long": tmp_path / ("x" * 300),
        "a loop": tmp_path / "loop" / "report.json",
    }


@pytest.mark.parametrize("kind", ["no directory", "a directory", "below a file", "too long", "a loop"])
def test_an_unwritable_path_is_found_before_the_computation(engine, normcheck, tmp_path, kind):
    path = unwritable(tmp_path)[kind]
    outcome = normcheck("simulate", "--json", path)
    assert (outcome.code, outcome.out, engine.calls) == (2, "", [])
    assert outcome.err.startswith("normcheck: error: cannot write ")
    assert outcome.err.count("\n") == 1
    assert listing(tmp_path) == ["file", "loop"]


def test_a_directory_that_refuses_files_is_found_before_the_computation(engine, normcheck, tmp_path, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "open", refuse)
    outcome = normcheck("simulate", "--json", tmp_path / "report.json")
    assert (outcome.code, engine.calls) == (2, [])
    assert "Permission denied" in outcome.err


def test_a_write_protected_file_is_left_alone(engine, normcheck, tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    path.write_text(OLD)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "write-protected" in normcheck("simulate", "--json", path).err
    assert engine.calls == []


def test_checking_leaves_everything_as_it_is(tmp_path):
    path = tmp_path / "report.json"
    check_writable(str(path))
    assert listing(tmp_path) == []
    path.write_text(OLD)
    check_writable(str(path))
    assert path.read_text() == OLD
    assert listing(tmp_path) == ["report.json"]


def test_nothing_is_written_when_the_engine_fails(engine, normcheck, tmp_path):
    engine.report = UsageError("no")
    assert normcheck("simulate", "--json", tmp_path / "report.json").code == 2
    assert listing(tmp_path) == []


def test_the_old_file_stays_until_the_new_one_is_on_the_disk(tmp_path, monkeypatch):
    path, seen = tmp_path / "report.json", []
    path.write_text(OLD)
    real = os.fsync

    def fsync(descriptor):
        whole = os.fstat(descriptor).st_size
        seen.append((path.read_text(), whole, len(listing(tmp_path))))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_whole(str(path), "new")
    assert seen == [(OLD, 3, 2)]
    assert path.read_text() == "new"
    assert listing(tmp_path) == ["report.json"]


@pytest.mark.usefixtures("engine", "full")
def test_a_full_disk_leaves_the_old_file_and_nothing_else(normcheck, tmp_path):
    path = tmp_path / "report.json"
    path.write_text(OLD)
    outcome = normcheck("simulate", "--json", path)
    assert outcome.code == 2
    assert outcome.err == f"normcheck: error: cannot write {path}: No space left on device\n"
    assert path.read_text() == OLD
    assert listing(tmp_path) == ["report.json"]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), KeyboardInterrupt()])
def test_whatever_interrupts_the_writing_leaves_nothing(tmp_path, monkeypatch, error):
    def replace(*_):
        raise error

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises((NormcheckError, KeyboardInterrupt)):
        write_whole(str(tmp_path / "report.json"), "new")
    assert listing(tmp_path) == []


def test_permissions_are_those_of_new_files_or_of_the_old_one(tmp_path):
    old = os.umask(0o027)
    try:
        write_whole(str(tmp_path / "new"), "")
        (tmp_path / "old").write_text("")
        (tmp_path / "old").chmod(0o604)
        write_whole(str(tmp_path / "old"), "")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o604


def test_links_are_followed(tmp_path):
    (tmp_path / "target").write_text(OLD)
    (tmp_path / "link").symlink_to("target")
    write_whole(str(tmp_path / "link"), "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_devices_and_pipes_are_written_to_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()))
    reader.start()
    check_writable(str(pipe))
    write_whole(str(pipe), "through")
    reader.join(timeout=10)
    assert received == ["through"]
    assert listing(tmp_path) == ["pipe"]


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_what_is_open_already_is_written_from_where_it_stands(process, tmp_path, name):
    child = process("report", "simulate", "--json", name, "--quiet")
    through_a_pipe, said = child.communicate()
    assert (child.returncode, said) == (1, b"")
    with (tmp_path / "out").open("wb") as file:
        process("report", "simulate", "--json", name, "--quiet", stdout=file).wait()
    assert (tmp_path / "out").read_bytes() == through_a_pipe
    assert through_a_pipe.decode() == json_report.render(REPORT) + table.render(REPORT, width=80)


def test_what_is_not_open_is_found_before_the_computation(engine, normcheck):
    outcome = normcheck("simulate", "--json", "/dev/fd/987")
    assert outcome == (2, "", "normcheck: error: cannot write /dev/fd/987: Bad file descriptor\n")
    assert engine.calls == []


def partial(folder):
    """How much is in the temporary file; nothing where there is none, or it goes away meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return sum(path.stat().st_size for path in folder.glob(".normcheck-*.tmp"))
    return 0


@pytest.mark.parametrize("output", ["json", "html"])
@pytest.mark.parametrize("written", [1, 1_000_000, 4_000_000, 8_000_000], ids="{} bytes".format)
def test_a_kill_in_the_middle_of_writing_leaves_the_old_report_whole(process, tmp_path, output, written):
    """The kernel ends the process when at least so much of a report of many megabytes is in the new file."""
    path = tmp_path / f"report.{output}"
    path.write_text(OLD_OF[output])
    child = process("big", "simulate", f"--{output}", path, "--quiet")
    deadline = time.monotonic() + 60
    while partial(tmp_path) < written and child.poll() is None:
        assert time.monotonic() < deadline
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert path.read_text() == OLD_OF[output]
    assert partial(tmp_path) >= written


@pytest.mark.usefixtures("engine")
def test_what_a_killed_run_left_is_in_nobodys_way(normcheck, tmp_path):
    path = tmp_path / "report.json"
    path.write_text(OLD)
    left = tmp_path / ".normcheck-0123456789abcdef.tmp"
    left.write_text('{"format": 1')
    assert normcheck("simulate", "--json", path).code == 1
    assert path.read_text() == json_report.render(REPORT)
    assert left.read_text() == '{"format": 1'


@pytest.mark.parametrize("seconds", [0.05, 0.1, 0.2, 0.4, 0.8])
def test_a_kill_at_any_moment_leaves_one_report_or_the_other(process, tmp_path, seconds):
    path = tmp_path / "report.json"
    path.write_text(OLD)
    child = process("report", "simulate", "--json", path, "--quiet")
    time.sleep(seconds)
    child.kill()
    child.communicate()
    assert path.read_text() in (OLD, json_report.render(REPORT))
