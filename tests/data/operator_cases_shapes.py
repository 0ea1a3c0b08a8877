"""The cases of operators that move elements, and of those that compute shapes."""

import itertools

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from make_operator_cases import case, node, rng

F, I = np.float32, np.int64


def normal(name, *shape):
    return rng(name).standard_normal(shape).astype(F)


def ints(*values):
    return np.array(values, I)


def unary(name, op, opset, x, **attributes):
    case(name, [node(op, "x", "y", **attributes)], {"x": x}, opset=opset)


def with_constants(name, op, opset, x, constants, outputs="y", **attributes):
    """`constants` are inputs 1, 2, ... in order; `None` leaves one out."""
    names = " ".join("-" if v is None else k for k, v in constants.items())
    given = {k: v for k, v in constants.items() if v is not None}
    nodes = [node(op, f"x {names}".strip(), outputs, **attributes)]
    case(name, nodes, {"x": x}, given, outputs=outputs.split(), opset=opset)


def joins():
    for axis in 0, 1, 2, 3, -1, -3:
        name = f"concat.axis_{axis}".replace("-", "m")
        shapes = [[2, 3, 4, 5] for _ in range(3)]
        for i, shape in enumerate(shapes):
            shape[axis] += i
        inputs = {k: normal(name + k, *s) for k, s in zip("abc", shapes)}
        case(name, [node("Concat", "a b c", "y", axis=axis)], inputs, opset=11 if axis < 0 else 7)
    case("concat.one", [node("Concat", "a", "y", axis=0)], {"a": normal("concat.one", 3, 2)}, opset=13)
    case("concat.with_constant", [node("Concat", "a b", "y", axis=1)], {"a": normal("concat.a", 1, 3, 2, 2)}, {"b": normal("concat.b", 1, 2, 2, 2)}, opset=9)
    case("concat.i64", [node("Concat", "a b", "y", axis=0)], {"a": ints(1, -2), "b": ints(3)}, opset=13)
    case("concat.u8", [node("Concat", "a b", "y", axis=0)], {"a": np.array([1, 255], np.uint8), "b": np.array([0], np.uint8)}, opset=13)
    case("concat.twice", [node("Concat", "a a", "y", axis=1)], {"a": normal("concat.twice", 1, 5, 3, 3)})

    x = normal("split", 2, 6, 4, 5)
    for opset in 7, 11:
        unary_outputs = dict(outputs=["a", "b", "c"], opset=opset)
        case(f"split.attribute_{opset}", [node("Split", "x", "a b c", axis=1, split=[1, 3, 2])], {"x": x}, **unary_outputs)
        case(f"split.equal_{opset}", [node("Split", "x", "a b c", axis=1)], {"x": x}, **unary_outputs)
    with_constants("split.input_13", "Split", 13, x, {"sizes": ints(2, 4)}, "a b", axis=-3)
    with_constants("split.input_17", "Split", 17, x, {"sizes": ints(1, 1, 3)}, "a b c", axis=3)
    unary_outputs = dict(outputs=["a", "b"])
    case("split.equal_13", [node("Split", "x", "a b", axis=2)], {"x": x}, opset=13, **unary_outputs)
    case("split.num_outputs_18", [node("Split", "x", "a b", axis=2, num_outputs=2)], {"x": x}, opset=18, **unary_outputs)
    case("split.uneven_18", [node("Split", "x", "a b", axis=3, num_outputs=2)], {"x": x}, opset=18, **unary_outputs)
    case("split.batch", [node("Split", "x", "a b", axis=0)], {"x": x}, opset=13, **unary_outputs)
    nodes = [node("Split", "x", "a b", axis=1), node("Add", "a b", "y")]
    case("split.add", nodes, {"x": x}, opset=13)

    unary("slice.attributes_7", "Slice", 7, x, starts=[1, 0], ends=[5, 3], axes=[1, 2])
    unary("slice.attributes_9_negative", "Slice", 9, x, starts=[-3, 1], ends=[-1, 2**31 - 1], axes=[1, 3])
    unary("slice.attributes_9_default_axes", "Slice", 9, x, starts=[0, 1], ends=[1, 4])
    for name, opset, starts, ends, axes, steps in (
        ("inputs_10", 10, (1,), (5,), (1,), None),
        ("steps_11", 11, (0, 1), (4, 5), (2, 3), (2, 3)),
        ("reverse_13", 13, (-1,), (-(2**63),), (3,), (-1,)),
        ("reverse_step_13", 13, (5, 4), (0, -6), (1, 3), (-2, -3)),
        ("clamped_17", 17, (-100, 2), (100, 2**63 - 1), (1, 2), None),
        ("default_axes_17", 17, (0, 2), (1, 6), None, None),
        ("default_axes_steps_17", 17, (0, 0), (2, 6), None, (1, 2)),
        ("negative_axes_17", 17, (1,), (-1,), (-2,), (1,)),
    ):
        optional = {"axes": None if axes is None else ints(*axes)}
        if steps is not None:
            optional["steps"] = ints(*steps)
        with_constants(f"slice.{name}", "Slice", opset, x, {"starts": ints(*starts), "ends": ints(*ends)} | optional)
    with_constants("slice.i64", "Slice", 13, ints(4, 5, 6, 7), {"starts": ints(1), "ends": ints(3)})
    i32 = lambda *v: np.array(v, np.int32)
    with_constants("slice.i32_bounds", "Slice", 13, x, {"starts": i32(1), "ends": i32(4), "axes": i32(1)})

    x = normal("pad", 1, 3, 4, 5)
    for mode in "constant", "reflect", "edge":
        unary(f"pad.{mode}_7", "Pad", 7, x, pads=[0, 0, 1, 2, 0, 0, 3, 1], mode=mode)
        with_constants(f"pad.{mode}_11", "Pad", 11, x, {"pads": ints(0, 0, 2, 0, 0, 0, 1, 3)}, mode=mode)
        with_constants(f"pad.{mode}_channels_13", "Pad", 13, x, {"pads": ints(0, 1, 0, 1, 0, 2, 1, 0)}, mode=mode)
        with_constants(f"pad.{mode}_axes_18", "Pad", 18, x, {"pads": ints(1, 2, 3, 1), "value": None, "axes": ints(3, -2)}, mode=mode)
    unary("pad.value_9", "Pad", 9, x, pads=[0, 0, 1, 1, 0, 0, 1, 1], value=-2.5)
    with_constants("pad.value_13", "Pad", 13, x, {"pads": ints(0, 0, 1, 1, 0, 0, 1, 1), "value": F(1.25)})
    with_constants("pad.crop", "Pad", 13, x, {"pads": ints(0, 0, -1, 1, 0, 0, 1, -2)})
    with_constants("pad.crop_edge", "Pad", 13, x, {"pads": ints(0, 0, -1, 1, 0, 0, 1, -2)}, mode="edge")
    with_constants("pad.2d", "Pad", 13, normal("pad2", 3, 4), {"pads": ints(1, 0, 0, 2)})
    nodes = [node("Pad", "x pads", "p"), node("Conv", "p w", "y", strides=[2, 2])]
    case("pad.before_conv", nodes, {"x": x}, {"pads": ints(0, 0, 0, 0, 0, 0, 1, 1), "w": normal("pad.w", 4, 3, 3, 3)})


