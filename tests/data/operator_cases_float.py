"""The float and integer cases: every operator in the forms that its operator sets gave it."""

import numpy as np
from onnx import helper, numpy_helper

from make_operator_cases import case, node, rng

F, I = np.float32, np.int64
EDGES = np.array([0.0, -0.0, 0.5, -0.5, 1.5, -1.5, 2.5, 1e-6, -1e-6, 3.0, -3.0, 6.0, 6.5, 20.0, -20.0, 90.0, -90.0], F)


def normal(name, *shape):
    return rng(name).standard_normal(shape).astype(F)


def ints(*values):
    return np.array(values, I)


def unary(name, op, opset, x, **attributes):
    case(name, [node(op, "x", "y", **attributes)], {"x": x}, opset=opset)


def conv(name, x, w, bias=True, op="Conv", opset=17, **attributes):
    name = f"{'conv_transpose' if op == 'ConvTranspose' else 'conv'}.{name}"
    constants = {"w": normal(name + "w", *w)}
    if bias:
        out_c = w[1] * attributes.get("group", 1) if op == "ConvTranspose" else w[0]
        constants["b"] = normal(name + "b", out_c)
    nodes = [node(op, "x w b" if bias else "x w", "y", **attributes)]
    case(name, nodes, {"x": normal(name, *x)}, constants, opset=opset)


