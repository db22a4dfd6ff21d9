"""messages.py says of each message what the .proto files say."""
import os
import subprocess

from google.protobuf import descriptor_pb2

from conftest import ROOT
from expertd import messages


def declared(proto, tmp_path):
    out = tmp_path / "set"
    subprocess.run(["protoc", f"--descriptor_set_out={out}", "-I", os.path.join(ROOT, "proto"), proto], check=True)
    return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]


def fields(message, prefix=""):
    name = prefix + message.name
    yield from ((name, f.name, f.number, f.type, f.label, f.type_name) for f in message.field)
    for nested in message.nested_type:
        yield from fields(nested, name + ".")


def content(file):
    found = {field for message in file.message_type for field in fields(message)}
    return found | {(enum.name, value.name, value.number) for enum in file.enum_type for value in enum.value}


def test_what_the_server_and_the_dht_say_is_declared_as_in_the_proto_files(tmp_path):
    for mine, proto in ((messages.server, "expertd.proto"), (messages.dht, "dht.proto")):
        strange = content(mine.file) - content(declared(proto, tmp_path))
        assert not strange, f"{proto} has no such field or value: {sorted(strange)}"


def test_a_message_survives_its_wire_form():
    request = messages.server.RequestHeader(version=1, request_id=8, method=4, uid="ffn.4.17", deadline_ms=2000,
                                            tensors=[messages.server.Tensor(dtype=1, shape=[2, 64])])
    assert request.SerializeToString().hex() == "08011008180422" + "0866666e2e342e31372a06080112020240" + "30d00f"
