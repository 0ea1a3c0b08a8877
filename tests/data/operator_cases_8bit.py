"""The 8-bit cases: each operator between DequantizeLinear and QuantizeLinear, floats outside.

The scales come from the float operator's own range. Most ranges are a little too small, so that
some codes saturate. Where a case says `same`, the output keeps the scale of the first input.
"""

import numpy as np

from make_operator_cases import case, node, rng, run

F, I = np.float32, np.int64
LIMITS = {"u8": (0, 255, np.uint8), "i8": (-128, 127, np.int8)}


def normal(name, *shape):
    return rng(name).standard_normal(shape).astype(F)


def params(values, kind="u8", share=0.95):
    """Scale and zero point that hold `share` of the range of `values`, and zero exactly."""
    low, high, dtype = LIMITS[kind]
    least, most = min(float(values.min()) * share, 0.0), max(float(values.max()) * share, 0.0)
    scale = F((most - least) / 255 or 1.0)
    return scale, np.array(np.clip(np.round(low - least / scale), low, high), dtype)


def weight(values, kind, axis):
    """Codes, scale and zero point: `i8` with a scale per slice of `axis`, or `u8`, `i8 tensor` with one."""
    if kind == "i8":
        others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
        scale = (np.abs(values).max(axis=others, keepdims=True) / F(127)).astype(F)
        return np.round(values / scale).astype(np.int8), scale.reshape(-1), np.zeros(scale.size, np.int8)
    if kind == "i8 tensor":
        scale = F(np.abs(values).max() / 127)
        return np.round(values / scale).astype(np.int8), scale, np.array(0, np.int8)
    scale, zero = params(values, "u8", 1.0)
    return np.clip(np.round(values / scale) + zero, 0, 255).astype(np.uint8), scale, zero


def qdq(
    name, op, inputs, weights=(), bias=None, kind="u8", weight_kind="i8", channel_axis=0, same=False, share=0.95, out=None,
    opset=17, outputs=("y",), islands=0, middle=None, constants=None, **attributes,
):
    """`inputs` are the activations, `weights` follow them as the operator's inputs, then `bias`.

    `out` fixes scale and zero point of the outputs. `constants` are plain inputs after all others.
    `middle(names, results)` gives the nodes between in place of one node `op`.
    """
    given, consts, nodes, names = {}, {}, [], []
    scales = {}

    def pair(value, source, result, scale, zero, **where):
        consts[f"{value}_scale"], consts[f"{value}_zero"] = scale, zero
        suffix = f"{value}_scale {value}_zero"
        nodes.append(node("QuantizeLinear", f"{source} {suffix}", f"{value}_q", **where))
        nodes.append(node("DequantizeLinear", f"{value}_q {suffix}", result, **where))

    for i, values in enumerate(inputs):
        value = f"x{i}"
        scales[value] = params(values, kind, share)
        given[value] = values
        pair(value, value, f"{value}_d", *scales[value])
        names.append(f"{value}_d")
    for i, values in enumerate(weights):
        codes, scale, zero = weight(values, weight_kind, channel_axis)
        consts |= {f"w{i}_q": codes, f"w{i}_scale": scale, f"w{i}_zero": zero}
        where = {"axis": channel_axis} if weight_kind == "i8" else {}
        nodes.append(node("DequantizeLinear", f"w{i}_q w{i}_scale w{i}_zero", f"w{i}_d", **where))
        names.append(f"w{i}_d")
        weight_scale = scale
    if bias is not None:
        scale = (scales["x0"][0] * weight_scale).astype(F)
        consts |= {"b_q": np.round(bias / scale).astype(np.int32), "b_scale": scale}
        where = {"axis": 0} if np.ndim(scale) else {}
        nodes.append(node("DequantizeLinear", "b_q b_scale", "b_d", **where))
        names.append("b_d")
    consts |= constants or {}
    names += ["-" if v is None else k for k, v in (constants or {}).items()]
    consts = {k: np.asarray(v) for k, v in consts.items() if v is not None}
    results = [f"{y}_f" for y in outputs]
    if middle:
        nodes += middle(names, results)
    else:
        nodes.append(node(op, " ".join(names), " ".join(results), **attributes))
    _, reals = run(nodes, given, consts, results, opset)
    result_scales = {}
    for y in outputs:
        scale, zero = scales["x0"] if same else out or params(reals[f"{y}_f"], kind)
        pair(y, f"{y}_f", y, scale, zero)
        result_scales[y] = scale
    consts = {k: np.asarray(v) for k, v in consts.items()}
    case(f"q_{name}", nodes, given, consts, outputs, opset, result_scales, islands)


