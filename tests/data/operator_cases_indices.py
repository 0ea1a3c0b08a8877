"""Operators that work with indices, bits and sums, in float, integers and 8 bits."""

import numpy as np

from make_operator_cases import case, node, rng
from operator_cases_8bit import qdq

F, I = np.float32, np.int64


def normal(name, *shape):
    return rng(name).standard_normal(shape).astype(F)


def below(name, n, *shape):
    return rng(name).integers(-n, n, shape, I)


def gathers():
    x = normal("gathers", 3, 4, 5)
    for axis in 0, 1, -1:
        indices = below(f"gather{axis}", x.shape[axis], 2, 3, 4)
        case(f"gather_elements.axis{axis}", [node("GatherElements", "x i", "y", axis=axis)], {"x": x, "i": indices}, opset=13)
    for batch, shape in (0, (4, 2)), (0, (2, 2, 3)), (1, (3, 2, 1)):
        indices = np.minimum(below(f"nd{shape}", 3, *shape), 2)
        case(f"gather_nd.batch{batch}_{shape[-1]}", [node("GatherND", "x i", "y", batch_dims=batch)], {"x": x, "i": indices}, opset=13)
    indices = {"i": np.array([[2, 0], [1, -1]], I)}
    picture = normal("gathers.q", 2, 3)
    qdq("gather_elements.u8", "GatherElements", [picture], constants=indices, same=True, opset=13, axis=1)
    places = {"i": np.array([[0, 2], [1, -1]], I)}
    qdq("gather_nd.u8", "GatherND", [picture], constants=places, same=True, opset=13)
    lengths = {"n": np.array([3, 1], I)}
    case("reverse_sequence.floats", [node("ReverseSequence", "x n", "y", batch_axis=0, time_axis=1)], {"x": picture, **lengths}, opset=10)
    qdq("reverse_sequence.u8", "ReverseSequence", [picture], constants=lengths, same=True, opset=10, batch_axis=0, time_axis=1)


def scatters():
    x, updates = normal("scatters", 3, 4), normal("scatters.u", 2, 4)
    indices = np.array([[0, 1, 2, 0], [2, 0, 1, 1]], I)
    for reduction in "none", "add", "mul", "min", "max":
        nodes = [node("ScatterElements", "x i u", "y", reduction=reduction)]
        case(f"scatter_elements.{reduction}", nodes, {"x": x, "i": indices, "u": updates}, opset=18)
        nodes = [node("ScatterND", "x i u", "y", reduction=reduction)]
        case(f"scatter_nd.{reduction}", nodes, {"x": x, "i": np.array([[0], [-1]], I), "u": updates}, opset=18)
    case("scatter_elements.old", [node("Scatter", "x i u", "y")], {"x": x, "i": indices, "u": updates}, opset=9)


def choices():
    x = normal("choices", 2, 5, 3)
    for name, op in ("arg_min", "ArgMin"), ("hardmax", "Hardmax"):
        case(f"{name}.axis", [node(op, "x", "y", axis=1)], {"x": x}, opset=13)
    case("hardmax.old", [node("Hardmax", "x", "y", axis=1)], {"x": x}, opset=11)
    for name, attributes in ("largest", {}), ("smallest", {"largest": 0, "axis": 1}):
        nodes = [node("TopK", "x k", "y i", **attributes)]
        case(f"top_k.{name}", nodes, {"x": x}, {"k": np.array([2], I)}, ("y", "i"), opset=11)
    case("top_k.i64", [node("TopK", "x k", "y i")], {"x": below("topk", 9, 3, 7)}, {"k": np.array([3], I)}, ("y", "i"), opset=11)
    depth = {"d": np.array(4, I), "v": np.array([0.5, 2], F)}
    for axis in 0, -1:
        case(f"one_hot.axis{axis}", [node("OneHot", "i d v", "y", axis=axis)], {"i": below("onehot", 4, 2, 3)}, depth, opset=11)
    case("eye_like.k", [node("EyeLike", "x", "y", k=-1, dtype=7)], {"x": x[0]}, opset=9)
    qdq("arg_min.u8", "ArgMin", [x[0]], middle=lambda names, results: [
        node("ArgMin", names[0], "i", axis=1), node("Cast", "i", "c", to=1), node("Identity", "c", results[0])], islands=-1, opset=13)


