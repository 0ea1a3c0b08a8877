"""How fast models run that other tools quantized, beside daq's own quantization of the same net.

    cargo build --release -p daq-cli
    python benches/foreign/speed.py DATA [--rounds 20] [--threads 1] [--only NAME]

Both are run in turn; a ratio is that of the least times of a round, and the median of all rounds is printed.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
# The foreign model, its float form, pictures, and flags of our quantization beside the default.
PAIRS = [
    ("foreign/mobilenet_v2-qdq-u8u8-pt.onnx", "models/mobilenet_v2.onnx", "imagenet-dev", []),
    ("foreign/mobilenet_v2-qdq-u8u8-pt.onnx", "models/mobilenet_v2.onnx", "imagenet-dev", ["--weights", "asymm"]),
    ("foreign/mobilenet_v2-nncf-mixed.onnx", "models/mobilenet_v2.onnx", "imagenet-dev", []),
    ("foreign/efficientnet-lite0-qop-u8s8-pc.onnx", "models/efficientnet-lite0.onnx", "imagenet-dev", []),
    ("foreign/resnet20-nncf-mixed.onnx", "models/resnet20.onnx", "cifar10-dev", []),
    ("models/mobilenet_v1_0.25_128-qdq-from-qat.onnx", "models/mobilenet_v1_0.25_128-float-from-qat.onnx", "imagenet-dev", []),
    ("models/pretrainedResnet_quant-qdq.onnx", "models/pretrainedResnet.onnx", "cifar10-dev", []),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", default="1")
    parser.add_argument("--only", default="", help="models whose file name has this")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/daq")
    args = parser.parse_args()

    def least(model):
        command = [args.binary, "bench", model, "--threads", args.threads, "--runs", "30", "--json"]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["min_ms"]

    print("| model | our quantization | ms | ours, ms | ratio |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for foreign, floats, pictures, flags in PAIRS:
            if args.only not in foreign:
                continue
            own = pathlib.Path(folder) / "own.onnx"
            command = [args.binary, "quantize", "-q", "--force", "--image_dir", args.data / "pictures" / pictures, "--samples", "8"]
            command += ["--recovery", "none", "--calibration", "minmax", *flags, "-o", own, args.data / floats, own.with_suffix(".txt")]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times = [(least(args.data / foreign), least(own)) for _ in range(args.rounds)]
            a, b = (min(t[i] for t in times) for i in (0, 1))
            ratio = statistics.median(x / y for x, y in times)
            print(f"| {pathlib.Path(foreign).stem} | {' '.join(flags) or 'default'} | {a:.3f} | {b:.3f} | {ratio:.3f} |", flush=True)


if __name__ == "__main__":
    main()
