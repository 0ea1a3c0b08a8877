"""Writes what each operator has: its attributes and how many inputs, as onnxruntime takes them.

    pip install onnx onnxruntime
    python tests/data/make_attributes.py

A line of attributes.txt, read by crates/daq-quant/tests/all/attributes.rs, is
    OPSET OPERATOR INPUTS NAME=KIND:VALUE...
for each operator set in which an operator changed, with the most inputs (`*` for any number). Names are ONNX's;
onnxruntime must know each attribute, and refuse another one and one input more; what it does otherwise is printed (1.32
takes any attribute of LayerNormalization).
"""

import pathlib

import onnx
import onnxruntime
from onnx import TensorProto, helper

OUT = pathlib.Path(__file__).parents[2] / "crates/daq-quant/tests/data/attributes.txt"
NEWEST = 23
# A value, and operators that hold graphs.
SKIPPED = ["Constant", "If", "Loop", "Scan", "SequenceMap"]
KINDS = {"INT": "i", "FLOAT": "f", "STRING": "s", "INTS": "I", "FLOATS": "F", "STRINGS": "s", "TENSOR": "t"}
# Of attributes that have no default.
VALUES = {
    "kernel_shape": [1, 1], "strides": [1, 1], "dilations": [1, 1], "pads": [0, 0, 0, 0], "output_padding": [0, 0],
    "output_shape": [4, 4], "perm": [0, 1], "axes": [0], "split": [1], "starts": [0], "ends": [1], "shape": [1],
    "activations": None, "value": None, "direction": "LEFT", "mode": None,
}  # fmt: skip
BY_KIND = {"INT": 1, "FLOAT": 1.0, "INTS": [1], "FLOATS": [1.0], "STRING": None, "STRINGS": None, "TENSOR": None}


def refused(operator, opset, inputs, attributes, outputs=1):
    """onnxruntime's message about a node, which may be about anything."""
    names = [f"x{i}" for i in range(inputs)]
    made = ["y", *(f"y{i}" for i in range(1, outputs))]
    node = helper.make_node(operator, names, made, name="n", **attributes)
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, 4, 4]) for n in names]
    output = helper.make_empty_tensor_value_info("y")
    graph = helper.make_graph([node], "g", values, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return ""
    except Exception as error:  # noqa: BLE001
        return str(error)


def value(attribute):
    kind = attribute.type.name
    default = helper.get_attribute_value(attribute.default_value) if attribute.default_value.name else None
    if attribute.name in VALUES:
        default = VALUES[attribute.name] if default is None else default
    elif default is None:
        default = BY_KIND.get(kind)
    return default


def main():
    onnxruntime.set_default_logger_severity(4)
    lines = []
    schemas = [s for s in onnx.defs.get_all_schemas_with_history() if s.domain == "" and s.name not in SKIPPED]
    for schema in sorted(schemas, key=lambda s: (s.name, s.since_version)):
        later = [s.since_version for s in schemas if s.name == schema.name and s.since_version > schema.since_version]
        opset = max(schema.since_version, 7)
        if schema.deprecated or opset > NEWEST or any(since <= opset for since in later):
            continue
        written, given = [], {}
        for name, attribute in sorted(schema.attributes.items()):
            kind, found = attribute.type.name, value(attribute)
            if kind not in KINDS or found is None:
                written.append(f"{name}=")
                continue
            found = found.decode() if isinstance(found, bytes) else found
            given[name] = found
            if isinstance(found, list):
                found = [one.decode() if isinstance(one, bytes) else one for one in found]
            text = ",".join(map(str, found)) if isinstance(found, (list, tuple)) else str(found)
            written.append(f"{name}={KINDS[kind]}:{text}")
        any_number = schema.max_input > 1000
        least = max(schema.min_input, 0)
        for name in ["unknown", *given]:
            attributes = {name: given.get(name, 1)}
            wrong = f"Unrecognized attribute: {name}" in (why := refused(schema.name, opset, least, attributes, schema.min_output))
            if wrong != (name == "unknown"):
                print(f"{schema.name} {opset}: {name}: {why[:160]}")
        if not any_number and "input size" not in (why := refused(schema.name, opset, schema.max_input + 1, {})):
            print(f"{schema.name} {opset}: one input more: {why[:160]}")
        lines.append(f"{opset} {schema.name} {'*' if any_number else schema.max_input} {' '.join(written)}".strip())
    OUT.write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} lines, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