def convolutions():
    conv("1x1", (1, 8, 5, 5), (16, 8, 1, 1))
    conv("1x1_tails", (1, 7, 5, 3), (11, 7, 1, 1), bias=False, opset=7)
    conv("1x1_stride", (1, 5, 7, 6), (9, 5, 1, 1), strides=[2, 2], kernel_shape=[1, 1])
    conv("3x3", (1, 8, 7, 7), (16, 8, 3, 3), pads=[1, 1, 1, 1])
    conv("3x3_rgb_stride", (1, 3, 11, 12), (10, 3, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2], opset=11)
    conv("3x3_tails", (1, 5, 6, 9), (13, 5, 3, 3), pads=[1, 1, 1, 1])
    conv("7x7_rgb", (1, 3, 14, 15), (4, 3, 7, 7), pads=[3, 3, 3, 3], strides=[2, 2])
    conv("5x3", (1, 4, 9, 8), (6, 4, 5, 3), pads=[2, 1, 2, 1])
    conv("wide", (1, 33, 4, 5), (35, 33, 1, 1))
    conv("one_channel", (1, 1, 6, 6), (1, 1, 3, 3))
    conv("asymmetric_pads", (1, 4, 7, 8), (5, 4, 3, 3), pads=[0, 2, 1, 3], strides=[2, 1])
    conv("dilated", (1, 4, 9, 10), (6, 4, 3, 3), dilations=[2, 3], pads=[2, 3, 2, 3])
    conv("grouped", (1, 12, 6, 6), (9, 4, 3, 3), group=3, pads=[1, 1, 1, 1])
    conv("grouped_1x1", (1, 10, 4, 4), (6, 5, 1, 1), group=2)
    conv("depthwise_3x3", (1, 11, 7, 8), (11, 1, 3, 3), group=11, pads=[1, 1, 1, 1])
    conv("depthwise_3x3_stride", (1, 16, 8, 7), (16, 1, 3, 3), group=16, pads=[1, 1, 1, 1], strides=[2, 2], opset=22)
    conv("depthwise_5x5", (1, 9, 8, 8), (9, 1, 5, 5), group=9, pads=[2, 2, 2, 2])
    conv("depthwise_5x5_stride", (1, 8, 9, 9), (8, 1, 5, 5), group=8, pads=[2, 2, 2, 2], strides=[2, 2], bias=False)
    conv("depthwise_dilated", (1, 6, 9, 9), (6, 1, 3, 3), group=6, dilations=[2, 2], pads=[2, 2, 2, 2])
    conv("depthwise_multiplier", (1, 4, 6, 6), (8, 1, 3, 3), group=4, pads=[1, 1, 1, 1])
    conv("batch", (3, 4, 5, 5), (6, 4, 3, 3), pads=[1, 1, 1, 1])
    conv("global_kernel", (1, 6, 4, 4), (5, 6, 4, 4))
    for auto in "SAME_UPPER", "SAME_LOWER", "VALID":
        conv(auto.lower(), (1, 3, 8, 7), (5, 3, 3, 3), auto_pad=auto, strides=[2, 2])
        conv(auto.lower() + "_even", (1, 3, 7, 8), (5, 3, 4, 2), auto_pad=auto, strides=[1, 3], opset=9)
    conv("1d", (1, 5, 17), (7, 5, 3), pads=[1, 1], strides=[2])
    conv("1d_depthwise", (1, 6, 13), (6, 1, 5), group=6, pads=[2, 2])
    conv("1d_dilated", (2, 4, 15), (6, 4, 3), dilations=[2], pads=[1, 3])
    # Weights that only fold to constants: a Constant node, an Identity, another graph input's default.
    w, b = normal("conv.constant_w", 4, 3, 3, 3), normal("conv.constant_b", 4)
    nodes = [
        helper.make_node("Constant", [], ["w0"], value=numpy_helper.from_array(w)),
        node("Identity", "b0", "b"),
        node("Conv", "x w0 b", "y"),
    ]
    case("conv.constant_nodes", nodes, {"x": normal("conv.constant", 1, 3, 5, 6)}, {"b0": b})
    nodes = [node("Conv", "x w b", "c", pads=[1, 1, 1, 1]), node("Relu", "c", "r"), node("Conv", "r v", "d"), node("Add", "d x", "y")]
    x = normal("conv.residual", 1, 6, 5, 5)
    weights = {"w": normal("conv.residual_w", 8, 6, 3, 3), "b": normal("conv.residual_b", 8), "v": normal("conv.residual_v", 6, 8, 1, 1)}
    case("conv.residual", nodes, {"x": x}, weights)
    nodes = [node("Conv", "x w", "c"), node("Clip", "c low high", "y")]
    case("conv.clip", nodes, {"x": x}, {"w": weights["w"], "low": F(0), "high": F(6)})

    def transposed(name, *args, **rest):
        conv(name, *args, op="ConvTranspose", **rest)

    transposed("2x2_stride", (1, 6, 4, 5), (6, 5, 2, 2), strides=[2, 2])
    transposed("3x3", (1, 5, 5, 4), (5, 7, 3, 3), pads=[1, 1, 1, 1], opset=7)
    transposed("4x4_stride", (1, 4, 5, 5), (4, 3, 4, 4), strides=[2, 2], pads=[1, 1, 1, 1], opset=22)
    transposed("output_padding", (1, 4, 4, 4), (4, 5, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])
    transposed("asymmetric", (1, 3, 4, 5), (3, 4, 3, 3), strides=[2, 3], pads=[0, 1, 2, 0], bias=False)
    transposed("grouped", (1, 6, 4, 4), (6, 2, 3, 3), group=3, pads=[1, 1, 1, 1])
    transposed("depthwise", (1, 5, 4, 4), (5, 1, 4, 4), group=5, strides=[2, 2], pads=[1, 1, 1, 1], opset=11)
    transposed("dilated", (1, 3, 5, 5), (3, 4, 3, 3), dilations=[2, 2])
    transposed("output_shape", (1, 3, 4, 4), (3, 4, 3, 3), strides=[2, 2], output_shape=[8, 8])
    for auto in "SAME_UPPER", "SAME_LOWER", "VALID":
        transposed(auto.lower(), (1, 3, 4, 5), (3, 4, 3, 3), strides=[2, 2], auto_pad=auto, opset=11)
    transposed("1d", (1, 4, 7), (4, 3, 3), strides=[2])


