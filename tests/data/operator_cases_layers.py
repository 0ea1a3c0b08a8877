"""Normalization, recurrence, sampling, poolings of many axes, losses, and dynamic quantization."""

import numpy as np

from make_operator_cases import case, node, rng

F, I = np.float32, np.int64


def normal(name, *shape):
    return rng(name).standard_normal(shape).astype(F)


def normalizations():
    x = normal("norms", 2, 6, 3, 4)
    by_channel = {"s": normal("norms.s", 6), "b": normal("norms.b", 6)}
    case("instance_normalization.pictures", [node("InstanceNormalization", "x s b", "y")], {"x": x}, by_channel, opset=13)
    nodes = [node("GroupNormalization", "x s b", "y", num_groups=3)]
    case("group_normalization.channels", nodes, {"x": x}, by_channel, opset=21)


def recurrences():
    steps, batch, width, hidden = 4, 2, 3, 5
    x = normal("rnn", steps, batch, width)
    for op, gates, outputs in ("RNN", 1, "y h"), ("GRU", 3, "y h"), ("LSTM", 4, "y h c"):
        for direction, n in ("forward", 1), ("reverse", 1), ("bidirectional", 2):
            name = f"{op.lower()}.{direction}"
            weights = {
                "w": normal(name + "w", n, gates * hidden, width) * F(0.5),
                "r": normal(name + "r", n, gates * hidden, hidden) * F(0.5),
                "b": normal(name + "b", n, 2 * gates * hidden) * F(0.5),
            }
            nodes = [node(op, "x w r b", outputs, hidden_size=hidden, direction=direction)]
            case(name, nodes, {"x": x}, weights, outputs.split(), opset=14)
            if direction == "bidirectional":
                weights |= {"n": np.array([4, 2], np.int32), "h0": normal(name + "h", n, batch, hidden)}
                extra = ""
                if op == "LSTM":
                    weights |= {"c0": normal(name + "c", n, batch, hidden), "p": normal(name + "p", n, 3 * hidden)}
                    extra = " c0 p"
                more = {"linear_before_reset": 1} if op == "GRU" else {}
                nodes = [node(op, f"x w r b n h0{extra}", outputs, hidden_size=hidden, direction=direction, clip=0.8, **more)]
                case(f"{op.lower()}.states", nodes, {"x": x}, weights, outputs.split(), opset=14)
    weights = {k: v for k, v in weights.items() if k in "wr"}
    activations = {"RNN": ["Relu"], "LSTM": ["Sigmoid", "Tanh", "Relu"]}
    for op, gates in ("RNN", 1), ("LSTM", 4):
        w = {k: v[:1, : gates * hidden] for k, v in weights.items()}
        nodes = [node(op, "x w r", "y", hidden_size=hidden, activations=activations[op])]
        case(f"{op.lower()}.activations", nodes, {"x": x}, w, opset=14)


def samplings():
    x = normal("grid", 2, 3, 4, 5)
    grid = normal("grid.g", 2, 3, 4, 2)
    for mode in "linear", "nearest", "cubic":
        for padding in "zeros", "border", "reflection":
            for corners in 0, 1:
                nodes = [node("GridSample", "x g", "y", mode=mode, padding_mode=padding, align_corners=corners)]
                case(f"grid_sample.{mode}_{padding}{corners}", nodes, {"x": x, "g": grid}, opset=20)
    volume, places = normal("grid.v", 1, 2, 3, 4, 3), normal("grid.p", 1, 2, 2, 2, 3)
    case("grid_sample.volume", [node("GridSample", "x g", "y")], {"x": volume, "g": places}, opset=20)
    case("grid_sample.old", [node("GridSample", "x g", "y", mode="bilinear")], {"x": x, "g": grid}, opset=16)
    for corners in 0, 1:
        nodes = [node("AffineGrid", "t s", "y", align_corners=corners)]
        case(f"affine_grid.pictures{corners}", nodes, {"t": normal("theta", 2, 2, 3)}, {"s": np.array([2, 3, 4, 5], I)}, opset=20)
    boxes = np.array([[0, 0, 3, 2], [1.5, 0.5, 4.5, 3.5], [-1, -2, 9, 9]], F)
    inputs = {"x": x, "r": boxes, "b": np.array([0, 1, 1], I)}
    for mode in "avg", "max":
        for pixel in "half_pixel", "output_half_pixel":
            nodes = [node("RoiAlign", "x r b", "y", mode=mode, output_height=2, output_width=3, sampling_ratio=2,
                          spatial_scale=0.9, coordinate_transformation_mode=pixel)]
            case(f"roi_align.{mode}_{pixel}", nodes, inputs, opset=16)
    nodes = [node("RoiAlign", "x r b", "y", output_height=2, output_width=2)]
    case("roi_align.adaptive", nodes, inputs, opset=16)
    w, b = normal("deform.w", 4, 1, 2, 2), normal("deform.b", 4)
    x = normal("deform", 1, 2, 4, 4)
    offset, mask = normal("deform.o", 1, 16, 3, 3), np.abs(normal("deform.m", 1, 8, 3, 3))
    nodes = [node("DeformConv", "x w o b m", "y", group=2, offset_group=2)]
    case("deform_conv.groups", nodes, {"x": x, "o": offset, "m": mask}, {"w": w, "b": b}, opset=19)