def weighted():
    def conv(name, x, w, bias=True, op="Conv", **rest):
        file = "conv_transpose" if op == "ConvTranspose" else "conv"
        out_c = w[1] * rest.get("group", 1) if op == "ConvTranspose" else w[0]
        b = normal(name + "b", out_c) if bias else None
        x = normal(name, *x) + F(rest.pop("shift", 0))
        qdq(f"{file}.{name}", op, [np.abs(x) if rest.pop("positive", False) else x], [normal(name + "w", *w)], b, **rest)

    kinds = {"pc": "i8", "pt": "i8 tensor", "u8": "u8"}
    for label, kind in kinds.items():
        conv(f"1x1_{label}", (1, 16, 5, 5), (24, 16, 1, 1), weight_kind=kind)
        conv(f"3x3_{label}", (1, 8, 7, 7), (16, 8, 3, 3), pads=[1, 1, 1, 1], weight_kind=kind)
        conv(f"depthwise_3x3_{label}", (1, 16, 7, 8), (16, 1, 3, 3), group=16, pads=[1, 1, 1, 1], weight_kind=kind)
        conv(f"depthwise_5x5_{label}", (1, 9, 8, 8), (9, 1, 5, 5), group=9, pads=[2, 2, 2, 2], strides=[2, 2], weight_kind=kind)
        conv(f"rgb_{label}", (1, 3, 11, 12), (10, 3, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2], weight_kind=kind)
        conv(f"grouped_{label}", (1, 12, 6, 6), (9, 4, 3, 3), group=3, pads=[1, 1, 1, 1], weight_kind=kind)
    conv("1x1_tails", (1, 7, 5, 3), (11, 7, 1, 1), bias=False)
    conv("1x1_stride", (1, 6, 7, 7), (9, 6, 1, 1), strides=[2, 2])
    conv("wide", (1, 67, 3, 3), (35, 67, 1, 1))
    conv("asymmetric_pads", (1, 4, 7, 8), (5, 4, 3, 3), pads=[0, 2, 1, 3], strides=[2, 1])
    conv("dilated", (1, 4, 9, 10), (6, 4, 3, 3), dilations=[2, 3], pads=[2, 3, 2, 3])
    conv("depthwise_dilated", (1, 6, 9, 9), (6, 1, 3, 3), group=6, dilations=[2, 2], pads=[2, 2, 2, 2])
    conv("depthwise_multiplier", (1, 4, 6, 6), (8, 1, 3, 3), group=4, pads=[1, 1, 1, 1])
    conv("same_upper", (1, 3, 8, 7), (5, 3, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2])
    conv("same_lower", (1, 3, 8, 7), (5, 3, 3, 3), auto_pad="SAME_LOWER", strides=[2, 2])
    conv("1d", (1, 5, 17), (7, 5, 3), pads=[1, 1], strides=[2])
    conv("batch", (3, 4, 5, 5), (6, 4, 3, 3), pads=[1, 1, 1, 1])
    conv("positive", (1, 8, 6, 6), (8, 8, 3, 3), pads=[1, 1, 1, 1], positive=True)
    conv("negative", (1, 8, 6, 6), (8, 8, 3, 3), pads=[1, 1, 1, 1], shift=-9)
    conv("saturating_input", (1, 8, 6, 6), (8, 8, 3, 3), share=0.3)
    conv("i8_activations", (1, 8, 6, 6), (12, 8, 3, 3), pads=[1, 1, 1, 1], kind="i8")
    conv("i8_depthwise", (1, 8, 6, 6), (8, 1, 3, 3), pads=[1, 1, 1, 1], group=8, kind="i8")
    conv("opset_21", (1, 8, 6, 6), (12, 8, 3, 3), pads=[1, 1, 1, 1], opset=21)
    conv("opset_13", (1, 8, 6, 6), (12, 8, 3, 3), opset=13)
    conv("opset_11", (1, 8, 6, 6), (12, 8, 3, 3), opset=11, weight_kind="u8")
    conv("coarse_output", (1, 8, 6, 6), (12, 8, 3, 3), out=(F(4.0), np.uint8(128)))
    # The largest products: a kernel that adds pairs in 16 bits would saturate.
    full = np.full((1, 32, 3, 3), 8.0, F)
    full[0, 0, 0, 0] = -0.01
    for label, w in ("largest", np.ones((8, 32, 1, 1), F)), ("smallest", -np.ones((8, 32, 1, 1), F)):
        qdq(f"conv.{label}", "Conv", [full], [w], np.zeros(8, F), share=1.0)

    def then(activation, **attributes):
        def nodes(names, results):
            return [node("Conv", " ".join(names), "c", pads=[1, 1, 1, 1]), node(activation, "c", results[0], **attributes)]

        return nodes

    x, w, b = normal("qa", 1, 6, 5, 6), normal("qaw", 9, 6, 3, 3), normal("qab", 9)
    qdq("conv.then_relu", None, [x], [w], b, middle=then("Relu"))
    qdq("conv.then_clip", None, [x], [w], b, middle=then("Clip", min=0.0, max=6.0), opset=10, weight_kind="i8 tensor")
    zero_six = {"low": F(0), "high": F(6)}
    clip = lambda n, r: [node("Conv", " ".join(n[:3]), "c"), node("Clip", "c low high", r[0])]
    qdq("conv.then_clip_inputs", None, [x], [w], b, middle=clip, constants=zero_six)

    def transposed(name, *args, **rest):
        conv(name, *args, op="ConvTranspose", channel_axis=1, **rest)

    transposed("2x2_pc", (1, 6, 4, 5), (6, 5, 2, 2), strides=[2, 2])
    transposed("4x4_pt", (1, 4, 5, 5), (4, 3, 4, 4), strides=[2, 2], pads=[1, 1, 1, 1], weight_kind="i8 tensor")
    transposed("3x3_u8", (1, 4, 5, 5), (4, 6, 3, 3), pads=[1, 1, 1, 1], weight_kind="u8", bias=False)
    transposed("grouped_pt", (1, 6, 4, 4), (6, 2, 3, 3), group=3, weight_kind="i8 tensor")

    for label, kind in kinds.items():
        x, w, b = normal("qg", 3, 37), normal("qgw", 19, 37), normal("qgb", 19)
        qdq(f"gemm.trans_b_{label}", "Gemm", [x], [w], b, weight_kind=kind, transB=1)
        qdq(f"gemm.plain_{label}", "Gemm", [x], [w.T.copy()], b, weight_kind=kind, channel_axis=1)
        qdq(f"matmul.2d_{label}", "MatMul", [x], [w.T.copy()], weight_kind=kind, channel_axis=1)
        qdq(f"matmul.3d_{label}", "MatMul", [normal("qm", 2, 3, 20)], [normal("qmw", 20, 9)], weight_kind=kind, channel_axis=1)
    qdq("gemm.one_row", "Gemm", [x[:1]], [w], b, transB=1)
    qdq("gemm.without_bias", "Gemm", [x], [w], transB=1)
    qdq("matmul.activations", "MatMul", [normal("qma", 2, 4, 9), normal("qmb", 2, 9, 5)], islands=-1)


