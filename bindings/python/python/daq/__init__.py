"""daq: 8-bit vision models, quantized and run, the same on every CPU.

    import daq

    daq.quantize("mobilenet_v2.onnx", "pictures", "mobilenet_v2.daq")
    model = daq.Model("mobilenet_v2.daq")
    scores = model.predict({"input": pixels})["output"]

An array of float32 is real numbers, one of uint8 the codes of the input's scale.
"""

from ._daq import DaqError, Model, Tensor, __version__, convert, quantize

__all__ = ["DaqError", "Model", "Tensor", "__version__", "convert", "quantize"]