def matrices():
    for trans_a in 0, 1:
        for trans_b in 0, 1:
            name = f"gemm.{'t' if trans_a else 'n'}{'t' if trans_b else 'n'}"
            a = normal(name + "a", *((17, 5) if trans_a else (5, 17)))
            b = normal(name + "b", *((11, 17) if trans_b else (17, 11)))
            nodes = [node("Gemm", "a b c", "y", transA=trans_a, transB=trans_b, alpha=0.75, beta=1.5)]
            case(name, nodes, {"a": a}, {"b": b, "c": normal(name + "c", 11)}, opset=(7, 9, 11, 13)[2 * trans_a + trans_b])
    for name, shape in {"row": (1, 6), "column": (3, 1), "matrix": (3, 6), "scalar": (), "one": (1,)}.items():
        name = "gemm.c_" + name
        inputs = {"a": normal(name + "a", 3, 9)}
        constants = {"b": normal(name + "b", 9, 6), "c": normal(name + "c", *shape)}
        case(name, [node("Gemm", "a b c", "y", beta=0.5)], inputs, constants)
    case("gemm.without_c", [node("Gemm", "a b", "y", transB=1)], {"a": normal("gemm.a", 1, 33)}, {"b": normal("gemm.b", 19, 33)}, opset=11)
    case("gemm.computed", [node("Gemm", "a b c", "y")], {k: normal("gemm." + k, *s) for k, s in {"a": (4, 6), "b": (6, 7), "c": (4, 7)}.items()})
    nodes = [node("Flatten", "x", "f"), node("Gemm", "f b c", "y", transB=1)]
    case("gemm.after_flatten", nodes, {"x": normal("gemm.x", 1, 5, 3, 3)}, {"b": normal("gemm.fb", 8, 45), "c": normal("gemm.fc", 8)})
    shapes = {
        "2d": ((5, 9), (9, 7)), "wide": ((1, 40), (40, 35)), "batched": ((2, 3, 4, 5), (2, 3, 5, 6)), "broadcast": ((3, 1, 4, 5), (2, 5, 3)),
        "3d_by_2d": ((2, 4, 6), (6, 5)), "vector_left": ((6,), (6, 5)), "vector_right": ((3, 4, 6), (6,)), "vectors": ((7,), (7,)), "2d_by_3d": ((4, 6), (3, 6, 2)),
    }
    for i, (name, (a, b)) in enumerate(shapes.items()):
        x, w = normal(f"matmul.a{i}", *a), normal(f"matmul.b{i}", *b)
        case(f"matmul.{name}", [node("MatMul", "a b", "y")], {"a": x}, {"b": w}, opset=(7, 9, 13)[i % 3])
        case(f"matmul.{name}_computed", [node("MatMul", "a b", "y")], {"a": x, "b": w})


def normalizations():
    for name, shape, opset in ("4d", (1, 7, 4, 3), 7), ("2d", (3, 5), 9), ("3d", (2, 4, 6), 14), ("15", (1, 6, 3, 3), 15):
        name = "batch_normalization." + name
        c = shape[1]
        constants = {k: normal(name + k, c) for k in ("scale", "b", "mean")}
        constants["var"] = np.abs(normal(name + "var", c)) + F(0.1)
        nodes = [node("BatchNormalization", "x scale b mean var", "y", epsilon=1e-3)]
        case(name, nodes, {"x": normal(name, *shape)}, constants, opset=opset)
    name = "batch_normalization.after_conv"
    constants = {k: normal(name + k, 5) for k in ("scale", "b", "mean")} | {"w": normal(name + "w", 5, 3, 3, 3)}
    constants["var"] = np.abs(normal(name + "var", 5)) + F(0.1)
    nodes = [node("Conv", "x w", "c"), node("BatchNormalization", "c scale b mean var", "y")]
    case(name, nodes, {"x": normal(name, 1, 3, 5, 5)}, constants)
    nodes = [node("BatchNormalization", "x scale b mean var", "n"), node("Conv", "n w", "y", pads=[1, 1, 1, 1])]
    constants = {k: v[:3] if k != "w" else v for k, v in constants.items()}
    case("batch_normalization.before_padded_conv", nodes, {"x": normal(name, 1, 3, 5, 5)}, constants)
    for name, shape, extra in ("default", (1, 9, 3, 4), {}), ("small", (2, 6, 2, 3), {"alpha": 0.5, "beta": 0.6, "bias": 2.0}):
        size = 5 if name == "default" else 3
        unary(f"lrn.{name}", "LRN", 13 if extra else 7, normal("lrn." + name, *shape) * F(9), size=size, **extra)
    for op, file in ("Softmax", "softmax"), ("LogSoftmax", "log_softmax"):
        x = normal(file, 2, 3, 4, 5) * F(4)
        unary(f"{file}.default_7", op, 7, x)
        unary(f"{file}.default_13", op, 13, x)
        for axis in 0, 1, 2, 3:
            unary(f"{file}.axis_{axis}_9", op, 9, x, axis=axis)
            unary(f"{file}.axis_{axis}_13", op, 13, x, axis=axis)
        unary(f"{file}.negative_11", op, 11, x, axis=-2)
        unary(f"{file}.negative_17", op, 17, x, axis=-2)
        unary(f"{file}.2d", op, 17, normal(file + "2d", 3, 37) * F(3), axis=1)
        unary(f"{file}.large", op, 13, np.array([[1000, 1001, -1000, 90], [-500, -501, -502, -503]], F))
        unary(f"{file}.vector", op, 13, normal(file + "1d", 9))


