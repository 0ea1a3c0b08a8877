"""Times contenders in turn, each in a process of its own.

Machines are noisy: what else runs, the clock and the caches change from second to second. So contenders take turns
many times and each is judged by its best and its median over all turns. Thread pools spin while they wait; a process
whose turn it is not is stopped (SIGSTOP), so that it takes nothing from the one that is timed.
"""

import array
import dataclasses
import json
import math
import operator
import os
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import time


# The least cosine between a contender's output and the float model's. Quantizing a network of random weights can
# leave 0.6; a model that was converted wrongly is near 0.
CLOSE = 0.4


@dataclasses.dataclass
class Times:
    """What was measured of one contender on one model; milliseconds."""

    quiet: list = dataclasses.field(default_factory=list)
    disturbed: list = dataclasses.field(default_factory=list)
    quiet_turns: int = 0
    turns: int = 0
    load: float = 0.0
    first: float = 0.0
    error: str = ""

    only_quiet: bool = True

    @property
    def runs(self):
        """Those that the median is of."""
        return self.quiet if self.only_quiet else self.quiet + self.disturbed

    @property
    def enough_quiet(self):
        return self.quiet_turns >= max(2, self.turns / 10)

    def add(self, runs, quiet):
        (self.quiet if quiet else self.disturbed).extend(runs)
        self.quiet_turns += quiet
        self.turns += 1

    @property
    def min(self):
        return min(self.quiet + self.disturbed)

    @property
    def median(self):
        return statistics.median(self.runs)


class Worker:
    """A contender's process; it speaks the protocol of worker.py and is stopped between requests."""

    def __init__(self, command, environment):
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        word, *numbers = self.answer().split()
        if word != "ready":
            raise RuntimeError(f"unexpected answer: {word}")
        self.load, self.first = (int(n) * 1e-6 for n in numbers)

    def answer(self):
        line = self.process.stdout.readline()
        # Runtimes may print words of their own on stdout.
        while line and not (line[0].isdigit() or line.split()[:1] in (["ready"], ["done"])):
            line = self.process.stdout.readline()
        if not line:
            said = self.process.communicate()[1].strip().splitlines()
            raise RuntimeError(said[-1] if said else "the process ended")
        self.process.send_signal(signal.SIGSTOP)
        return line

    def ask(self, request):
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        return self.answer()

    def run(self, warm, count):
        """Times of `count` runs, and whether the CPU was there for them whenever it was wanted."""
        before, start = self.threads(), time.perf_counter_ns()
        runs = [int(n) * 1e-6 for n in self.ask(f"run {warm} {count}").split()]
        tenth = (time.perf_counter_ns() - start) / 10
        waited = 0
        for thread, (ran, waits) in self.threads().items():
            ran_before, waits_before = before.get(thread, (0, 0))
            if ran - ran_before > tenth:  # idle threads of pools wake and wait, too, and hold nobody up
                waited += waits - waits_before
        return runs, waited < tenth

    def threads(self):
        """Nanoseconds that each thread ran, and that it was ready to run and had no CPU. Empty where the system does not say."""
        found = {}
        for file in pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/schedstat"):
            try:
                ran, waited, _ = map(int, file.read_text().split())
                found[file.parent.name] = ran, waited
            except (OSError, ValueError):
                pass  # the thread has ended meanwhile
        return found

    def close(self):
        self.process.kill()
        self.process.communicate()


def cosine(file, reference):
    """The cosine of the angle between the floats of two files."""
    a, b = array.array("f", file.read_bytes()), array.array("f", reference.read_bytes())
    norm = math.hypot(*a) * math.hypot(*b)
    return sum(map(operator.mul, a, b)) / norm if norm and len(a) == len(b) else 0.0


