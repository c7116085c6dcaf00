"""Uploads through the client that openapi-python-client generates. ../README.md says what goes in and out."""

import base64
import hashlib
import json
import os
from pathlib import Path

from attachd_client import AuthenticatedClient
from attachd_client.api.attachments import upload_attachment
from attachd_client.models import ErrorResponse, SuccessResponse, UploadAttachmentBody
from attachd_client.types import UNSET, File

path = Path(os.environ["FILE"])
digest = base64.b64encode(hashlib.sha256(path.read_bytes()).digest()).decode()
client = AuthenticatedClient(base_url=os.environ["BASE_URL"], token=os.environ["TOKEN"], raise_on_unexpected_status=True)
with path.open("rb") as content:
    response = upload_attachment.sync_detailed(
        int(os.environ["CLIENT_ID"]),
        int(os.environ["ATTACHMENT_ID"]),
        client=client,
        body=UploadAttachmentBody(file=File(payload=content, file_name=path.name)),
        if_none_match="*" if os.environ["MODE"] == "if-absent" else UNSET,
        repr_digest=f"sha-256=:{digest}:",
    )
assert isinstance(response.parsed, (SuccessResponse, ErrorResponse))
print(json.dumps({"status": response.status_code, "body": response.parsed.to_dict()}))