def poolings():
    x = normal("pools", 1, 2, 5, 6)
    volume = normal("pools.v", 1, 2, 4, 5, 4)
    case("max_pool.indices", [node("MaxPool", "x", "y i", kernel_shape=[2, 3], strides=[2, 1], pads=[1, 1, 0, 1])],
         {"x": x}, outputs=("y", "i"), opset=12)
    case("max_pool.columns", [node("MaxPool", "x", "y i", kernel_shape=[2, 2], storage_order=1)], {"x": x}, outputs=("y", "i"), opset=12)
    case("max_pool.volume", [node("MaxPool", "x", "y i", kernel_shape=[2, 3, 2], strides=[2, 1, 1], pads=[0, 1, 1, 0, 1, 0])],
         {"x": volume}, outputs=("y", "i"), opset=12)
    for include in 0, 1:
        nodes = [node("AveragePool", "x", "y", kernel_shape=[2, 3, 2], pads=[0, 1, 1, 0, 1, 0], count_include_pad=include)]
        case(f"average_pool.volume{include}", nodes, {"x": volume}, opset=11)
    case("lp_pool.pictures", [node("LpPool", "x", "y", kernel_shape=[2, 3], strides=[2, 1], pads=[0, 1, 0, 1], p=3)], {"x": x}, opset=11)
    case("lp_pool.volume", [node("LpPool", "x", "y", kernel_shape=[2, 2, 2], dilations=[1, 2, 1])], {"x": volume}, opset=18)
    nodes = [node("MaxPool", "x", "m i", kernel_shape=[2, 2], strides=[2, 2]), node("MaxUnpool", "m i", "y", kernel_shape=[2, 2], strides=[2, 2])]
    case("max_unpool.back", nodes, {"x": x[:, :, :4]}, opset=11)
    nodes = [node("Col2Im", "x s k", "y", strides=[2, 1], dilations=[1, 2], pads=[1, 0, 0, 1])]
    sizes = {"s": np.array([5, 6], I), "k": np.array([2, 3], I)}
    case("col2_im.overlap", nodes, {"x": normal("col2im", 2, 12, 9)}, sizes, opset=18)


def losses():
    x = normal("losses", 3, 5, 2)
    target = rng("losses.t").integers(0, 5, (3, 2), I)
    weights = {"w": np.abs(normal("losses.w", 5))}
    for reduction in "none", "mean", "sum":
        attributes = {"reduction": reduction, "ignore_index": 1}
        case(f"negative_log_likelihood_loss.{reduction}",
             [node("NegativeLogLikelihoodLoss", "x t w", "y", **attributes)], {"x": x, "t": target}, weights, opset=13)
        case(f"softmax_cross_entropy_loss.{reduction}",
             [node("SoftmaxCrossEntropyLoss", "x t w", "y l", **attributes)], {"x": x, "t": target}, weights, ("y", "l"), opset=13)


def dynamic_quantization():
    x = normal("dynamic", 2, 3, 6)
    case("dynamic_quantize_linear.floats", [node("DynamicQuantizeLinear", "x", "y s z")], {"x": x}, outputs=("y", "s", "z"), opset=11)
    w = rng("dynamic.w").integers(-127, 128, (6, 4)).astype(np.int8)
    for name, zero in ("none", None), ("one", np.array(3, np.int8)), ("columns", np.array([1, 2, -3, 4], np.int8)):
        constants = {"w": w} | ({} if zero is None else {"wz": zero})
        inputs = "x w" if zero is None else "x w xz wz"
        given = {"x": rng("dynamic.x").integers(0, 256, (2, 3, 6)).astype(np.uint8)}
        given |= {} if zero is None else {"xz": np.array(100, np.uint8)}
        case(f"mat_mul_integer.{name}", [node("MatMulInteger", inputs, "y")], given, constants, opset=10)
    # As onnxruntime's quantize_dynamic writes a MatMul.
    nodes = [
        node("DynamicQuantizeLinear", "x", "q s z"),
        node("MatMulInteger", "q w z wz", "p"),
        node("Cast", "p", "f", to=1),
        node("Mul", "s ws", "sw"),
        node("Mul", "f sw", "y"),
    ]
    case("mat_mul_integer.dynamic", nodes, {"x": x}, {"w": w, "wz": np.array(0, np.int8), "ws": np.array(0.02, F)}, opset=11)
    picture = rng("dynamic.p").integers(0, 256, (1, 4, 5, 6)).astype(np.uint8)
    for name, group, attributes in ("plain", 1, {"pads": [1, 1, 1, 1]}), ("groups", 2, {"strides": [2, 1], "dilations": [1, 2]}):
        w = rng(f"conv_integer.{name}").integers(0, 256, (6, 4 // group, 3, 3)).astype(np.uint8)
        nodes = [node("ConvInteger", "x w xz wz", "y", group=group, **attributes)]
        case(f"conv_integer.{name}", nodes, {"x": picture, "xz": np.array(120, np.uint8)}, {"w": w, "wz": np.array(130, np.uint8)}, opset=10)
    pictures = normal("dynamic.c", 1, 4, 5, 6)
    nodes = [
        node("DynamicQuantizeLinear", "x", "q s z"),
        node("ConvInteger", "q w z wz", "p", group=2),
        node("Cast", "p", "f", to=1),
        node("Mul", "s ws", "sw"),
        node("Mul", "f sw", "y"),
    ]
    case("conv_integer.dynamic", nodes, {"x": pictures}, {"w": w, "wz": np.array(130, np.uint8), "ws": np.array(0.02, F)}, opset=11)


def make():
    normalizations()
    recurrences()
    samplings()
    poolings()
    losses()
    dynamic_quantization()
