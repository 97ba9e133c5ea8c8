"""A module exported to ONNX and run there, with a free batch axis, as `policy-export` does it."""

import logging
import warnings

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn


def through_onnx(module: nn.Module, example: Tensor, given: Tensor) -> np.ndarray:
    """What the graph traced with `example` (2, ...) makes of `given` (B, ...)."""
    loud = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    for logger in loud:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            opset_version=20,
            input_names=["given"],
            dynamic_shapes=({0: "batch"},),
            external_data=False,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"given": given.numpy()})[0])