def unaries():
    everywhere = np.concatenate([EDGES, normal("unary", 60) * F(4)])
    positive = np.abs(everywhere) + F(1e-3)
    for op, file, opsets in (
        ("Relu", "relu", (7, 13, 14)), ("Sigmoid", "sigmoid", (7, 13)), ("Tanh", "tanh", (7, 13)), ("Exp", "exp", (7, 13)), ("Abs", "abs", (7, 13)),
        ("Neg", "neg", (7, 13)), ("Floor", "floor", (7, 13)), ("Identity", "identity", (7, 21)), ("HardSwish", "hard_swish", (15, 22)),
        ("HardSigmoid", "hard_sigmoid", (7, 22)), ("LeakyRelu", "leaky_relu", (7, 17)), ("Log", "log", (7, 13)), ("Sqrt", "sqrt", (7, 13)),
    ):
        x = positive if op in ("Log", "Sqrt") else everywhere
        for opset in opsets:
            unary(f"{file}.vector_{opset}", op, opset, x)
        unary(f"{file}.4d", op, 17, x[: 1 * 3 * 5 * 5].reshape(1, 3, 5, 5))
    unary("hard_sigmoid.alpha_beta", "HardSigmoid", 13, everywhere, alpha=0.15, beta=0.4)
    unary("leaky_relu.alpha", "LeakyRelu", 9, everywhere, alpha=0.3)
    unary("leaky_relu.above_one", "LeakyRelu", 9, everywhere, alpha=1.25)
    unary("exp.small", "Exp", 13, np.linspace(-10, 10, 101, dtype=F))
    unary("tanh.small", "Tanh", 13, np.linspace(-2, 2, 101, dtype=F))
    unary("sigmoid.small", "Sigmoid", 13, np.linspace(-9, 9, 101, dtype=F))
    unary("abs.i64", "Abs", 13, ints(-3, 0, 7, -(2**40)))
    unary("neg.i64", "Neg", 13, ints(-3, 0, 7))
    unary("identity.i64", "Identity", 13, ints(4, -2, 0))
    nodes = [node("Sigmoid", "x", "s"), node("Mul", "x s", "y")]
    case("sigmoid.swish", nodes, {"x": everywhere[:75].reshape(1, 3, 5, 5)})
    nodes = [node("Identity", "w0", "w"), node("Conv", "x w", "c"), node("Identity", "c", "y")]
    case("identity.shared_weight", nodes, {"x": normal("identity.x", 1, 3, 4, 4)}, {"w0": normal("identity.w", 2, 3, 1, 1)})

    unary("clip.attributes_7", "Clip", 7, everywhere, min=0.0, max=6.0)
    unary("clip.attributes_9_max", "Clip", 9, everywhere, max=1.0)
    unary("clip.attributes_9_none", "Clip", 9, everywhere)
    bounds = {"low": F(-1), "high": F(2.5)}
    case("clip.inputs_11", [node("Clip", "x low high", "y")], {"x": everywhere}, bounds, opset=11)
    case("clip.inputs_13_max", [node("Clip", "x - high", "y")], {"x": everywhere}, {"high": F(2.5)}, opset=13)
    case("clip.inputs_13_min", [node("Clip", "x low", "y")], {"x": everywhere}, {"low": F(-1)}, opset=13)
    unary("clip.inputs_13_none", "Clip", 13, everywhere)
    nodes = [
        helper.make_node("Constant", [], ["low"], value=numpy_helper.from_array(F(0))),
        helper.make_node("Constant", [], ["high"], value=numpy_helper.from_array(F(6))),
        node("Clip", "x low high", "y"),
    ]
    case("clip.constant_nodes", nodes, {"x": everywhere[:75].reshape(1, 3, 5, 5)}, opset=12)

    x = normal("prelu", 1, 5, 3, 4)
    for name, slope, opset in (
        ("channel", (5, 1, 1), 7), ("scalar", (1,), 9), ("batch_channel", (1, 5, 1, 1), 9), ("full", (1, 5, 3, 4), 16), ("last", (4,), 13),
    ):
        case(f"prelu.{name}", [node("PRelu", "x s", "y")], {"x": x}, {"s": normal("prelu" + name, *slope)}, opset=opset)
    case("prelu.2d", [node("PRelu", "x s", "y")], {"x": normal("prelu2", 3, 6)}, {"s": normal("prelu2s", 6)}, opset=17)


