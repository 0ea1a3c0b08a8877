#!/usr/bin/env python3
"""Tables and a chart of what was measured; `report.py RESULTS.json` prints the tables again."""

import importlib.metadata
import json
import platform
import subprocess
import sys

# The part of the CPU's flags that 8-bit kernels turn on.
FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")

# What is not compared, and why.
NOT_RUN = [
    ("LiteRT", "the runtime installs, but its converter from ONNX (onnx2tf) needs 2.6 GB of TensorFlow and "
               "downloads pictures when it runs"),
    ("ncnn", "its package has the runtime, not the tools that make an 8-bit model"),
]


def machine():
    """CPU model, number of CPUs and the flags that matter."""
    try:
        text = open("/proc/cpuinfo").read()
    except OSError:
        return {"cpu": platform.processor() or platform.machine(), "cpus": "?", "flags": []}
    rows = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    rows = {key.strip(): value.strip() for key, value in rows.items()}
    flags = (rows.get("flags") or rows.get("Features") or "").split()
    cpu = rows.get("model name", platform.machine())
    if "cpu family" in rows:
        cpu += f", family {rows['cpu family']} model {rows['model']}"
    return {"cpu": cpu, "cpus": text.count("processor\t"), "flags": [f for f in FLAGS if f in flags]}


def versions(target):
    """Of daq and of every peer."""
    said = subprocess.run([target / "daq", "--version"], capture_output=True, text=True).stdout.split()
    found = {"daq": said[-1] if said else "?"}
    found |= {name: importlib.metadata.version(name) for name in ("onnxruntime", "openvino", "nncf")}
    return found | {"python": platform.python_version()}


def best(times, key, isa=None):
    """The name of the fastest 8-bit peer by `key` (min or median), or None. Under `isa`, of those that it holds, too."""
    peers = [name for name in times if name != "daq" and not name.endswith("f32")]
    if isa:
        peers = [name for name in peers if name.startswith("OpenVINO")]
    return min(peers, key=lambda name: times[name][key], default=None)


def lines(name, threads, times, errors):
    """One model at one number of threads, for the terminal."""
    yield f"\n{name}, {threads} thread{'s' * (int(threads) > 1)}"
    for peer, t in sorted(times.items(), key=lambda item: item[1]["min"]):
        yield (f"  {peer:36} min {t['min']:8.3f}  median {t['median']:8.3f} ms  {t['runs']:5} runs, "
               f"{t['quiet']:2} of {t['turns']:2} turns quiet   load {t['load']:7.1f}  first {t['first']:7.1f} ms")
    for peer, error in errors.items():
        yield f"  {peer:36} {error}"


def table(header, rows):
    """A table in Markdown; the first column holds names, the others numbers."""
    head = [f"| {' | '.join(header)} |", f"|---|{'---:|' * (len(header) - 1)}"]
    return "\n".join(head + [f"| {' | '.join(row)} |" for row in rows])


def summary(results):
    """One row for each model and number of threads: daq, the best 8-bit peer, onnxruntime f32."""
    rows = []
    for model, result in results["models"].items():
        for threads, times in result["times"].items():
            def pair(by_min, by_median):
                return f"{times[by_min]['min']:.2f} / {times[by_median]['median']:.2f}"

            ours, f32 = times["daq"], times["onnxruntime f32"]
            by_min, by_median = (best(times, key, results["isa"]) for key in ("min", "median"))
            if by_min is None:
                continue
            names = by_min if by_min == by_median else f"{by_min} / {by_median}"
            rows.append([
                model,
                threads,
                pair("daq", "daq"),
                f"{pair(by_min, by_median)} ({names})",
                f"{ours['min'] / times[by_min]['min']:.2f} / {ours['median'] / times[by_median]['median']:.2f}",
                pair("onnxruntime f32", "onnxruntime f32"),
                f"{f32['min'] / ours['min']:.2f} / {f32['median'] / ours['median']:.2f}",
            ])
    return table(["model", "threads", "daq", "best 8-bit peer", "daq / best peer", "onnxruntime f32", "f32 / daq"], rows)


