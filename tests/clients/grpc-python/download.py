"""Downloads an attachment over gRPC. See ../README.md for what goes in and out."""

import hashlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".env" / "stubs"))

import grpc
from attachments.v2 import attachments_pb2 as pb
from attachments.v2 import attachments_pb2_grpc as rpc

env = os.environ
out = Path(env["OUT"])
request = pb.DownloadAttachmentRequest(client_id=int(env["CLIENT_ID"]), attachment_id=int(env["ATTACHMENT_ID"]))
if env["MODE"] == "rest":
    request.offset = out.stat().st_size
    request.if_match = env["ETAG"]

with grpc.insecure_channel(env["GRPC_ADDR"]) as channel:
    metadata = [("authorization", f"Bearer {env['TOKEN']}")]
    try:
        messages = rpc.AttachmentServiceStub(channel).DownloadAttachment(request, metadata=metadata, timeout=50)
        header = next(messages).header
        with out.open("ab" if request.offset else "wb") as file:
            for message in messages:
                file.write(message.chunk)
        assert hashlib.sha256(out.read_bytes()).digest() == header.attachment.sha256
        print(json.dumps({"ok": True, "length": header.length}))
    except grpc.RpcError as error:
        print(json.dumps({"ok": False, "code": error.code().name}))