def interleaved(commands, reference, rounds, slot_ms, environment, outputs):
    """Times every command (name to argv) in `rounds` turns of about `slot_ms` each; name to Times.

    A turn in which other programs kept a contender from the CPU is not quiet and is taken again at the end, up to
    as many turns as there were. Medians are of quiet turns where every contender had enough of them, else of all turns
    of everyone, so that none is judged more kindly than another.
    One that is far slower than daq takes every fourth turn only. Each one's output goes to the folder `outputs`; one
    that gives something else than `reference`, the first command, is out.
    """
    results = {name: Times() for name in commands}
    workers, pace, files = {}, {}, {}
    try:
        for name, command in commands.items():
            try:
                worker = workers[name] = Worker(command, environment)
                results[name].load, results[name].first = worker.load, worker.first
                files[name] = outputs / f"output-{name.replace(' ', '-')}.f32"
                worker.ask(f"output {files[name]}")
                closeness = cosine(files[name], files[reference])
                if closeness < CLOSE:
                    raise RuntimeError(f"its output is not the model's: cosine {closeness:.2f}")
                pace[name] = min(worker.run(3, 3)[0])
            except (RuntimeError, BrokenPipeError) as error:
                results[name].error = str(error)
        order = random.Random(1)
        for turn in range(2 * rounds):
            names = list(pace)
            order.shuffle(names)
            for name in names:
                slow = name != reference and pace[name] > 2.5 * pace.get("daq", pace[name])
                wanted = rounds // 4 if slow else rounds
                if results[name].quiet_turns >= wanted or (slow and turn % 4):
                    continue
                count = max(2, min(50, round(slot_ms / pace[name])))
                results[name].add(*workers[name].run(max(1, round(5 / pace[name])), count))
    finally:
        for worker in workers.values():
            worker.close()
    enough = all(times.enough_quiet for times in results.values() if not times.error)
    for times in results.values():
        times.only_quiet = enough
    return results


# Runs a command and prints its wall time, peak memory, status, and where it speaks the protocol its first answer. A
# process of its own and small, since the peak that a child is charged with starts at what its parent had in memory.
PROBE = """
import json, os, subprocess, sys, time
start = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
said = child.stdout.read().decode(errors="replace").splitlines()
_, status, usage = os.wait4(child.pid, 0)
ready = [line.split()[1:] for line in said if line.startswith("ready ")] or [[]]
print(json.dumps([time.perf_counter() - start, usage.ru_maxrss, status, ready[0]]))
"""


def cold(commands, repeats, environment):
    """Runs whole processes in turn: name to what was measured, or to None if one fails.

    `min` and `median` are of the whole process in milliseconds, `mib` its peak memory; `load` and `first`, where the
    process speaks the protocol of worker.py, the best of what it says, in milliseconds.
    """
    runs = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            probe = [sys.executable, "-S", "-E", "-c", PROBE, *map(str, command)]
            said = subprocess.run(probe, env=environment, capture_output=True, text=True, check=True).stdout
            runs[name].append(json.loads(said))
    results = {}
    for name, rows in runs.items():
        seconds, peaks, statuses, ready = zip(*rows)
        if any(statuses):
            results[name] = None
            continue
        results[name] = {"min": 1e3 * min(seconds), "median": 1e3 * statistics.median(seconds), "mib": max(peaks) / 1024}
        if ready[0]:
            results[name] |= {key: min(int(r[i]) for r in ready) * 1e-6 for i, key in enumerate(("load", "first"))}
    return results


# The names that OpenVINO's kernels (oneDNN) have for daq's instruction sets.
ONEDNN_ISA = {"scalar": "SSE41", "avx512": "AVX512_CORE", "avx512vnni": "AVX512_CORE_VNNI", "avx512vbmi": "AVX512_CORE_VNNI"}


def environment(isa):
    """The environment of all contenders; `isa` lowers the instruction set of those that can be told."""
    variables = dict(os.environ)
    for name in ("DAQ_ISA", "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS"):
        variables.pop(name, None)
    if isa:
        variables["DAQ_ISA"] = isa
        variables["ONEDNN_MAX_CPU_ISA"] = ONEDNN_ISA.get(isa, isa.upper())
    return variables
