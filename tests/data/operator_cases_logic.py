"""Comparisons, logic, reductions and the rarer functions of one number, in float and integers."""

import numpy as np

from make_operator_cases import case, node, rng

F, I = np.float32, np.int64
EDGES = np.array([0.0, -0.0, 0.5, -0.5, 1.5, -1.5, 2.5, 1e-6, 3.0, -3.0, 0.99, -0.99, 6.5, -6.5], F)


def normal(name, *shape):
    return rng(name).standard_normal(shape).astype(F)


def unary(name, op, opset, x, **attributes):
    case(name, [node(op, "x", "y", **attributes)], {"x": x}, opset=opset)


def unaries():
    x = np.concatenate([EDGES, 2 * normal("unaries", 50)])
    for name, op, opset in [
        ("acos", "Acos", 7), ("acosh", "Acosh", 9), ("asin", "Asin", 7), ("asinh", "Asinh", 9), ("atan", "Atan", 7),
        ("atanh", "Atanh", 9), ("ceil", "Ceil", 13), ("celu", "Celu", 12), ("cos", "Cos", 7), ("cosh", "Cosh", 9),
        ("elu", "Elu", 7), ("erf", "Erf", 13), ("gelu", "Gelu", 20), ("mish", "Mish", 18), ("reciprocal", "Reciprocal", 13),
        ("round", "Round", 11), ("selu", "Selu", 7), ("sign", "Sign", 13), ("sin", "Sin", 7), ("sinh", "Sinh", 9),
        ("softplus", "Softplus", 7), ("softsign", "Softsign", 7), ("tan", "Tan", 7), ("thresholded_relu", "ThresholdedRelu", 10),
    ]:
        unary(f"{name}.floats", op, opset, x)
    unary("celu.alpha", "Celu", 12, x, alpha=2.5)
    unary("elu.alpha", "Elu", 7, x, alpha=2.5)
    unary("gelu.tanh", "Gelu", 20, x, approximate="tanh")
    unary("selu.both", "Selu", 7, x, alpha=2.0, gamma=0.5)
    unary("sign.i64", "Sign", 13, np.array([-3, 0, 7], I))
    unary("thresholded_relu.alpha", "ThresholdedRelu", 10, x, alpha=0.5)


def two(name, op, opset, a, b):
    case(name, [node(op, "a b", "y")], {"a": a, "b": b}, opset=opset)


def comparisons():
    a = np.round(2 * normal("comparisons.a", 2, 3, 4)).astype(F)
    b = np.round(2 * normal("comparisons.b", 3, 1)).astype(F)
    for name, op, opset in [
        ("less", "Less", 9), ("less_or_equal", "LessOrEqual", 16), ("greater", "Greater", 9),
        ("greater_or_equal", "GreaterOrEqual", 16), ("equal", "Equal", 13),
    ]:
        two(f"{name}.floats", op, opset, a, b)
        two(f"{name}.i64", op, opset, a.astype(I), b.astype(I))
    for name, op in ("and", "And"), ("or", "Or"), ("xor", "Xor"):
        two(f"{name}.broadcast", op, 7, a > 0, b > 0)
    unary("not.truth", "Not", 7, a > 0)
    inputs = {"c": a > 0, "a": normal("where.a", 4), "b": normal("where.b", 3, 1)}
    case("where.broadcast", [node("Where", "c a b", "y")], inputs, opset=16)


def reductions():
    x = np.abs(normal("reductions", 2, 3, 4)) + F(0.5)
    for name, op in [
        ("reduce_sum", "ReduceSum"), ("reduce_max", "ReduceMax"), ("reduce_min", "ReduceMin"), ("reduce_prod", "ReduceProd"),
        ("reduce_l1", "ReduceL1"), ("reduce_l2", "ReduceL2"), ("reduce_sum_square", "ReduceSumSquare"), ("reduce_log_sum", "ReduceLogSum"),
    ]:
        unary(f"{name}.all", op, 11, x)
        unary(f"{name}.axes", op, 11, x - F(1) if op != "ReduceLogSum" else x, axes=[-1, 0], keepdims=0)
        axes = {"axes": np.array([1], I)}
        case(f"{name}.axes_18", [node(op, "x axes", "y")], {"x": x}, axes, opset=18)
    unary("reduce_sum.i64", "ReduceSum", 11, np.arange(12, dtype=I).reshape(3, 4) - 5, axes=[1])


def others():
    a, b = normal("others.a", 2, 3, 4), normal("others.b", 3, 1)
    case("sum.three", [node("Sum", "a b c", "y")], {"a": a, "b": b, "c": normal("others.c", 4)}, opset=13)
    two("mod.floored", "Mod", 13, np.arange(-6, 6, dtype=I), np.array([4, -4] * 6, I))
    case("mod.fmod", [node("Mod", "a b", "y", fmod=1)], {"a": a, "b": b}, opset=13)
    for k in -1, 0, 2:
        for upper in 0, 1:
            name = f"trilu.{k}_{upper}".replace("-", "m")
            case(name, [node("Trilu", "x k", "y", upper=upper)], {"x": a}, {"k": np.array(k, I)})


def normalizations():
    x = normal("layer_normalization", 2, 3, 4)
    scale, bias = normal("layer_normalization.scale", 4), normal("layer_normalization.bias", 4)
    nodes = [node("LayerNormalization", "x scale bias", "y")]
    case("layer_normalization.last", nodes, {"x": x}, {"scale": scale, "bias": bias})
    nodes = [node("LayerNormalization", "x scale", "y mean inverse", axis=1, epsilon=0.1)]
    wide = {"scale": normal("layer_normalization.wide", 3, 4)}
    case("layer_normalization.two_axes", nodes, {"x": x}, wide, outputs=("y", "mean", "inverse"))


def make():
    unaries()
    comparisons()
    reductions()
    others()
    normalizations()
