"""The protocol's messages (proto/expertd.proto and proto/dht.proto), as far as a client needs them, made at import.

protoc's output fits only the protobuf versions around the one that made it; descriptors built here work with all. A
test compares them with the .proto files. A field is "name:type=number", `*` after the type means repeated."""
from __future__ import annotations

from typing import Any, Dict

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_ENUMS = {
    "expertd": {
        "Method": "METHOD_NONE PING LIST INFO FORWARD BACKWARD STATS CHECKPOINT",
        "DType": "DTYPE_UNSPECIFIED FLOAT32 FLOAT64 FLOAT16 BFLOAT16 INT8 INT16 INT32 INT64 UINT8 BOOL",
        "Codec": "RAW CODEC_MEANSTD_16BIT CODEC_FLOAT16 CODEC_QUANTILE_8BIT CODEC_UNIFORM_8BIT CODEC_BLOCKWISE_8BIT "
                 "CODEC_BFLOAT16",
        "Status": "OK INVALID_ARGUMENT=3 DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED RESOURCE_EXHAUSTED ABORTED=10 "
                  "UNIMPLEMENTED=12 INTERNAL UNAVAILABLE",
    },
    "expertd.dht": {"Method": "METHOD_NONE RESOLVE PREFIX BEAM_SEARCH STATUS DRAW"},
}

_MESSAGES = {
    "expertd": {
        "Tensor": "dtype:DType=1 shape:uint64*=2 codec:Codec=3",
        "ListQuery": "prefix:string=1 offset:uint32=2 limit:uint32=3",
        "RequestHeader": "version:uint32=1 request_id:uint64=2 method:Method=3 uid:string=4 tensors:Tensor*=5 "
                         "deadline_ms:uint32=6 client_id:bytes=7 list:ListQuery=8 reply_codecs:Codec*=9 metadata:bytes=10 traceparent:string=11 "
                         "requires_grad:bool*=13 parts:RequestHeader.Part*=20",
        "RequestHeader.Part": "uid:string=1 rows:uint32=2 request_id:uint64=3",
        "ExpertList.Entry": "uid:string=1 alive:bool=2 device:string=3 endpoint:string=4",
        "ExpertList": "experts:ExpertList.Entry*=1 total:uint32=2 generation:uint64=3",
        "Schema.Field": "name:string=1 dtype:DType=2 row_shape:uint64*=3 codecs:Codec*=4",
        "Schema": "tensors:Schema.Field*=1",
        "ExpertInfo": "uid:string=1 block:string=2 forward_schema:Schema=3 outputs_schema:Schema=4 "
                      "max_batch_size:uint64=5 hidden_dim:uint64=6 device:string=7 alive:bool=8 optimizer:string=9 "
                      "learning_rate:double=10 beta1:double=11 beta2:double=12 epsilon:double=13 momentum:double=14 "
                      "clip_norm:double=15 schedule:string=16 warmup_steps:uint64=17 total_steps:uint64=18 "
                      "grad_accumulation:uint64=19 update_count:uint64=20 examples_processed:uint64=21 "
                      "skipped_steps:uint64=22 backward_schema:Schema=23 compression:Codec=24 "
                      "arguments:ExpertInfo.Argument*=25",
        "ExpertInfo.Argument": "name:string=1 value:double=2",
        "Stats.Counter": "name:string=1 value:double=2",
        "Stats": "counters:Stats.Counter*=1",
        "Pong": "server:string=1 software:string=2 experts:uint32=3 experts_alive:uint32=4 local:Pong.Local=5 "
                "frontends:Pong.Frontend*=6",
        "Pong.Frontend": "server:string=1 endpoint:string=2",
        "Pong.Local": "path:string=1 instance:bytes=2",
        "ReplyHeader": "version:uint32=1 request_id:uint64=2 status:Status=3 message:string=4 tensors:Tensor*=5 "
                       "info:ExpertInfo=6 list:ExpertList=7 stats:Stats=8 pong:Pong=9 retry_after_ms:uint32=10 metadata:bytes=11 "
                       "endpoint:string=13 parts:ReplyHeader.PartResult*=20 endpoints:string*=21",
        "ReplyHeader.PartResult": "status:Status=1 message:string=2 retry_after_ms:uint32=3 frontend:uint32=4",
    },
    "expertd.dht": {
        "BeamQuery": "prefix:string=1 grid_size:uint32*=2 scores:float*=3 beam_size:uint32=4",
        "DrawQuery": "pattern:string=1 count:uint32=2",
        "Request": "version:uint32=1 request_id:uint64=2 method:Method=3 deadline_ms:uint32=4 uids:string*=5 "
                   "prefixes:string*=6 beam:BeamQuery=7 draw:DrawQuery=8",
        "Replica": "endpoint:string=1 server_id:bytes=2 curve_key:bytes=3",
        "Resolved": "uid:string=1 replicas:Replica*=2",
        "Range": "first:uint32=1 count:uint64=2",
        "PrefixContent": "prefix:string=1 experts:Range*=2 branches:Range*=3",
        "BeamResult.Row": "experts:uint32*=1 scores:float*=2",
        "BeamResult": "experts:Resolved*=1 rows:BeamResult.Row*=2",
        "DrawResult": "uids:string*=1 free:uint64=2",
        "NodeStatus.Counter": "name:string=1 value:double=2",
        "NodeStatus": "server_id:string=1 node_id:string=2 port:uint32=3 network_id:uint32=4 software:string=5 "
                      "frontend:string=6 counters:NodeStatus.Counter*=7",
        "Reply": "version:uint32=1 request_id:uint64=2 status:uint32=3 message:string=4 resolved:Resolved*=5 "
                 "prefixes:PrefixContent*=6 beam:BeamResult=7 node:NodeStatus=8 draw:DrawResult=9",
    },
}

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {name: getattr(_Field, "TYPE_" + name.upper())
            for name in ("uint32", "uint64", "string", "bytes", "bool", "double", "float")}


