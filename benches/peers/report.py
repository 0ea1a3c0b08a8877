"""Tables and a chart of what was measured."""

import importlib.metadata
import platform
import subprocess

# The part of the CPU's flags that 8-bit kernels turn on.
FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")


def machine():
    """CPU model, count of CPUs and the flags that matter."""
    try:
        text = open("/proc/cpuinfo").read()
    except OSError:
        return {"cpu": platform.processor() or platform.machine(), "cpus": "?", "flags": []}
    rows = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    rows = {key.strip(): value.strip() for key, value in rows.items()}
    flags = (rows.get("flags") or rows.get("Features") or "").split()
    return {
        "cpu": f"{rows.get('model name', platform.machine())} (family {rows.get('cpu family', '?')}, model {rows.get('model', '?')})",
        "cpus": text.count("processor\t"),
        "flags": [f for f in FLAGS if f in flags],
    }


def versions(target):
    found = {name: importlib.metadata.version(name) for name in ("onnxruntime", "openvino", "nncf", "numpy")}
    found["python"] = platform.python_version()
    found["daq"] = subprocess.run([target / "daq", "--version"], capture_output=True, text=True).stdout.split()[-1]
    return found


def best(times, key):
    """The fastest 8-bit peer by `key`, or None."""
    peers = [name for name in times if name != "daq" and not name.endswith("f32")]
    return min(peers, key=lambda name: times[name][key], default=None)


def lines(name, threads, times, errors):
    """One model at one number of threads, for the terminal."""
    yield f"\n{name}, {threads} thread{'s' * (threads > 1)}"
    for peer, t in sorted(times.items(), key=lambda item: item[1]["median"]):
        yield (f"  {peer:36} min {t['min']:8.3f}  median {t['median']:8.3f} ms   {t['runs']:5} runs"
               f"   load {t['load']:7.1f}  first {t['first']:7.1f} ms")
    for peer, error in errors.items():
        yield f"  {peer:36} {error}"


def markdown(results):
    rows = ["| model | threads | daq | best 8-bit peer | daq / best, min | median | onnxruntime f32 | f32 / daq |",
            "|---|---|---|---|---|---|---|---|"]
    for model, result in results["models"].items():
        for threads, times in result["times"].items():
            ours, f32 = times["daq"], times["onnxruntime f32"]
            by_min, by_median = best(times, "min"), best(times, "median")
            peer = times.get(by_median)
            rows.append(
                f"| {model} | {threads} | {ours['min']:.2f} / {ours['median']:.2f} "
                + (f"| {times[by_min]['min']:.2f} / {peer['median']:.2f} {by_median} "
                   f"| {ours['min'] / times[by_min]['min']:.2f} | {ours['median'] / peer['median']:.2f} " if peer else "| | | ")
                + f"| {f32['min']:.2f} / {f32['median']:.2f} | {f32['median'] / ours['median']:.2f} |")
    return "\n".join(rows)
