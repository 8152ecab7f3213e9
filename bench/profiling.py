"""Where the time goes on the three hot ways: a request and its answer, a join, a delivery."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import page
from bench.cases.joins import EXPECT, HOLD, JOINS
from bench.load import Load, run, words_of
from bench.machine import machine, versions
from bench.processes import Failed, allow_many_files
from bench.rounds import Traffic
from bench.servers import Ours

SECONDS = 8
SAMPLES_A_SECOND = 500
SHOWN = 25
LOADS = {"operation": Traffic(100, 100, 1500, 200), "delivery": Traffic(1000, 50, 100)}
WAYS = ("operation", "join", "delivery")

DESCRIPTION = """\
Where the time goes: samples the server with py-spy under load, and lists the functions in which it
is most, with their share of all samples. C extensions count for the function that calls them.

    .venv/bin/pip install -r bench/requirements.txt
    .venv/bin/python bench/profile [operation|join|delivery]...

py-spy reads another process: run it as root, or with CAP_SYS_PTRACE."""


def main(words: Sequence[str] | None = None) -> int:
    """Profile each way, one after the other. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="bench/profile",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("ways", nargs="*", metavar="WAY", help=f"{', '.join(WAYS)} (all)")
    parser.add_argument("--output", type=Path, help="instead of bench/results/profile-DATE.txt")
    given = parser.parse_args(words)
    if unknown := sorted(set(given.ways) - set(WAYS)):
        parser.error(f"no way {', '.join(unknown)}; there are {', '.join(WAYS)}")
    allow_many_files()
    date = page.today()
    text = f"{date}; {machine()}; {versions(with_peers=False)}\n"
    for way in given.ways or WAYS:
        try:
            text += f"\n{table(way, profile(way))}"
        except Failed as failed:
            print(f"{way}: {failed}", file=sys.stderr)
            return 1
    print(text)
    name = date.removesuffix(" UTC").replace(":", "").replace(" ", "-")
    output = given.output or page.RESULTS / f"profile-{name}.txt"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    return 0


def profile(way: str) -> Counter[str]:
    """How many samples were in each function itself."""
    with Ours() as ours:
        if way == "join":
            run(words_of(ours, JOINS, options=HOLD))
            with sampling(ours.pid) as samples:
                end = time.monotonic() + SECONDS
                while time.monotonic() < end:
                    run(words_of(ours, JOINS, options=EXPECT))
            return samples()
        traffic = LOADS[way]
        with Load(traffic.words(ours)) as load:
            load.round(traffic.rate, 2)
            with sampling(ours.pid) as samples:
                load.round(traffic.rate, SECONDS + 1)
            return samples()


@contextmanager
def sampling(pid: int) -> Iterator[Callable[[], Counter[str]]]:
    """Sample a process meanwhile; what it gives says afterwards what was found.

    Raises:
        Failed: py-spy is not installed, or may not.
    """
    beside = Path(sys.executable).parent / "py-spy"
    program = str(beside) if beside.exists() else shutil.which("py-spy")
    if program is None:
        raise Failed("py-spy is not installed (bench/requirements.txt)")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "samples"
        how = ["-r", str(SAMPLES_A_SECOND), "-f", "raw", "-d", str(SECONDS), "-o", str(output)]
        child = subprocess.Popen(
            [program, "record", *how, "-p", str(pid)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        counts: Counter[str] = Counter()
        yield lambda: counts
        said, _ = child.communicate()
        if child.returncode or not output.exists():
            raise Failed(f"py-spy: {said.strip()[-300:]}")
        counts.update(self_samples(output.read_text()))


def self_samples(raw: str) -> Counter[str]:
    """Samples by function, of py-spy's raw format: `outer (file:1);inner (file:2) COUNT`."""
    counts: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        function = stack.rpartition(";")[2].rpartition(":")[0]
        counts[f"{function})" if function else stack.rpartition(";")[2]] += int(count)
    return counts


def table(way: str, counts: Counter[str]) -> str:
    """The functions with the most samples of their own."""
    total = counts.total() or 1
    lines = [f"{100 * count / total:5.1f} %  {name}" for name, count in counts.most_common(SHOWN)]
    return "\n".join([f"{way}: {total} samples", *lines, ""])
