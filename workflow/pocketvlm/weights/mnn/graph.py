"""A network in MNN's format, put together operation by operation.

`mnnconvert` of the MNN wheel reads graphs as JSON (`-f JSON`), a text form of MNN's schema (schema/default of
alibaba/MNN); matrices are in a file beside it, each named by its offset. Every method adds an operation and
returns the number of the tensor that it makes. Tensors are [1, positions, channels] unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
# Of an axis: to its end.
_TO_END = 2**31 - 1


@dataclass
class Graph:
    """The operations so far; matrices are written to `weights` as float32 when they are used."""

    weights: BinaryIO
    names: list[str] = field(default_factory=list)
    operations: list[dict[str, Any]] = field(default_factory=list)

    def described(self, outputs: Sequence[str]) -> dict[str, Any]:
        """Return the graph as JSON has it, with the names of what it computes."""
        return {
            "oplists": self.operations,
            "tensorName": self.names,
            "tensorNumber": len(self.names),
            "outputName": list(outputs),
            "sourceType": "ONNX",
            "bizCode": "MNN",
            "usage": "INFERENCE",
        }

    def add(
        self,
        kind: str,
        inputs: Sequence[int],
        parameters: tuple[str, dict[str, Any]] | None = None,
        **names: Any,
    ) -> int:
        """Add an operation with one output.

        Args:
            kind: MNN's OpType.
            inputs: numbers of tensors.
            parameters: MNN's OpParameter and its fields; None for an operation without any.
            names: `name` of the operation and its output; else it is numbered.
        """
        return self._add(kind, inputs, parameters, 1, **names)[0]

    def _add(
        self,
        kind: str,
        inputs: Sequence[int],
        parameters: tuple[str, dict[str, Any]] | None,
        outputs: int,
        name: str = "",
    ) -> list[int]:
        name = name or f"{kind}{len(self.operations)}"
        made = [len(self.names) + number for number in range(outputs)]
        self.names += [name if number == 0 else f"{name}:{number}" for number in range(outputs)]
        operation = {
            "name": name,
            "type": kind,
            "inputIndexes": list(inputs),
            "outputIndexes": made,
            "defaultDimentionFormat": "NHWC",  # so spelt in the schema
            "main_type": parameters[0] if parameters else "NONE",
        }
        self.operations.append({**operation, "main": parameters[1]} if parameters else operation)
        return made

    def input(self, name: str, shape: Sequence[int], kind: str = "DT_FLOAT") -> int:
        """Add an input; -1 is a size that only a run knows."""
        return self.add(
            "Input", [], ("Input", {"dims": list(shape), "dtype": kind, "dformat": "NCHW"}), name=name
        )

    def integers(self, values: Sequence[int]) -> int:
        """Add a constant vector of integers."""
        blob = {"dims": [len(values)], "dataFormat": "NCHW", "dataType": "DT_INT32", "int32s": list(values)}
        return self.add("Const", [], ("Blob", blob))

    def constant(self, values: Array, shape: Sequence[int] | None = None) -> int:
        """Add a constant; it is written into the graph itself, so it should be small."""
        blob = {
            "dims": list(values.shape if shape is None else shape),
            "dataFormat": "NCHW",
            "dataType": "DT_FLOAT",
            "float32s": [float(value) for value in values.ravel()],
        }
        return self.add("Const", [], ("Blob", blob))

    def reshape(self, tensor: int, shape: Sequence[int], **names: str) -> int:
        """Add another shape of the same values."""
        return self.add("Reshape", [tensor], ("Reshape", {"dims": list(shape), "dimType": "NCHW"}), **names)

    def permute(self, tensor: int, axes: Sequence[int]) -> int:
        """Add the axes in another order."""
        return self.add("Permute", [tensor], ("Permute", {"dims": list(axes)}))

    def binary(self, kind: str, left: int, right: int) -> int:
        """Add `ADD`, `SUB` or `MUL`, with broadcasting."""
        parameters = {"opType": kind, "T": "DT_FLOAT", "activationType": 0}
        return self.add("BinaryOp", [left, right], ("BinaryOp", parameters))

    def unary(self, kind: str, tensor: int) -> int:
        """Add `SIN`, `COS`, `SILU`, `SIGMOID` or `GELU` of each value."""
        return self.add("UnaryOp", [tensor], ("UnaryOp", {"opType": kind, "T": "DT_FLOAT"}))

    def to_float(self, tensor: int) -> int:
        """Add integers as floats."""
        return self.add("Cast", [tensor], ("CastParam", {"srcT": "DT_INT32", "dstT": "DT_FLOAT"}))

    def split(self, tensor: int, axis: int, sizes: Sequence[int]) -> list[int]:
        """Add the parts of a tensor along an axis."""
        parameters = {"axis": axis, "slicePoints": list(sizes), "sourceType": "TENSORFLOW"}
        return self._add("Slice", [tensor], ("Slice", parameters), len(sizes))

    def concatenate(self, tensors: Sequence[int], axis: int) -> int:
        """Add tensors one after another along an axis."""
        return self.add("Concat", tensors, ("Axis", {"axis": axis}))

    def from_position(self, tensor: int, start: int) -> int:
        """Add the positions from `start` on: the number of a tensor that holds it, -1 for the last alone."""
        masks = dict.fromkeys(("beginMask", "endMask", "ellipsisMask", "newAxisMask", "shrinkAxisMask"), 0)
        parameters = {"Index": "DT_INT32", "T": "DT_FLOAT", **masks, "fromType": 1}
        bounds = [start, self.integers([_TO_END]), self.integers([1]), self.integers([1])]
        return self.add("StridedSlice", [tensor, *bounds], ("StridedSliceParam", parameters))

    def norm(self, tensor: int, weight: Array, bias: Array | None, epsilon: float) -> int:
        """Add a normalisation over the channels: of the layer, or of the root mean square without a bias."""
        parameters = {
            "axis": [-1],
            "epsilon": epsilon,
            "group": 1,
            "gamma": [float(value) for value in weight],
            "beta": [float(value) for value in (np.zeros_like(weight) if bias is None else bias)],
            "useRMSNorm": bias is None,
        }
        return self.add("LayerNorm", [tensor], ("LayerNorm", parameters))

    def attention(self, query: int, key: int, value: int, mask: int, *, cache: bool) -> int:
        """Add attention. Without a mask, and with one of no size, a position sees those before it alone.

        Args:
            query, key, value: [1, positions, heads, channels of a head].
            mask: what is added to the scores, [1, 1, positions, positions]; the engine's has no size.
            cache: whether keys and values are kept for the positions that follow.
        """
        return self.add("Attention", [query, key, value, mask], ("AttentionParam", {"kv_cache": cache}))

    def linear(self, tensor: int, weight: Array, bias: Array | None = None, **names: str) -> int:
        """Add a matrix product; weight [out, in]. It is a convolution of 1 x 1, which MNN can quantise."""
        rows, columns = weight.shape
        pixels = self.reshape(tensor, [-1, columns, 1, 1])
        made = self.convolution(pixels, weight.reshape(rows, columns, 1, 1), bias)
        return self.reshape(made, [1, -1, rows], **names)

    def convolution(self, tensor: int, weight: Array, bias: Array | None = None) -> int:
        """Add a convolution of [1, in, height, width]; weight [out, in, size, size], stride its size."""
        rows, columns, size, _ = weight.shape
        begin = self.weights.tell()
        lengths = [
            self.weights.write(np.ascontiguousarray(part, "<f4").tobytes())
            for part in (weight, np.zeros(rows) if bias is None else bias)
        ]
        common = {
            **dict.fromkeys(("kernelX", "kernelY", "strideX", "strideY"), size),
            **{"dilateX": 1, "dilateY": 1, "padX": 0, "padY": 0, "padMode": "CAFFE", "group": 1},
            **{"outputCount": rows, "inputCount": columns, "relu": False, "relu6": False},
        }
        made = self._packed(tensor, "NCHW", "NC4HW4")
        made = self.add(
            "Convolution", [made], ("Convolution2D", {"common": common, "external": [begin, *lengths]})
        )
        return self._packed(made, "NC4HW4", "NCHW")

    def _packed(self, tensor: int, source: str, wanted: str) -> int:
        """Add a change between plain channels and channels packed in fours, as convolutions have them."""
        return self.add("ConvertTensor", [tensor], ("TensorConvertInfo", {"source": source, "dest": wanted}))