def binaries():
    shapes = {
        "same": ((2, 3, 4, 5), (2, 3, 4, 5)), "scalar": ((2, 3, 4), ()), "scalar_left": ((), (2, 3, 4)), "channel": ((1, 5, 3, 4), (5, 1, 1)), "last": ((3, 4, 7), (7,)),
        "both": ((3, 1, 5), (1, 4, 1)), "gate": ((1, 6, 3, 4), (1, 6, 1, 1)), "gate_left": ((1, 6, 1, 1), (1, 6, 3, 4)), "spatial": ((1, 4, 3, 5), (1, 1, 3, 5)),
    }
    for op in "Add", "Sub", "Mul", "Div", "Pow":
        file = op.lower()
        for i, (name, (a, b)) in enumerate(shapes.items()):
            x, y = normal(file + name + "a", *a), normal(file + name + "b", *b)
            if op == "Div":
                y = y + np.sign(y) * F(0.3)
            if op == "Pow":
                x, y = np.abs(x) + F(0.1), y * F(2)
            nodes, opset = [node(op, "a b", "y")], (7, 13, 17)[i % 3]
            case(f"{file}.{name}", nodes, {"a": x, "b": y}, opset=opset)
            if name in ("scalar", "channel", "gate"):
                case(f"{file}.{name}_constant", nodes, {"a": x}, {"b": y}, opset=opset)
            if name == "scalar_left":
                case(f"{file}.{name}_constant", nodes, {"b": y}, {"a": x}, opset=opset)
    case("pow.square", [node("Pow", "x two", "y")], {"x": normal("pow.square", 4, 9)}, {"two": F(2)})
    case("pow.root", [node("Pow", "x half", "y")], {"x": np.abs(normal("pow.root", 4, 9))}, {"half": F(0.5)})
    case("pow.cube_negative", [node("Pow", "x three", "y")], {"x": normal("pow.cube", 4, 9)}, {"three": F(3)})
    case("add.self", [node("Add", "x x", "y")], {"x": normal("add.self", 2, 5)})
    a, b = ints(7, -7, 9, 0, 2**33), ints(2, 2, -4, 5, 3)
    for op in "Add", "Sub", "Mul", "Div":
        case(f"{op.lower()}.i64", [node(op, "a b", "y")], {"a": a, "b": b}, opset=13)
        case(f"{op.lower()}.i32", [node(op, "a b", "y")], {"a": a[:4].astype(np.int32), "b": b[:4].astype(np.int32)}, opset=17)
    case("mul.i64_scalar", [node("Mul", "a b", "y")], {"a": a}, {"b": I(3)}, opset=7)
    for op in "Min", "Max":
        file = op.lower()
        x = {k: normal(file + k, *s) for k, s in {"a": (2, 3, 4), "b": (3, 4), "c": (2, 1, 1)}.items()}
        case(f"{file}.three", [node(op, "a b c", "y")], x, opset=8)
        case(f"{file}.one", [node(op, "a", "y")], {"a": x["a"]}, opset=13)
        case(f"{file}.two", [node(op, "a b", "y")], {"a": x["a"], "b": x["b"]}, opset=17)
        case(f"{file}.same_7", [node(op, "a b", "y")], {"a": x["a"], "b": x["a"] * F(-1)}, opset=7)
        case(f"{file}.constant", [node(op, "a zero", "y")], {"a": x["a"]}, {"zero": F(0.25)}, opset=13)
        case(f"{file}.i64", [node(op, "a b", "y")], {"a": a, "b": b}, opset=13)