def everything(results, threads):
    """Every contender's best time at one number of threads."""
    models = [name for name, result in results["models"].items() if threads in result["times"]]
    contenders = []
    for name in models:
        contenders += [c for c in results["models"][name]["times"][threads] if c not in contenders]
    rows = []
    for contender in contenders:
        cells = [results["models"][name]["times"][threads].get(contender) for name in models]
        rows.append([contender] + [f"{c['min']:.2f} / {c['median']:.2f}" if c else "-" for c in cells])
    return table(["min / median ms", *models], rows)


def starting(results):
    """Loading and the first inference in a running process, then whole processes."""
    rows = []
    for model, result in results["models"].items():
        cold = {name: times for name, times in result["cold"].items() if times}
        inside = cold.pop("daq in a process", {})
        for contender, whole in cold.items():
            within = inside if contender == "daq" else whole
            rows.append([model, contender, *(f"{within[key]:.1f}" if key in within else "-" for key in ("load", "first")),
                         f"{whole['min']:.0f}", f"{whole['median']:.0f}", f"{whole['mib']:.0f}"])
    return table(["model", "contender", "load", "first inference", "process, min", "median", "peak MiB"], rows)


def markdown(results):
    """The page docs/peers.md."""
    machine, versions = results["machine"], results["versions"]
    turns = [t for r in results["models"].values() for times in r["times"].values() for t in times.values()]
    quiet = sum(t["quiet"] for t in turns) / max(1, sum(t["turns"] for t in turns))
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    lowered = (f"daq and OpenVINO were told to use no more than {results['isa'].upper()} (`--isa {results['isa']}`); "
               "the others, onnxruntime f32 among them, have no such switch and used what the CPU has, so the best peer is OpenVINO's "
               "best here. A runtime that is told less than the CPU has may lack kernels that it has on a CPU of that kind.\n\n") if results["isa"] else ""
    parts = [
        "# Beside other runtimes",
        "The same models and inputs, on the same machine, in turns. Made by `python3 benches/peers/run.py`, which installs and "
        "builds what it compares; run it to get this page for your machine.",
        f"{lowered}{results['date']}; {machine['cpu']}, {machine['cpus']} CPUs ({', '.join(machine['flags'])}); {said}, "
        "rten 0.27.0, tract 0.23.9.",
        "## Time of one inference",
        "Milliseconds, min / median; batch 1, floats in, floats out. A ratio `daq / best peer` below 1 means that daq is the faster.",
        summary(results),
        "The best peer is the fastest 8-bit one below, whichever that is, once by min and once by median.",
    ]
    if not results["isa"]:
        parts.append("![daq and the fastest 8-bit peer, relative to onnxruntime f32](peers.svg)")
    parts += ["## Everyone"]
    for threads in dict.fromkeys(t for r in results["models"].values() for t in r["times"]):
        parts += [f"{threads} thread{'s' * (int(threads) > 1)}:", everything(results, threads)]
    failed = [(f"{peer} on {model}", error) for model, r in results["models"].items() for peer, error in r["errors"].items()]
    parts += [
        "Not run:\n\n" + "\n".join(f"- {peer}: {why}." for peer, why in NOT_RUN + failed),
        "## Starting",
        "1 thread, milliseconds. *load* is from the file to a session and *first inference* what follows, each the best of several fresh "
        "processes; *process* is everything from its start to its end "
        "with one inference: `daq run MODEL.daq INPUT.npy`, the peers through Python (rten: a program of its own) on the same input.",
        starting(results),
        "## How it was measured",
        "- Each contender has a process of its own, which is stopped (SIGSTOP) whenever another one is timed, so that waiting threads do not "
        "spin beside it. They take turns in random order, many times, after a few runs that do not count.\n"
        "- A turn in which the system kept the contender's threads waiting for a CPU for more than a tenth of the time is taken again. "
        f"{100 * quiet:.0f} % of the turns were quiet. Medians are of quiet turns where every contender had enough of them, else of all "
        "turns; the min is of all. On a busy machine trust the min.\n"
        "- daq: `daq quantize` with its default settings, `daq convert`, the Rust API with `f32` slices.\n"
        "- onnxruntime: `quant_pre_process`, `quantize_static` (MinMax; u8 activations, s8 weights), all graph optimizations, inputs and "
        "outputs bound before. Its u8*s8 kernels saturate on CPUs without VNNI.\n"
        "- OpenVINO: NNCF's post-training quantization (both presets), and onnxruntime's QDQ models; latency hint, one stream, the input bound before.\n"
        "- rten and tract: onnxruntime's QDQ model.\n"
        "- 50 calibration pictures, the same for all. `-rand` models have random weights, for time only; the ResNets among them are made by "
        "the command, the other models are read from a folder (`--models`), and what is not there is left out.",
    ]
    return "\n\n".join(parts) + "\n"


