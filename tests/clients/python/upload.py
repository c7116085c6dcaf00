"""The documented sample for Python, completed. See ../README.md for what goes in and out."""

import json
import os

import requests

env = os.environ
url = f"{env['BASE_URL']}/api/v2/clients/{env['CLIENT_ID']}/attachments/{env['ATTACHMENT_ID']}"
headers = {
    "Accept": "application/json",
    "Authorization": f"Bearer {env['TOKEN']}",
}
session = requests.Session()  # keeps the connection


def send(headers, files=None):
    r = session.post(url, headers=headers, files=files)
    print(json.dumps({"status": r.status_code, "body": r.json()}))


if env["MODE"] == "documented":
    send({"Content-Type": "multipart/form-data", **headers})
with open(env["FILE"], "rb") as file:
    send(headers, {"file": file})
