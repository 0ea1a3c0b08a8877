"""The models that are compared: four from files, two made here.

`resnet18-rand` and `resnet50-rand` are torchvision's architectures with seeded random weights: they are for time
only, which does not depend on the values. Weights are drawn as He et al. do (arXiv:1502.01852), BatchNorm is taken
as folded into the convolutions, and the last convolution of a residual branch is scaled down, so that activations
stay in a range that 8 bits can hold.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IMAGENET = {"color": "rgb", "crop": 0.875, "mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}

# How each model wants its pictures; from 0 to 255, (pixel - mean) / std.
PREPROCESS = {
    "efficientnet-lite0": {"color": "rgb", "crop": 0.875, "mean": (127, 127, 127), "std": (128, 128, 128)},
    "squeezenet1.0-dc": {"color": "bgr", "crop": 0.8867, "mean": (104, 117, 123), "std": (1, 1, 1)},
}

# Blocks of each stage, and whether a block is a bottleneck (1x1, 3x3, 1x1) or two 3x3 convolutions.
RESNETS = {"resnet18-rand": ((2, 2, 2, 2), False), "resnet50-rand": ((3, 4, 6, 3), True)}


class Builder:
    """Collects nodes and weights; every method returns the name of the value that it made."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.nodes = []
        self.weights = []

    def node(self, op, *inputs, **attributes):
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def weight(self, array):
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def conv(self, x, channels_in, channels_out, size, stride=1, gain=1.0, relu=True):
        deviation = gain * (2.0 / (channels_in * size * size)) ** 0.5
        w = self.weight(self.rng.normal(0.0, deviation, (channels_out, channels_in, size, size)))
        b = self.weight(self.rng.normal(0.0, 0.05, channels_out))
        y = self.node("Conv", x, w, b, kernel_shape=[size] * 2, strides=[stride] * 2, pads=[size // 2] * 4)
        return self.node("Relu", y) if relu else y

    def block(self, x, channels_in, width, stride, bottleneck):
        if bottleneck:
            channels_out = 4 * width
            y = self.conv(x, channels_in, width, 1)
            y = self.conv(y, width, width, 3, stride)
            y = self.conv(y, width, channels_out, 1, gain=0.3, relu=False)
        else:
            channels_out = width
            y = self.conv(x, channels_in, width, 3, stride)
            y = self.conv(y, width, channels_out, 3, gain=0.3, relu=False)
        if channels_in != channels_out or stride != 1:
            x = self.conv(x, channels_in, channels_out, 1, stride, gain=0.7, relu=False)
        return self.node("Relu", self.node("Add", y, x)), channels_out


def resnet(name):
    """The model `name` of RESNETS: 1x3x224x224 floats in, 1x1000 out, operator set 13."""
    stages, bottleneck = RESNETS[name]
    net = Builder(seed=len(name) + sum(stages))
    x = net.conv("input", 3, 64, 7, stride=2)
    x = net.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for stage, blocks in enumerate(stages):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            x, channels = net.block(x, channels, 64 * 2**stage, stride, bottleneck)
    x = net.node("Flatten", net.node("GlobalAveragePool", x), axis=1)
    w = net.weight(net.rng.normal(0.0, 0.02, (1000, channels)))
    x = net.node("Gemm", x, w, net.weight(np.zeros(1000)), transB=1)
    graph = helper.make_graph(
        net.nodes,
        name,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 224, 224])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, 1000])],
        net.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def input_of(path):
    """Name and shape of the only input of an ONNX model."""
    graph = onnx.load(path, load_external_data=False).graph
    weights = {w.name for w in graph.initializer}
    (port,) = [i for i in graph.input if i.name not in weights]
    return port.name, tuple(d.dim_value for d in port.type.tensor_type.shape.dim)


def samples(name, shape, pictures, count):
    """`count` arrays of `shape` (1x3xHxW): pictures of a folder as the model wants them, else seeded noise."""
    files = sorted(p for p in pictures.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png")) if pictures else []
    if not files:
        rng = np.random.default_rng(1)
        for _ in range(count):
            yield rng.normal(0, 1, shape).astype(np.float32)
        return
    from PIL import Image

    how = PREPROCESS.get(name, IMAGENET)
    height, width = shape[2:]
    for file in files[:: max(1, len(files) // count)][:count]:
        picture = Image.open(file).convert("RGB")
        side = how["crop"] * min(picture.size)
        left, top = (picture.width - side) / 2, (picture.height - side) / 2
        box = (left, top, left + side, top + side)
        pixels = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box=box), np.float32)
        if how["color"] == "bgr":
            pixels = pixels[:, :, ::-1]
        pixels = (pixels - np.float32(how["mean"])) / np.float32(how["std"])
        yield np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)
