from os import PathLike
from typing import Any, Callable, Dict, Iterable, List, Literal, Mapping, Optional, Protocol, Sequence
from typing import Tuple, TypedDict, Union

import numpy as np
import numpy.typing as npt

__version__: str

class _Proto(Protocol):
    def SerializeToString(self) -> bytes: ...

class _Reader(Protocol):
    def get_next(self) -> Any: ...

_Path = Union[str, PathLike[str]]
_Model = Union[_Path, bytes, _Proto]
_Array = npt.NDArray[Any]
_Sample = Union[_Array, Dict[str, _Array]]

class DaqError(ValueError): ...

class Tensor:
    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> List[int]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def layout(self) -> Literal["plain", "channels_last"]: ...
    @property
    def scale(self) -> Optional[float]: ...
    @property
    def zero_point(self) -> Optional[int]: ...

class Model:
    def __init__(
        self,
        model: _Model,
        *,
        threads: int = 1,
        backend: Literal["cpu", "nnapi", "auto"] = "cpu",
        preference: Literal["low-power", "fast-single-answer", "sustained-speed"] = "fast-single-answer",
        allow_fp16: bool = False,
    ) -> None: ...
    @property
    def inputs(self) -> List[Tensor]: ...
    @property
    def outputs(self) -> List[Tensor]: ...
    def predict(
        self, inputs: Union[_Array, Dict[str, _Array]], dtype: Optional[npt.DTypeLike] = None
    ) -> Dict[str, _Array]: ...

class Target(TypedDict):
    reached: bool
    agreement: float
    expected: float
    expected_error: float
    sqnr_db: float
    samples: int
    calibration: str
    recovery: str
    exclude: List[str]
    two_parts: List[str]

class _Summary(TypedDict):
    operators: int
    operators_8bit: int
    samples: int
    skipped: List[Tuple[str, str]]
    float_operators: List[Tuple[str, str]]
    messages: List[str]

class Summary(_Summary, total=False):
    target: Target

def quantize(
    model: _Model,
    images: Union[_Path, Iterable[_Sample], _Reader],
    output: _Path,
    *,
    table: Optional[_Path] = None,
    preprocess: Union[_Path, Dict[str, Any], None] = None,
    calibration: Optional[str] = None,
    recovery: Optional[str] = None,
    weights: Literal["per-channel", "per-tensor", "asymm"] = "per-channel",
    samples: Optional[int] = None,
    seed: int = 0,
    threads: Optional[int] = None,
    exclude: Sequence[str] = (),
    ops: Optional[Sequence[str]] = None,
    two_parts: Sequence[str] = (),
    dequantize_after: Sequence[str] = (),
    quantize_after: Sequence[str] = (),
    float_input: bool = False,
    power_of_two_scales: bool = False,
    target_agreement: Optional[float] = None,
    target_sqnr: Optional[float] = None,
    time_budget: Optional[float] = None,
    shapes: Optional[Mapping[str, Sequence[int]]] = None,
    progress: Optional[Callable[[str, int, int], Any]] = None,
) -> Summary: ...
def convert(
    model: _Model,
    output: _Path,
    *,
    table: Optional[_Path] = None,
    input_layout: Optional[Literal["nhwc", "nchw"]] = None,
    labels: Optional[_Path] = None,
    shapes: Optional[Mapping[str, Sequence[int]]] = None,
) -> None: ...
