"""Output that nobody can read, and names that mean something to a terminal or to Markdown."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from small import ROOT

from mexjax import cli, progress, terminal
from mexjax.terminal import Output, markdown, plain

NAMES = ["[/x]", "[bold]y[/bold]", "{0}%s%", ":smile:", "a\\", "$x_1$", "_z_", "a|b", "<b>&lt;`"]
COMMAND = """
import sys
from mexjax import cli, progress, terminal

def action():
    console = terminal.console()
    with progress.ClipProgress(console=console) as bar:
        bar.say("begun")
    for number in range(200):
        console.print(terminal.plain(f"line {number}"))
    open(sys.argv[1], "w").write("recorded")
    ANSWER

cli.entry_point(lambda: cli.run_command(action))
"""
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=60,
    )


@pytest.mark.parametrize(
    ("redirection", "errors"),
    [
        ("| head -1", ""),
        (">&-", ""),
        (">&- 2>&-", ""),
        pytest.param("2>/dev/full", "", marks=FULL),
        pytest.param(">/dev/full 2>&1", "", marks=FULL),
        pytest.param(
            ">/dev/full",
            "Standard output cannot be written: No space left on device. The work went on without"
            " it.\n",
            marks=FULL,
        ),
    ],
)
def test_work_is_done_whoever_reads(redirection, errors, tmp_path):
    """The status is that of the work: 0, or 1 that the work asked for."""
    for answer in (0, 1):
        file, record = tmp_path / "command.py", tmp_path / "record"
        file.write_text(COMMAND.replace("ANSWER", f"return {answer}"))
        done = shell(f"{sys.executable} {file} {record} {redirection}")
        assert (done.returncode, done.stderr) == (answer, errors)
        assert record.read_text() == "recorded"
        record.unlink()


@pytest.mark.parametrize(
    ("redirection", "status"),
    [("| head -1", 141), (">&-", 0), pytest.param(">/dev/full", 2, marks=FULL)],
)
def test_output_that_was_all_that_was_asked_for(redirection, status, tmp_path):
    """More is printed than a pipe holds, so the reader that went away is noticed."""
    file = tmp_path / "command.py"
    work = "raise SystemExit([print('x' * 10**6), 0][1])"
    file.write_text(COMMAND.replace("ANSWER", work))
    done = shell(f"{sys.executable} {file} {tmp_path / 'record'} {redirection}")
    assert done.returncode == status
    assert done.stderr.count("\n") == (status == 2)


@pytest.mark.parametrize("command", ["--list", "--help", "study --help", "prepare --help"])
def test_listings_on_a_full_disk(command):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    done = shell(f"{sys.executable} -m mexjax.main {command} > /dev/full")
    assert done.returncode == 2
    assert done.stderr == "Standard output cannot be written: No space left on device.\n"


def test_a_file_that_is_opened_is_not_standard_output(tmp_path):
    """Without standard files, what a library prints would go into the next file of the run."""
    file, record = tmp_path / "command.py", tmp_path / "record"
    work = "f = open(sys.argv[1], 'r+'); __import__('os').write(1, b'library'); return f.fileno()"
    file.write_text(COMMAND.replace("ANSWER", work))
    assert shell(f"{sys.executable} {file} {record} 0>&- >&- 2>&-").returncode > 2
    assert record.read_text() == "recorded"


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_what_an_encoding_lacks_is_an_escape(encoding, tmp_path):
    file = tmp_path / "command.py"
    name = b"caf\xc3\xa9 \xff \xe5\x90\x8d".decode("utf-8", "surrogateescape")
    file.write_text(
        COMMAND.replace(
            "ANSWER",
            f"print({name!a}); console.print({name!a})\n"
            f"    console.print(terminal.plain({name!a}))\n"
            f"    raise cli.ConfigError({name!a})",
        )
    )
    done = shell(f"{sys.executable} {file} {tmp_path / 'record'} 2>&1", PYTHONIOENCODING=encoding)
    assert done.returncode == cli.ERROR and "Traceback" not in done.stdout
    assert done.stdout.count("\\udcff") == 4


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_are(name):
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    console.print(plain(name, "bold"))
    with progress.ClipProgress(name, console=console) as bar:
        bar.say(name)
        bar(1, 2)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    assert text.count(name) >= 2


def test_control_characters_do_nothing():
    assert str(plain("a\x1b[31mb\rc\x07\u202ed")) == "a\\x1b[31mb\\rc\\x07\\u202ed"
    assert str(plain("é\n\t名")) == "é\n\t名"


def test_markdown_has_no_meaning():
    assert markdown("EP02_01f, 12.5% (n=3)") == "EP02_01f, 12.5% (n=3)"
    assert markdown("a|b\nc") == r"a\|b c"
    assert markdown("<b>*x* `y` [z](u) _i_ &lt; $m$") == (
        r"\<b\>\*x\* \`y\` \[z\](u) \_i\_ \&lt; \$m\$"
    )


def test_a_logger_that_closes_a_stream_at_its_end_does_no_harm():
    stream = io.StringIO()
    for output in (Output(None), Output(stream)):
        output.close()
    assert not stream.closed


def test_a_stream_is_given_up_after_its_first_fault():
    class Broken(io.StringIO):
        num_writes = 0

        def write(self, text: str) -> int:
            self.num_writes += 1
            raise OSError(5, "Input/output error")

    stream = Broken()
    output = Output(stream)
    assert output.write("text") == output.write("more") == 4
    assert stream.num_writes == 1 and output.fault is not None and not output.isatty()
    closed = io.StringIO()
    closed.close()
    output = Output(closed)
    output.write("text")
    output.flush()
    assert output.fault is None and not output.isatty()


def test_every_console_is_made_in_one_place():
    """A console that someone else makes reads markup in names."""
    for path in (ROOT / "mexjax").rglob("*.py"):
        if path.name != "terminal.py":
            assert not re.search(r"\bConsole\(", path.read_text()), path


def test_alarms_are_passed_on_to_a_terminal_that_is_gone():
    """The reader of the pipe goes on reading, or the process would wait for it for ever."""
    code = (
        "import os\nfrom mexjax.progress import without_alarms\n"
        "with without_alarms():\n    [os.write(2, b'x' * 999 + b'\\n') for _ in range(200)]\n"
    )
    done = shell(f"{sys.executable} -c '{code.replace(chr(39), chr(34))}' 2>/dev/full; echo done")
    assert done.stdout == "done\n"


def test_streams_come_back():
    before = sys.stdout, sys.stderr
    with terminal.lenient_output():
        assert sys.stdout is not before[0]
    assert (sys.stdout, sys.stderr) == before
