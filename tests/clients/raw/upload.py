"""The documented raw HTTP sample, as bytes on a socket, framed by hand. See ../README.md for what goes in and out."""

import http.client
import json
import os
import socket
import sys
from urllib.parse import urlsplit

env = os.environ
base = urlsplit(env["BASE_URL"])
path = f"/api/v2/clients/{env['CLIENT_ID']}/attachments/{env['ATTACHMENT_ID']}"
host = f"Host: {base.netloc}\r\n"
token = f"Authorization: Bearer {env['TOKEN']}\r\n"
sample = f"POST {path} HTTP/1.1\r\nContent-Type: multipart/form-data%s\r\nAccept: application/json\r\n"


def answer(connection, request):
    """Sends a request, reads the answer and prints it."""
    connection.sendall(request)
    response = http.client.HTTPResponse(connection, method="POST")
    response.begin()
    print(json.dumps({"status": response.status, "body": json.loads(response.read())}))
    return response


def upload():
    boundary = "----attachd-raw-client-7d1f0b"
    with open(env["FILE"], "rb") as file:
        content = file.read()
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{os.path.basename(env["FILE"])}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + content
        + f"\r\n--{boundary}--\r\n".encode()
    )
    head = sample % f"; boundary={boundary}" + host + token + f"Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


with socket.create_connection((base.hostname, base.port), timeout=50) as connection:
    if env["MODE"] == "literal":  # the sample sends no token
        answer(connection, (sample % "" + host + "\r\n").encode())
    else:
        if env["MODE"] == "documented":
            if answer(connection, (sample % "" + host + token + "\r\n").encode()).will_close:
                sys.exit("there was no body, and still the server wants to close the connection")
        answer(connection, upload())
