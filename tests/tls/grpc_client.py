"""Uploads over gRPC with TLS and prints who uploaded, or the code and the reason of the refusal.
Arguments: ADDRESS AUTHORITY IDENTITY TOKEN ATTACHMENT_ID; an empty identity shows no certificate, an empty token sends none."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / ".env" / "stubs"))

import grpc
from attachments.v2 import attachments_pb2 as pb
from attachments.v2 import attachments_pb2_grpc as rpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

address, authority, identity, token, attachment = sys.argv[1:]


def messages():
    yield pb.UploadAttachmentRequest(header=pb.UploadHeader(client_id=42, attachment_id=int(attachment), filename="a"))
    yield pb.UploadAttachmentRequest(chunk=b"some bytes")
    yield pb.UploadAttachmentRequest(finish=pb.UploadFinish())


credentials = grpc.ssl_channel_credentials(
    Path(authority).read_bytes(),
    Path(identity + ".key").read_bytes() if identity else None,
    Path(identity + ".pem").read_bytes() if identity else None,
)
metadata = [("authorization", f"Bearer {token}")] if token else []
with grpc.secure_channel(address, credentials) as channel:
    try:
        stored = rpc.AttachmentServiceStub(channel).UploadAttachment(messages(), metadata=metadata, timeout=20)
        print(stored.attachment.uploaded_by)
    except grpc.RpcError as error:
        info = error_details_pb2.ErrorInfo()
        status = rpc_status.from_call(error)
        for detail in status.details if status else ():
            detail.Unpack(info)
        print(error.code().name, info.reason or "none")