def unaries():
    x = np.concatenate([np.linspace(-8, 8, 241, dtype=F), normal("qu", 59) * F(3)]).reshape(1, 3, 10, 10)
    positive = np.abs(x) + F(0.05)
    for op, file, attributes in (
        ("Sigmoid", "sigmoid", {}), ("Tanh", "tanh", {}), ("HardSigmoid", "hard_sigmoid", {}), ("HardSwish", "hard_swish", {}), ("LeakyRelu", "leaky_relu", {"alpha": 0.1}),
        ("Abs", "abs", {}), ("Neg", "neg", {}), ("Exp", "exp", {}), ("Floor", "floor", {}), ("Relu", "relu", {}), ("Sqrt", "sqrt", {}), ("Log", "log", {}),
    ):
        data = positive if op in ("Sqrt", "Log") else x
        if op == "Log":
            # A code of zero would give minus infinity.
            qdq(f"{file}.positive", None, [data], middle=lambda n, r: [node("Clip", f"{n[0]} low", "c"), node("Log", "c", r[0])], constants={"low": F(0.05)}, islands=-1)
            continue
        qdq(f"{file}.u8", op, [data], **attributes)
        qdq(f"{file}.i8", op, [data], kind="i8", **attributes)
        qdq(f"{file}.vector", op, [data.reshape(-1)[::7].copy()], opset=13 if op != "HardSwish" else 15, share=0.6, **attributes)
    qdq("relu.same", "Relu", [x], same=True)
    qdq("identity.same", "Identity", [x], same=True)
    bounds = {"low": F(0), "high": F(6)}
    qdq("clip.u8", "Clip", [x], constants=bounds)
    qdq("clip.same", "Clip", [x], constants=bounds, same=True)
    qdq("clip.below_zero", "Clip", [x], constants={"low": F(-3), "high": F(-1)}, same=True)
    qdq("sigmoid.fixed", "Sigmoid", [x], out=(F(1 / 256), np.uint8(0)))
    qdq("tanh.fixed", "Tanh", [x], out=(F(1 / 128), np.uint8(128)))
    for label, kind in ("u8", "u8"), ("i8", "i8 tensor"):
        slope = normal("qprelu", 3, 1, 1) * F(0.3)
        qdq(f"prelu.{label}", "PRelu", [x], [slope], weight_kind=kind)
    channels = {k: normal("qbn" + k, 3) for k in ("scale", "b", "mean")} | {"var": np.abs(normal("qbnv", 3)) + F(0.1)}
    qdq("batch_normalization.u8", "BatchNormalization", [x], constants=channels, islands=-1)
    for op, file in ("Softmax", "softmax"), ("LogSoftmax", "log_softmax"):
        y = normal("q" + file, 3, 10) * F(3)
        qdq(f"{file}.2d", op, [y], axis=-1)
        qdq(f"{file}.old", op, [y], axis=1, opset=11)
        qdq(f"{file}.channel", op, [x], axis=1)
    qdq("softmax.fixed", "Softmax", [y], axis=-1, out=(F(1 / 256), np.uint8(0)))
    qdq("lrn.u8", "LRN", [x], size=3, alpha=0.01, islands=-1)