def shapes():
    x = normal("reshape", 2, 3, 4, 5)
    for name, opset, shape in (
        ("2d", 7, (6, 20)), ("infer", 9, (2, -1)), ("copy", 13, (0, 0, -1)), ("flat", 13, (-1,)), ("split", 17, (2, 3, 2, 2, 5)), ("copy_and_infer", 25, (0, -1, 5)),
    ):
        with_constants(f"reshape.{name}", "Reshape", opset, x, {"shape": ints(*shape)})
    with_constants("reshape.allowzero", "Reshape", 17, x, {"shape": ints(3, -1)}, allowzero=1)
    with_constants("reshape.scalar", "Reshape", 13, normal("reshape.one", 1, 1), {"shape": ints()})
    for axis in range(5):
        unary(f"flatten.axis_{axis}", "Flatten", (7, 9, 11, 13, 21)[axis], x, axis=axis)
    unary("flatten.default", "Flatten", 7, x)
    unary("flatten.negative", "Flatten", 13, x, axis=-1)
    unary("flatten.vector", "Flatten", 13, x.reshape(-1)[:7])
    ones = normal("squeeze", 1, 3, 1, 5, 1)
    unary("squeeze.attribute_7", "Squeeze", 7, ones, axes=[0, 2])
    unary("squeeze.negative_11", "Squeeze", 11, ones, axes=[-1, -3])
    unary("squeeze.default_11", "Squeeze", 11, ones)
    unary("squeeze.default_13", "Squeeze", 13, ones)
    with_constants("squeeze.input_13", "Squeeze", 13, ones, {"axes": ints(2, -1)})
    with_constants("squeeze.input_21", "Squeeze", 21, ones, {"axes": ints(0)})
    unary("unsqueeze.attribute_7", "Unsqueeze", 7, x, axes=[0, 3])
    unary("unsqueeze.negative_11", "Unsqueeze", 11, x, axes=[-1, 1])
    with_constants("unsqueeze.input_13", "Unsqueeze", 13, x, {"axes": ints(5, 0)})
    with_constants("unsqueeze.input_21", "Unsqueeze", 21, x, {"axes": ints(-1)})
    for i, perm in enumerate(((0, 2, 3, 1), (0, 3, 1, 2), (3, 2, 1, 0), (1, 0, 2, 3), (0, 1, 3, 2))):
        unary("transpose." + "".join(map(str, perm)), "Transpose", (7, 13, 21)[i % 3], x, perm=perm)
    unary("transpose.default", "Transpose", 13, x)
    unary("transpose.2d", "Transpose", 13, normal("transpose", 7, 19))
    unary("transpose.5d", "Transpose", 13, normal("transpose", 1, 2, 3, 2, 4), perm=[0, 2, 1, 4, 3])
    unary("transpose.i64", "Transpose", 13, np.arange(6).reshape(2, 3).astype(I), perm=[1, 0])
    nodes = [
        node("Reshape", "x wide", "a"), node("Transpose", "a", "b", perm=[0, 2, 1, 3, 4]), node("Reshape", "b back", "y"),
    ]
    channels = {"wide": ints(1, 2, 4, 3, 5), "back": ints(1, 8, 3, 5)}
    case("transpose.channel_shuffle", nodes, {"x": normal("shuffle", 1, 8, 3, 5)}, channels)

    for name, index, axis in (("scalar", I(2), 0), ("vector", ints(3, 0, 1, 1), 1), ("negative", ints(-1, -3), 2), ("matrix", np.array([[0, 4], [2, 1]], I), -1)):
        data = normal("gather" + name, 4, 5, 3, 5)
        case(f"gather.{name}", [node("Gather", "x i", "y", axis=axis)], {"x": data}, {"i": index}, opset=11 if axis < 0 or name == "negative" else 7)
    case("gather.computed_index", [node("Gather", "x i", "y")], {"x": normal("gather.c", 4, 3), "i": ints(3, 1, 0)}, opset=13)
    case("gather.i32_index", [node("Gather", "x i", "y", axis=1)], {"x": normal("gather.d", 4, 3)}, {"i": np.array([2, 0], np.int32)}, opset=13)
    case("gather.i64", [node("Gather", "x i", "y")], {"x": ints(5, 6, 7)}, {"i": I(-1)}, opset=13)

    unary("shape.all_7", "Shape", 7, x)
    unary("shape.start_15", "Shape", 15, x, start=1)
    unary("shape.range_21", "Shape", 21, x, start=-3, end=-1)
    unary("shape.clamped_15", "Shape", 15, x, start=-9, end=9)
    nodes = [
        node("Shape", "x", "s"), node("Gather", "s zero", "n"), node("Unsqueeze", "n", "n1", axes=[0]), node("Concat", "n1 rest", "shape", axis=0), node("Reshape", "x shape", "y"),
    ]
    case("shape.feeds_reshape_11", nodes, {"x": x}, {"zero": I(0), "rest": ints(-1)}, opset=11)
    nodes = [
        node("Shape", "x", "s"), node("Slice", "s from to", "hw"), node("Mul", "hw two", "hw2"), node("Cast", "hw2", "f", to=TensorProto.FLOAT),
        node("Cast", "hw", "g", to=TensorProto.FLOAT), node("Div", "f g", "ratio"), node("Concat", "ones ratio", "scales", axis=0),
        node("Resize", "x - scales", "y", mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    ]
    constants = {"from": ints(2), "to": ints(4), "two": I(2), "ones": np.ones(2, F)}
    case("shape.feeds_resize_13", nodes, {"x": x}, constants, opset=13)
    nodes = [node("Shape", "x", "s"), node("ConstantOfShape", "s", "z"), node("Add", "x z", "y")]
    case("constant_of_shape.of_shape_9", nodes, {"x": x}, opset=9)
    value = numpy_helper.from_array(np.array([7], I))
    nodes = [node("ConstantOfShape", "shape", "c", value=value), node("Add", "c x", "y")]
    case("constant_of_shape.i64", nodes, {"x": ints(1, 2, 3)}, {"shape": ints(2, 3)}, opset=13)
    nodes = [node("Add", "x c", "y")]
    for i, constant in enumerate(({"value": numpy_helper.from_array(normal("constant", 3))}, {"value_float": 2.5}, {"value_floats": [1.0, -2.0, 0.5]})):
        case(f"constant.float_{i}", [helper.make_node("Constant", [], ["c"], **constant), *nodes], {"x": normal("constant.x", 2, 3)}, opset=(7, 12, 13)[i])
    for i, constant in enumerate(({"value": numpy_helper.from_array(ints(3, 4))}, {"value_int": -5}, {"value_ints": [1, 2]})):
        case(f"constant.int_{i}", [helper.make_node("Constant", [], ["c"], **constant), *nodes], {"x": ints(9, -9)}, opset=(11, 13, 17)[i])
    values = np.array([1.9, -1.9, 0.0, 2.5, 200.0, -0.5], F)
    for to in "INT64", "INT32", "BOOL":
        unary(f"cast.f32_{to.lower()}", "Cast", 13, values, to=getattr(TensorProto, to))
    unary("cast.f32_u8", "Cast", 13, np.abs(values), to=TensorProto.UINT8)
    unary("cast.i64_f32", "Cast", 7, ints(-3, 0, 2**24 + 1), to=TensorProto.FLOAT)
    unary("cast.i32_i64", "Cast", 9, np.array([-3, 5], np.int32), to=TensorProto.INT64)
    unary("cast.i64_i32", "Cast", 19, ints(-3, 5), to=TensorProto.INT32)
    unary("cast.u8_f32", "Cast", 21, np.arange(0, 256, 15).astype(np.uint8), to=TensorProto.FLOAT)
    unary("cast.bool_f32", "Cast", 13, np.array([True, False, True]), to=TensorProto.FLOAT)
    unary("cast.same", "Cast", 13, values, to=TensorProto.FLOAT)
    for name, shape in ("add_axes", (2, 4, 3, 5)), ("row", (3, 5)), ("keep", (1,)):
        with_constants(f"expand.{name}", "Expand", 13 if name == "row" else 8, normal("expand", 3, 1), {"shape": ints(*shape)})
    with_constants("expand.i64", "Expand", 13, ints(4, 5), {"shape": ints(3, 2)})
    case("dropout.7", [node("Dropout", "x", "y", ratio=0.4)], {"x": x}, opset=7)
    case("dropout.12_input", [node("Dropout", "x ratio", "y")], {"x": x}, {"ratio": F(0.4)}, opset=12)
    case("dropout.22", [node("Dropout", "x", "y")], {"x": x}, opset=22)


def resizes():
    x = normal("resize", 1, 3, 4, 6)
    modes = "half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric", "tf_half_pixel_for_nn"
    sizes = {"up": (2.0, 2.0), "fraction": (1.75, 2.5), "down": (0.5, 0.6)}
    for mode, (name, (h, w)) in itertools.product(modes, sizes.items()):
        opset = 19 if mode == "half_pixel_symmetric" else 11 if mode.startswith("tf") else 13
        scales = {"roi": np.zeros(0, F), "scales": np.array([1, 1, h, w], F)}
        if opset >= 13:
            scales["roi"] = None
        if not mode.startswith("tf"):
            with_constants(f"resize.linear_{mode}_{name}", "Resize", opset, x, scales, mode="linear", coordinate_transformation_mode=mode)
        with_constants(f"resize.nearest_{mode}_{name}", "Resize", opset, x, scales, mode="nearest", coordinate_transformation_mode=mode)
    for nearest, mode in itertools.product(("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"), ("half_pixel", "asymmetric", "align_corners")):
        for name, (h, w) in {"up": (3.0, 1.5), "down": (0.75, 0.5)}.items():
            scales = {"roi": None, "scales": np.array([1, 1, h, w], F)}
            with_constants(f"resize.{nearest}_{mode}_{name}", "Resize", 13, x, scales, mode="nearest", nearest_mode=nearest, coordinate_transformation_mode=mode)
    for mode, transform in itertools.product(("nearest", "linear"), ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")):
        for name, (h, w) in {"up": (7, 11), "down": (3, 1)}.items():
            size = {"roi": None, "scales": None, "sizes": ints(1, 3, h, w)}
            with_constants(f"resize.sizes_{mode}_{transform}_{name}", "Resize", 17, x, size, mode=mode, coordinate_transformation_mode=transform)
    size = {"roi": np.zeros(0, F), "scales": np.zeros(0, F), "sizes": ints(1, 3, 8, 12)}
    with_constants("resize.sizes_11", "Resize", 11, x, size, mode="linear", coordinate_transformation_mode="half_pixel")
    with_constants("resize.scales_10_nearest", "Resize", 10, x, {"scales": np.array([1, 1, 2, 2.5], F)})
    with_constants("resize.scales_10_linear", "Resize", 10, x, {"scales": np.array([1, 1, 1.5, 2], F)}, mode="linear")
    with_constants("resize.axes_18", "Resize", 18, x, {"roi": None, "scales": np.array([2, 3], F)}, mode="linear", axes=[2, 3])
    with_constants("resize.axes_sizes_18", "Resize", 18, x, {"roi": None, "scales": None, "sizes": ints(6, 9)}, mode="nearest", axes=[2, 3])
    for policy in "not_larger", "not_smaller":
        size = {"roi": None, "scales": None, "sizes": ints(7, 8)}
        with_constants(f"resize.{policy}_18", "Resize", 18, x, size, mode="linear", axes=[2, 3], keep_aspect_ratio_policy=policy)
    with_constants("resize.channels", "Resize", 13, x, {"roi": None, "scales": np.array([1, 2, 1, 2], F)}, mode="nearest")
    for mode in "nearest", "linear":
        with_constants(f"upsample.{mode}_9", "Upsample", 9, x, {"scales": np.array([1, 1, 2, 3], F)}, mode=mode)
        with_constants(f"upsample.{mode}_fraction_9", "Upsample", 9, x, {"scales": np.array([1, 1, 1.5, 2], F)}, mode=mode)
        unary(f"upsample.{mode}_7", "Upsample", 7, x, mode=mode, scales=[1.0, 1.0, 2.0, 2.0])
    for mode in "DCR", "CRD":
        unary(f"depth_to_space.{mode.lower()}", "DepthToSpace", 13, normal("depth", 2, 12, 3, 2), blocksize=2, mode=mode)
        unary(f"depth_to_space.{mode.lower()}_3", "DepthToSpace", 11, normal("depth3", 1, 18, 2, 3), blocksize=3, mode=mode)
    unary("depth_to_space.default_7", "DepthToSpace", 7, normal("depth", 2, 12, 3, 2), blocksize=2)
    unary("space_to_depth.2", "SpaceToDepth", 7, normal("space", 2, 3, 4, 6), blocksize=2)
    unary("space_to_depth.3", "SpaceToDepth", 13, normal("space3", 1, 2, 3, 6), blocksize=3)


def make():
    joins()
    shapes()
    resizes()
