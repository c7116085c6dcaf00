"""A gRPC client on stubs generated from the shipped proto. See ../README.md for what goes in and out."""

import hashlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".env" / "stubs"))

import grpc
from attachments.v2 import attachments_pb2 as pb
from attachments.v2 import attachments_pb2_grpc as rpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

env = os.environ
mode = env["MODE"]
ids = {"client_id": int(env["CLIENT_ID"]), "attachment_id": int(env["ATTACHMENT_ID"])}


def messages():
    """The messages of an upload, with the fault that the mode asks for."""
    path = Path(env["FILE"])
    size, digest = 0, hashlib.sha256()
    if mode != "chunk-first":
        header = pb.UploadHeader(
            **ids, filename=path.name, content_type="application/x-attachd-test", if_absent=mode == "if-absent"
        )
        yield pb.UploadAttachmentRequest(header=header)
    if mode == "too-big-message":
        yield pb.UploadAttachmentRequest(chunk=bytes(16 << 20))
    with path.open("rb") as file:
        while chunk := file.read(64 << 10):
            size += len(chunk)
            digest.update(chunk)
            yield pb.UploadAttachmentRequest(chunk=chunk)
    if mode == "wrong-size":
        size += 1
    if mode == "wrong-digest":
        digest.update(b"!")
    if mode != "no-finish":
        yield pb.UploadAttachmentRequest(finish=pb.UploadFinish(size=size, sha256=digest.digest()))


def call(stub):
    options = {"metadata": [("authorization", f"Bearer {env['TOKEN']}")], "timeout": 50}
    if mode == "no-token":
        options["metadata"] = []
    if mode == "bad-token":
        options["metadata"] = [("authorization", "Bearer not.a.token")]
    if mode == "register":
        return stub.RegisterAttachment(pb.RegisterAttachmentRequest(**ids), **options).attachment
    if mode == "compressed":
        options["compression"] = grpc.Compression.Gzip
    return stub.UploadAttachment(messages(), **options).attachment


with grpc.insecure_channel(env["GRPC_ADDR"]) as channel:
    try:
        attachment = call(rpc.AttachmentServiceStub(channel))
        result = {
            "ok": True,
            "attachment": {
                "client_id": attachment.client_id,
                "attachment_id": attachment.attachment_id,
                "filename": attachment.filename,
                "content_type": attachment.content_type,
                "size": attachment.size if attachment.HasField("size") else None,
                "sha256": attachment.sha256.hex() if attachment.HasField("sha256") else None,
                "uploaded_by": attachment.uploaded_by,
            },
        }
    except grpc.RpcError as error:
        info = error_details_pb2.ErrorInfo()
        status = rpc_status.from_call(error)  # None where there are no details; raises where they contradict the status
        for detail in status.details if status else ():
            detail.Unpack(info)  # False where it is something else
        result = {
            "ok": False,
            "code": error.code().name,
            "reason": info.reason or None,
            "domain": info.domain or None,
            "message": error.details(),
        }
print(json.dumps(result))
