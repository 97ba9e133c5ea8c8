import numpy as np

from loopdit.datasets.batch_buffers import BatchBuffers


def test_an_array_that_anything_still_looks_at_is_not_given_again():
    buffers = BatchBuffers()
    array = buffers.take((3, 2), "uint8")
    view = array[:, 0]
    view[:] = 7
    del array
    other = buffers.take((3, 2), "uint8")
    other[:] = 1
    assert view.tolist() == [7, 7, 7]


def test_an_array_that_nothing_looks_at_is_given_again():
    buffers = BatchBuffers()
    address = buffers.take((1 << 20,), "uint8").ctypes.data
    others = [np.ones(1 << 20, np.uint8) for _ in range(8)]  # had it been freed, it is theirs now
    assert buffers.take((1 << 20,), "uint8").ctypes.data == address
    assert len(others) == 8


def test_a_tensor_keeps_its_array():
    import torch

    buffers = BatchBuffers()
    tensor = torch.from_numpy(buffers.take((4,), "float32")).reshape(2, 2)
    tensor.fill_(3)
    buffers.take((4,), "float32")[:] = 1
    assert (tensor == 3).all()


def test_shapes_and_dtypes_do_not_share_arrays():
    buffers = BatchBuffers()
    taken = [buffers.take((2, 2), "uint8"), buffers.take((4,), "uint8"), buffers.take((4,), "int8")]
    assert [(a.shape, a.dtype) for a in taken] == [
        ((2, 2), np.uint8),
        ((4,), np.uint8),
        ((4,), np.int8),
    ]
