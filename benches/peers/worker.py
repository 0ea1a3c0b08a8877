"""One peer in a process of its own, timed on request: `worker.py RUNTIME MODEL INPUT.f32 THREADS [once]`.

Speaks as `crates/daq/examples/bench_server.rs` does: says `ready LOAD FIRST` (nanoseconds), then answers
`run WARM N` with N times and `output FILE` with `done`. With `once` it ends after the first inference.

Each class is one runtime with the settings that make it fastest here; inputs and outputs are made before and
reused, so that only the runtime's own work is timed.
"""

import sys
import time

import numpy as np


class OnnxRuntime:
    def __init__(self, model, threads):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.shape = self.session.get_inputs()[0].shape

    def bind(self, array):
        import onnxruntime as ort

        self.binding = self.session.io_binding()
        self.binding.bind_ortvalue_input(self.session.get_inputs()[0].name, ort.OrtValue.ortvalue_from_numpy(array))
        port = self.session.get_outputs()[0]
        self.result = ort.OrtValue.ortvalue_from_shape_and_type(port.shape, np.float32)
        self.binding.bind_ortvalue_output(port.name, self.result)

    def infer(self):
        self.session.run_with_iobinding(self.binding)

    def output(self):
        return self.result.numpy()


class OpenVino:
    def __init__(self, model, threads):
        import openvino as ov

        settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(threads)}
        self.request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
        self.shape = list(self.request.get_input_tensor().shape)

    def bind(self, array):
        import openvino as ov

        self.input = array
        self.request.set_input_tensor(ov.Tensor(array, shared_memory=True))

    def infer(self):
        self.request.infer(share_outputs=True)

    def output(self):
        return self.request.get_output_tensor().data


RUNTIMES = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}


def main():
    runtime, model, input_file, threads, *once = sys.argv[1:]
    data = np.fromfile(input_file, "<f4")
    clock = time.perf_counter_ns

    start = clock()
    runtime = RUNTIMES[runtime](model, int(threads))
    load = clock() - start
    runtime.bind(data.reshape(runtime.shape))
    start = clock()
    runtime.infer()
    print("ready", load, clock() - start, flush=True)

    for line in [] if once else sys.stdin:
        request, *arguments = line.split()
        if request == "run":
            warm, count = map(int, arguments)
            for _ in range(warm):
                runtime.infer()
            times = []
            for _ in range(count):
                start = clock()
                runtime.infer()
                times.append(clock() - start)
            print(*times, flush=True)
        elif request == "output":
            np.ascontiguousarray(runtime.output(), "<f4").tofile(arguments[0])
            print("done", flush=True)


if __name__ == "__main__":
    main()