def chart(results, threads="1"):
    """Bars: how many times faster than onnxruntime f32, by min, at `threads`; an SVG for light and dark pages."""
    rows = []
    for model, result in results["models"].items():
        times = result["times"].get(threads)
        peer = times and best(times, "min")
        if peer:
            f32 = times["onnxruntime f32"]["min"]
            rows.append((model, f32 / times["daq"]["min"], f32 / times[peer]["min"], peer))
    left, width, bar, gap, top = 190, 520, 15, 18, 66
    full = max([1.0, *(x for row in rows for x in row[1:3])])
    group = 2 * bar + gap
    height = top + group * len(rows) + 8

    def x(value):
        return left + width * value / full

    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 110} {height}" font-family="system-ui, sans-serif" '
        'font-size="12" role="img">',
        "<title>Speed relative to onnxruntime f32</title>",
        "<style>text{fill:#24292f}.dim{fill:#59636e}.us{fill:#1a7f5a}.peer{fill:#8c959f}.one{stroke:#59636e;stroke-dasharray:3 3}"
        "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.dim{fill:#9198a1}.us{fill:#3fb98a}.peer{fill:#656c76}.one{stroke:#9198a1}}</style>",
        f'<text x="0" y="16" font-size="14" font-weight="600">How many times faster than onnxruntime f32, {threads} '
        f"thread{'s' * (int(threads) > 1)}</text>",
        '<rect class="us" x="0" y="29" width="12" height="12"/><text x="18" y="39">daq</text>',
        '<rect class="peer" x="60" y="29" width="12" height="12"/><text x="78" y="39">the fastest other 8-bit runtime</text>',
        f'<text class="dim" x="{left + width + 100}" y="39" text-anchor="end">{results["machine"]["cpu"].split(",")[0]}, {results["date"]}</text>',
        f'<line class="one" x1="{x(1):.1f}" x2="{x(1):.1f}" y1="{top - 12}" y2="{height - gap}"/>',
    ]
    for i, (model, ours, theirs, peer) in enumerate(rows):
        y = top + i * group
        svg += [
            f'<text x="{left - 10}" y="{y + bar + 4}" text-anchor="end">{model}</text>',
            f'<rect class="us" x="{left}" y="{y}" width="{x(ours) - left:.1f}" height="{bar - 1}"/>',
            f'<text x="{x(ours) + 6:.1f}" y="{y + bar - 4}">{ours:.1f}</text>',
            f'<rect class="peer" x="{left}" y="{y + bar}" width="{x(theirs) - left:.1f}" height="{bar - 1}"/>',
            f'<text class="dim" x="{x(theirs) + 6:.1f}" y="{y + 2 * bar - 4}">{theirs:.1f} {peer.split()[0]}</text>',
        ]
    return "\n".join([*svg, "</svg>"]) + "\n"


if __name__ == "__main__":
    print(markdown(json.load(open(sys.argv[1]))))