def repeats():
    x = normal("repeats", 2, 3)
    constants = {"n": np.array([2, 2], I)}
    case("tile.floats", [node("Tile", "x n", "y")], {"x": x}, constants, opset=13)
    qdq("tile.u8", "Tile", [x], constants=constants, same=True, opset=13)
    for name, shape in ("crop", [1, 2]), ("pad", [3, 8]), ("both", [1, 5]):
        nodes = [node("CenterCropPad", "x s", "y")]
        case(f"center_crop_pad.{name}", nodes, {"x": x}, {"s": np.array(shape, I)}, opset=18)
    qdq("center_crop_pad.u8", "CenterCropPad", [x], constants={"s": np.array([1, 5], I)}, same=True, opset=18)


def bits():
    for dtype in np.uint8, np.int32, I:
        a = rng("bits.a").integers(0, 100, (3, 4)).astype(dtype)
        b = rng("bits.b").integers(0, 100, (4,)).astype(dtype)
        for name, op in ("bitwise_and", "BitwiseAnd"), ("bitwise_or", "BitwiseOr"), ("bitwise_xor", "BitwiseXor"):
            case(f"{name}.{np.dtype(dtype)}", [node(op, "a b", "y")], {"a": a, "b": b}, opset=18)
        case(f"bitwise_not.{np.dtype(dtype)}", [node("BitwiseNot", "a", "y")], {"a": a}, opset=18)
    a = np.arange(0, 240, 20, dtype=np.uint8)
    for direction in "LEFT", "RIGHT":
        inputs = {"a": a, "b": np.array([3], np.uint8)}
        case(f"bit_shift.{direction}", [node("BitShift", "a b", "y", direction=direction)], inputs, opset=11)


def sums():
    x = normal("sums", 2, 3, 4)
    for exclusive in 0, 1:
        for reverse in 0, 1:
            nodes = [node("CumSum", "x a", "y", exclusive=exclusive, reverse=reverse)]
            case(f"cum_sum.{exclusive}{reverse}", nodes, {"x": x}, {"a": np.array(1, I)}, opset=14)
    case("mean.broadcast", [node("Mean", "a b", "y")], {"a": x, "b": normal("mean", 3, 1)}, opset=13)
    qdq("mean.u8", "Mean", [x, normal("mean.q", 2, 3, 4)], opset=13)
    case("reduce_log_sum_exp.axes", [node("ReduceLogSumExp", "x", "y", axes=[0, -1])], {"x": 20 * x}, opset=13)
    qdq("reduce_log_sum_exp.u8", "ReduceLogSumExp", [x], opset=13, axes=[1])
    edges = np.array([0, 1, -1, np.inf, -np.inf, np.nan], F)
    case("is_nan.edges", [node("IsNaN", "x", "y")], {"x": edges}, opset=13)
    case("is_inf.edges", [node("IsInf", "x", "y")], {"x": edges}, opset=10)
    case("is_inf.negative", [node("IsInf", "x", "y", detect_positive=0)], {"x": edges}, opset=10)
    case("shrink.bias", [node("Shrink", "x", "y", lambd=0.7, bias=0.2)], {"x": x}, opset=9)
    qdq("shrink.u8", "Shrink", [x], opset=10, middle=lambda names, results: [node("Shrink", names[0], results[0], lambd=0.7, bias=0.2)])
    matrices = normal("det", 3, 4, 4)
    case("det.matrices", [node("Det", "x", "y")], {"x": matrices}, opset=11)


def make():
    gathers()
    scatters()
    choices()
    repeats()
    bits()
    sums()
