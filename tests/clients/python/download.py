"""Downloads an attachment with requests. See ../README.md for what goes in and out."""

import json
import os

import requests

env = os.environ
url = f"{env['BASE_URL']}/api/v2/clients/{env['CLIENT_ID']}/attachments/{env['ATTACHMENT_ID']}/content"
headers = {"Authorization": f"Bearer {env['TOKEN']}"}
if env["MODE"] == "rest":
    headers["Range"] = f"bytes={os.path.getsize(env['OUT'])}-"
    headers["If-Range"] = env["ETAG"]

with requests.get(url, headers=headers, stream=True) as r:
    if r.ok:
        # 206 is the rest; 200 is all of it, since the content has changed meanwhile.
        with open(env["OUT"], "ab" if r.status_code == 206 else "wb") as file:
            for chunk in r.iter_content(64 << 10):
                file.write(chunk)
    print(json.dumps({"status": r.status_code}))
