"""Writes the operator cases: small ONNX models with inputs and onnxruntime's outputs.

    pip install numpy onnx onnxruntime
    python tests/data/make_operator_cases.py

The outputs are onnxruntime's with graph optimisation off. One compressed .npz for each operator, read
by crates/daq-quant/tests/all/operators.rs, holds for each of its cases
    CASE/onnx        the model's bytes
    CASE/operators   the names of its operators as text, one a line
    CASE/in/NAME     an input
    CASE/out/NAME    an output
and for an 8-bit case
    CASE/scale/NAME  the scale of an output's codes
    CASE/islands     how many operators compute floats once the Q/DQ pairs are folded; -1 for any
Random data are seeded by the case's name, so that a new case leaves the others as they are.
"""

import pathlib
import sys
import zlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OUT = pathlib.Path(__file__).parents[2] / "crates/daq-quant/tests/data/operators"
# The IR version that was current with an operator set. Before 4 initializers are inputs as well.
IR_VERSIONS = {7: 3, 8: 3, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 25: 13}
TENSOR_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9}

files: dict[str, dict[str, np.ndarray]] = {}
failures: list[str] = []


def node(op, inputs, outputs, **attributes):
    """A node; inputs and outputs are names separated by spaces, `-` for one left out."""
    names = lambda s: ["" if n == "-" else n for n in s.split()]
    return helper.make_node(op, names(inputs), names(outputs), **attributes)


def rng(name):
    return np.random.default_rng(zlib.crc32(name.encode()))


def run(nodes, inputs, constants, outputs, opset):
    """Builds a model and runs it; gives both. Output types and shapes are those that came out."""

    def info(name, array):
        return helper.make_tensor_value_info(name, TENSOR_TYPES[str(array.dtype)], array.shape)

    ir = IR_VERSIONS[opset]
    given = [info(name, array) for name, array in inputs.items()]
    if ir < 4:
        given += [info(name, array) for name, array in constants.items()]
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    open_outputs = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(nodes, "case", given, open_outputs, initializers)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir, producer_name=""
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    results = dict(zip(outputs, session.run(None, inputs)))
    del model.graph.output[:]
    model.graph.output.extend(info(name, np.asarray(results[name])) for name in outputs)
    onnx.checker.check_model(model)
    return model, results


def case(name, nodes, inputs, constants=None, outputs=("y",), opset=17, scales=None, islands=0):
    """Adds a case to the file named by the part of `name` before the first `.`."""
    inputs = {k: np.asarray(v) for k, v in inputs.items()}
    constants = {k: np.asarray(v) for k, v in (constants or {}).items()}
    file, rest = name.split(".", 1)
    arrays = files.setdefault(file, {})
    assert f"{rest}/onnx" not in arrays, f"two cases are named {name}"
    try:
        model, results = run(nodes, inputs, constants, outputs, opset)
    except Exception as error:
        failures.append(f"{name}: {error}")
        return
    arrays[f"{rest}/onnx"] = np.frombuffer(model.SerializeToString(), np.uint8)
    names = "\n".join(sorted({n.op_type for n in nodes}))
    arrays[f"{rest}/operators"] = np.frombuffer(names.encode(), np.uint8)
    arrays |= {f"{rest}/in/{k}": v for k, v in inputs.items()}
    arrays |= {f"{rest}/out/{k}": np.asarray(v) for k, v in results.items()}
    if scales is not None:
        arrays |= {f"{rest}/scale/{k}": np.float32(v) for k, v in scales.items()}
        arrays[f"{rest}/islands"] = np.int64(islands)


def main():
    import operator_cases_8bit
    import operator_cases_float
    import operator_cases_indices
    import operator_cases_layers
    import operator_cases_logic

    operator_cases_float.make()
    operator_cases_8bit.make()
    operator_cases_logic.make()
    operator_cases_indices.make()
    operator_cases_layers.make()
    if failures:
        sys.exit("\n".join(failures))
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.glob("*.npz"):
        old.unlink()
    for file, arrays in files.items():
        np.savez_compressed(OUT / f"{file}.npz", **arrays)
    total = sum(f.stat().st_size for f in OUT.glob("*.npz"))
    cases = sum(key.endswith("/onnx") for arrays in files.values() for key in arrays)
    print(f"{cases} cases in {len(files)} files, {total} bytes, onnxruntime {onnxruntime.__version__}")


if __name__ == "__main__":
    # The case files import this module by name and must see the same `files`.
    sys.modules["make_operator_cases"] = sys.modules["__main__"]
    main()