def poolings():
    for op, file in ("MaxPool", "max_pool"), ("AveragePool", "average_pool"):
        def pool(name, shape, opset=17, **attributes):
            unary(f"{file}.{name}", op, opset, normal(file + name, *shape), **attributes)

        pool("2x2", (1, 5, 8, 6), kernel_shape=[2, 2], strides=[2, 2], opset=7)
        pool("3x3_padded", (1, 9, 7, 8), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], opset=9)
        pool("3x3_stride_one", (1, 4, 5, 5), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        pool("asymmetric", (1, 3, 7, 7), kernel_shape=[3, 2], strides=[2, 1], pads=[0, 1, 2, 0], opset=11)
        pool("ceil", (1, 3, 8, 9), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, opset=10)
        pool("ceil_padded", (2, 3, 6, 7), kernel_shape=[3, 3], strides=[3, 2], pads=[1, 1, 1, 1], ceil_mode=1, opset=22)
        pool("1d", (1, 4, 13), kernel_shape=[3], strides=[2], pads=[1, 1])
        pool("wide", (1, 35, 4, 4), kernel_shape=[2, 2], strides=[2, 2])
        pool("all", (1, 5, 4, 6), kernel_shape=[4, 6])
        for auto in "SAME_UPPER", "SAME_LOWER", "VALID":
            pool(auto.lower(), (1, 3, 7, 8), kernel_shape=[3, 2], strides=[2, 3], auto_pad=auto, opset=11)
        if op == "MaxPool":
            pool("dilated", (1, 3, 8, 8), kernel_shape=[2, 3], dilations=[2, 2], opset=12)
            x = rng("max_pool.u8").integers(0, 256, (1, 3, 6, 6)).astype(np.uint8)
            unary("max_pool.u8", op, 12, x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
            unary("max_pool.all_negative", op, 12, -np.abs(normal("max_pool.negative", 1, 2, 4, 4)) - F(1), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        else:
            include = dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)
            pool("include_pad", (1, 3, 7, 8), opset=7, **include)
            pool("include_pad_ceil", (1, 3, 6, 8), ceil_mode=1, opset=19, **include)
            pool("dilated", (1, 3, 8, 8), kernel_shape=[2, 3], dilations=[2, 2], opset=19)
    for op, file in ("GlobalAveragePool", "global_average_pool"), ("GlobalMaxPool", "global_max_pool"):
        for name, shape, opset in ("4d", (1, 11, 5, 7), 7), ("batch", (3, 4, 3, 3), 17), ("1d", (1, 5, 9), 13), ("one", (1, 6, 1, 1), 22), ("wide", (1, 40, 7, 7), 9):
            unary(f"{file}.{name}", op, opset, normal(file + name, *shape))
    x = normal("reduce_mean", 2, 3, 4, 5)
    for name, axes in ("spatial", [2, 3]), ("channel", [1]), ("batch", [0]), ("last", [-1]), ("all", [0, 1, 2, 3]), ("split", [0, 2]):
        for keep in 0, 1:
            unary(f"reduce_mean.{name}_{'keep' if keep else 'drop'}", "ReduceMean", 13 if keep else 11, x, axes=axes, keepdims=keep)
    unary("reduce_mean.default_7", "ReduceMean", 7, x)
    unary("reduce_mean.default_18", "ReduceMean", 18, x)
    nodes = [node("ReduceMean", "x axes", "y", keepdims=0)]
    case("reduce_mean.input_18", nodes, {"x": x}, {"axes": ints(2, -1)}, opset=18)
    case("reduce_mean.empty_noop_18", [node("ReduceMean", "x axes", "y", noop_with_empty_axes=1)], {"x": x}, {"axes": ints()}, opset=18)
    x = np.round(normal("arg_max", 2, 5, 3, 7) * F(2)) + F(0)
    for axis in 0, 1, 2, -1:
        unary(f"arg_max.axis_{axis}".replace("-", "m"), "ArgMax", 7 if axis == 0 else 13, x, axis=axis, keepdims=axis % 2)
    unary("arg_max.default", "ArgMax", 11, x)
    unary("arg_max.last_index", "ArgMax", 12, x, axis=1, select_last_index=1)


def make():
    convolutions()
    matrices()
    normalizations()
    unaries()
    binaries()
    poolings()
    import operator_cases_shapes

    operator_cases_shapes.make()