def _add_enum(file: Any, name: str, values: str) -> None:
    enum, number = file.enum_type.add(name=name), -1
    for value in values.split():
        label, _, given = value.partition("=")
        number = int(given) if given else number + 1
        enum.value.add(name=label, number=number)


def _add_field(file: Any, message: Any, text: str) -> None:
    name, rest = text.split(":")
    kind, number = rest.split("=")
    field = message.field.add(name=name, number=int(number))
    field.label = _Field.LABEL_REPEATED if kind.endswith("*") else _Field.LABEL_OPTIONAL
    kind = kind.rstrip("*")
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _Field.TYPE_ENUM if kind in _ENUMS[file.package] else _Field.TYPE_MESSAGE
        field.type_name = f".{file.package}.{kind}"


def _describe(package: str) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name=package + ".client.proto", package=package, syntax="proto3")
    for name, values in _ENUMS[package].items():
        _add_enum(file, name, values)
    made: Dict[str, Any] = {}
    # Outer messages first: an inner one is added to its outer one.
    for name in sorted(_MESSAGES[package], key=lambda name: name.count(".")):
        outer, _, inner = name.rpartition(".")
        made[name] = made[outer].nested_type.add(name=inner) if outer else file.message_type.add(name=name)
    for name, fields in _MESSAGES[package].items():
        for text in fields.split():
            _add_field(file, made[name], text)
    return file


class Messages:
    """The message classes of one package by name; its enums' values by theirs."""

    def __init__(self, package: str):
        self.file = _describe(package)
        pool = descriptor_pool.DescriptorPool()
        pool.AddSerializedFile(self.file.SerializeToString())
        if hasattr(message_factory, "GetMessageClass"):
            make = message_factory.GetMessageClass
        else:  # before protobuf 4.22
            make = message_factory.MessageFactory(pool).GetPrototype
        self._classes = {message.name: make(pool.FindMessageTypeByName(f"{package}.{message.name}"))
                         for message in self.file.message_type}
        self._values = {(enum.name, value.name): value.number for enum in self.file.enum_type for value in enum.value}

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_classes"][name]
        except KeyError:
            raise AttributeError(name) from None

    def value(self, enum: str, name: str) -> int:
        return self._values[enum, name]


server = Messages("expertd")
dht = Messages("expertd.dht")