def binaries():
    shape, other = (1, 5, 4, 6), normal("qb2", 1, 5, 4, 6) * F(3) + F(1)
    x = normal("qb1", *shape)
    gate, channel = normal("qb3", 1, 5, 1, 1), normal("qb4", 5, 1, 1)
    for op in "Add", "Sub", "Mul", "Div", "Min", "Max":
        file, b = op.lower(), other
        islands = 0 if op in ("Add", "Mul") else -1
        positive = lambda v: np.abs(v) + F(1) if op == "Div" else v
        qdq(f"{file}.same_shape", op, [x, positive(b)], islands=islands)
        qdq(f"{file}.i8", op, [x, positive(b)], kind="i8", islands=islands)
        qdq(f"{file}.gate", op, [x, positive(gate)], islands=islands)
        qdq(f"{file}.gate_left", op, [gate, positive(x)], islands=islands)
        qdq(f"{file}.saturating", op, [x, positive(b)], share=0.5, islands=islands)
        qdq(f"{file}.constant_channel", op, [x], [positive(channel)], weight_kind="u8", islands=islands)
        qdq(f"{file}.constant_scalar", op, [x], [np.array(1.7, F)], weight_kind="u8", islands=islands)
    qdq("add.self", None, [x], middle=lambda n, r: [node("Add", f"{n[0]} {n[0]}", r[0])])
    qdq("add.positive", "Add", [np.abs(x), np.abs(other)])
    qdq("add.coarse", "Add", [x, other], out=(F(0.5), np.uint8(100)))
    add_relu = lambda n, r: [node("Add", " ".join(n), "a"), node("Relu", "a", r[0])]
    qdq("add.then_relu", None, [x, other], middle=add_relu)
    swish = lambda n, r: [node("Sigmoid", n[0], "s"), node("Mul", f"{n[0]} s", r[0])]
    qdq("mul.swish_inside", None, [x * F(3)], middle=swish, islands=-1)
    qdq("pow.square", "Pow", [x], constants={"two": F(2)}, islands=-1)


