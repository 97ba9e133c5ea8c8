"""The message tf.train.Example as numpy arrays and lists of bytes, without TensorFlow.

A feature is a flat list: float32, int64 or bytes. The message is described to protobuf here, field
by field as in tensorflow/core/example/{example,feature}.proto, so no generated code is needed.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

Feature = np.ndarray | list[bytes]


def parse_example(data: bytes) -> dict[str, Feature]:
    """The features by key, (N,) float32, (N,) int64 or N bytes; a feature without a list is an
    empty one of floats. Raises ValueError for data that is no such message."""
    from google.protobuf.message import DecodeError

    try:
        example = _message().FromString(data)
    except DecodeError as error:
        raise ValueError("the record is no tf.train.Example") from error
    return {key: _values(feature) for key, feature in example.features.feature.items()}


def serialize_example(features: Mapping[str, Feature]) -> bytes:
    """The message, the same bytes for the same features. Booleans and integers become int64,
    floats float32."""
    example = _message()()
    for key in sorted(features):
        values, feature = features[key], example.features.feature[key]
        if isinstance(values, list):
            feature.bytes_list.value.extend(values)
        elif values.dtype.kind in "iub":
            feature.int64_list.value.extend(values.astype(np.int64).ravel().tolist())
        else:
            feature.float_list.value.extend(values.astype(np.float32).ravel().tolist())
    return example.SerializeToString(deterministic=True)


def _values(feature: Any) -> Feature:
    kind = feature.WhichOneof("kind")
    if kind == "bytes_list":
        return list(feature.bytes_list.value)
    if kind == "int64_list":
        return np.array(feature.int64_list.value, dtype=np.int64)
    return np.array(feature.float_list.value, dtype=np.float32)


@cache
def _message() -> Any:
    """The class of the message, in a pool of its own: TensorFlow's may be in the default one."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field_type = descriptor_pb2.FieldDescriptorProto
    one, many = field_type.LABEL_OPTIONAL, field_type.LABEL_REPEATED
    file = descriptor_pb2.FileDescriptorProto(
        name="loopdit/example.proto", package="tensorflow", syntax="proto3"
    )

    def message(parent: Any, name: str) -> Any:
        made = parent.add()
        made.name = name
        return made

    def field(owner: Any, name: str, number: int, label: Any, kind: Any, of: str = "") -> Any:
        type_name = f".tensorflow.{of}" if of else None
        return owner.field.add(
            name=name, number=number, label=label, type=kind, type_name=type_name
        )

    for name, kind in (
        ("BytesList", field_type.TYPE_BYTES),
        ("FloatList", field_type.TYPE_FLOAT),
        ("Int64List", field_type.TYPE_INT64),
    ):
        field(message(file.message_type, name), "value", 1, many, kind)
    feature = message(file.message_type, "Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("bytes_list", "float_list", "int64_list"), 1):
        of = "".join(word.capitalize() for word in name.split("_"))
        field(feature, name, number, one, field_type.TYPE_MESSAGE, of).oneof_index = 0
    features = message(file.message_type, "Features")
    field(features, "feature", 1, many, field_type.TYPE_MESSAGE, "Features.FeatureEntry")
    entry = message(features.nested_type, "FeatureEntry")
    entry.options.map_entry = True
    field(entry, "key", 1, one, field_type.TYPE_STRING)
    field(entry, "value", 2, one, field_type.TYPE_MESSAGE, "Feature")
    field(
        message(file.message_type, "Example"),
        "features",
        1,
        one,
        field_type.TYPE_MESSAGE,
        "Features",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))