def poolings():
    x = normal("qp", 1, 9, 8, 7) + F(0.4)
    square = dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for kind in "u8", "i8":
        qdq(f"max_pool.{kind}", "MaxPool", [x], same=True, kind=kind, **square)
        qdq(f"average_pool.{kind}", "AveragePool", [x], same=True, kind=kind, **square)
        qdq(f"global_average_pool.{kind}", "GlobalAveragePool", [x], kind=kind)
        qdq(f"global_max_pool.{kind}", "GlobalMaxPool", [x], same=True, kind=kind)
        qdq(f"reduce_mean.{kind}", "ReduceMean", [x], kind=kind, opset=13, axes=[2, 3], islands=-1)
    qdq("max_pool.ceil", "MaxPool", [x], same=True, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    qdq("max_pool.negative", "MaxPool", [-np.abs(x)], same=True, **square)
    qdq("max_pool.other_scale", "MaxPool", [x], islands=-1, **square)
    qdq("average_pool.other_scale", "AveragePool", [x], islands=-1, **square)
    qdq("average_pool.include_pad", "AveragePool", [x], same=True, count_include_pad=1, **square)
    qdq("average_pool.ceil", "AveragePool", [x], same=True, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    qdq("global_average_pool.same", "GlobalAveragePool", [x], same=True)
    qdq("global_average_pool.odd", "GlobalAveragePool", [normal("qgo", 2, 5, 3, 3)])


def movers():
    x = normal("qm", 2, 6, 4, 5)
    ints = lambda *v: np.array(v, I)
    for name, op, constants, attributes in (
        ("reshape.u8", "Reshape", {"shape": ints(2, -1)}, {}), ("flatten.u8", "Flatten", {}, {"axis": 1}), ("transpose.u8", "Transpose", {}, {"perm": [0, 2, 3, 1]}),
        ("squeeze.u8", "Squeeze", {"axes": ints(0)}, {}), ("unsqueeze.u8", "Unsqueeze", {"axes": ints(1)}, {}), ("gather.u8", "Gather", {"i": ints(2, 0)}, {"axis": 1}),
        ("slice.u8", "Slice", {"starts": ints(1), "ends": ints(5), "axes": ints(1), "steps": ints(2)}, {}), ("expand.u8", "Expand", {"shape": ints(3, 1, 1, 1, 1)}, {}),
        ("pad.constant", "Pad", {"pads": ints(0, 0, 1, 2, 0, 0, 0, 1)}, {}), ("pad.edge", "Pad", {"pads": ints(0, 0, 1, 2, 0, 0, 0, 1)}, {"mode": "edge"}),
        ("pad.value", "Pad", {"pads": ints(0, 1, 1, 0, 0, 0, 0, 0), "value": F(0.75)}, {}), ("pad.reflect", "Pad", {"pads": ints(0, 0, 1, 2, 0, 0, 0, 1)}, {"mode": "reflect"}),
        ("resize.nearest", "Resize", {"roi": None, "scales": np.array([1, 1, 2, 2], F)}, {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
        ("resize.linear", "Resize", {"roi": None, "scales": np.array([1, 1, 2, 2], F)}, {"mode": "linear"}),
        ("resize.align_corners", "Resize", {"roi": None, "scales": np.array([1, 1, 1.5, 2.4], F)}, {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
        ("dropout.u8", "Dropout", {}, {}), ("identity.u8", "Identity", {}, {}),
    ):
        data = x[:1].copy() if name.startswith("squeeze") else x
        qdq(name, op, [data], same=True, constants=constants, **attributes)
    qdq("depth_to_space.dcr", "DepthToSpace", [normal("qd", 1, 8, 3, 3)], same=True, blocksize=2)
    qdq("depth_to_space.crd", "DepthToSpace", [normal("qd", 1, 8, 3, 3)], same=True, blocksize=2, mode="CRD")
    qdq("space_to_depth.u8", "SpaceToDepth", [normal("qs", 2, 3, 4, 6)], same=True, blocksize=2)
    qdq("transpose.other_scale", "Transpose", [x], islands=-1, perm=[0, 2, 3, 1])
    qdq("split.u8", "Split", [x], same=True, outputs=("a", "b", "c"), opset=13, axis=1)
    y, z = normal("qc1", 2, 3, 4, 5) * F(2), normal("qc2", 2, 2, 4, 5) * F(0.5)
    qdq("concat.channel", "Concat", [x, y, z], axis=1)
    qdq("concat.i8", "Concat", [x, y], kind="i8", axis=1)
    qdq("concat.first_scale", "Concat", [x, y], same=True, axis=1)
    qdq("concat.last", "Concat", [x, x[..., :2].copy() * F(3)], axis=3)
    shuffle = lambda n, r: [
        node("Reshape", f"{n[0]} wide", "a"), node("Transpose", "a", "b", perm=[0, 2, 1, 3, 4]), node("Reshape", "b back", r[0]),
    ]
    qdq("transpose.channel_shuffle", None, [x], middle=shuffle, same=True, constants={"wide": ints(2, 2, 3, 4, 5), "back": ints(2, 6, 4, 5)})


def conversions():
    """QuantizeLinear and DequantizeLinear alone: plain cases with exact results."""
    scale = F(0.25)
    # Halves between two codes, values beyond the range, infinities.
    x = np.concatenate([np.arange(-45, 45, dtype=F) * F(0.125), np.array([1e9, -1e9, np.inf, -np.inf, 0.0, -0.0], F)])
    wild = np.concatenate([normal("quantize", 500) * F(9), x])
    for kind, zero in ("u8", 0), ("u8", 128), ("u8", 255), ("i8", 0), ("i8", -128), ("i8", 7):
        point = np.array(zero, LIMITS[kind][2])
        name = f"{kind}_{zero}".replace("-", "m")
        for label, values, s in ("ties", x, scale), ("wild", wild, F(0.0721)):
            opset = (10, 13, 19, 21, 23)[len(name + label) % 5]
            case(f"quantize_linear.{name}_{label}", [node("QuantizeLinear", "x s z", "y")], {"x": values}, {"s": s, "z": point}, opset=opset)
        codes = np.arange(*((0, 256) if kind == "u8" else (-128, 128))).astype(LIMITS[kind][2])
        case(f"dequantize_linear.{name}", [node("DequantizeLinear", "x s z", "y")], {"x": codes}, {"s": F(0.0721), "z": point}, opset=10 if zero else 13)
    case("quantize_linear.without_zero", [node("QuantizeLinear", "x s", "y")], {"x": x}, {"s": scale}, opset=13)
    case("dequantize_linear.without_zero", [node("DequantizeLinear", "x s", "y")], {"x": np.arange(9).astype(np.uint8)}, {"s": scale}, opset=13)
    y = normal("quantize.axis", 2, 4, 3)
    for axis in 1, -2, 0, 2:
        n = y.shape[axis]
        s = np.abs(normal(f"quantize.{axis}", n)) * F(0.01) + F(0.01)
        z = (rng(f"quantize.z{axis}").integers(-20, 20, n)).astype(np.int8)
        name = f"axis_{axis}".replace("-", "m")
        opset = 21 if axis == 2 else 13
        pair = [node("QuantizeLinear", "x s z", "q", axis=axis), node("DequantizeLinear", "q s z", "y", axis=axis)]
        case(f"quantize_linear.{name}", pair, {"x": y}, {"s": s, "z": z}, opset=opset)
        codes = rng(f"codes{axis}").integers(-128, 128, y.shape).astype(np.int8)
        add = [node("DequantizeLinear", "codes s z", "c", axis=axis), node("Add", "x c", "y")]
        case(f"dequantize_linear.{name}", add, {"x": y}, {"codes": codes, "s": s, "z": z}, opset=opset)
    # Codes with several scales as the model's input or output.
    case("quantize_linear.axis_at_the_edge", [node("QuantizeLinear", "x s z", "y", axis=2)], {"x": y}, {"s": s, "z": z}, opset=13)
    case("dequantize_linear.axis_at_the_edge", [node("DequantizeLinear", "x s z", "y", axis=2)], {"x": codes}, {"s": s, "z": z}, opset=13)
    codes = np.array([-(2**20), -1, 0, 77], np.int32)
    case("dequantize_linear.i32", [node("DequantizeLinear", "x s", "y")], {"x": codes}, {"s": F(0.003)}, opset=13)
    add = [node("DequantizeLinear", "codes s", "c", axis=0), node("Add", "x c", "y")]
    constants = {"codes": codes, "s": np.array([0.1, 0.2, 0.003, 1], F)}
    case("dequantize_linear.i32_axis", add, {"x": normal("i32_axis", 4)}, constants, opset=13)


def make():
    weighted()
    unaries()
    binaries()
    poolings()
    movers()
    conversions()
