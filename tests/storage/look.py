"""Looks into a storage as any other client would: boto3 for S3, Azure's own library, plain HTTP for GCS, the file system.

Reads one question a line from standard input and answers each with one line of JSON. The first argument is the kind of
storage, the second its address, the third the bucket."""

import hashlib
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request


class S3:
    def __init__(self, endpoint, bucket):
        import boto3
        from botocore.config import Config

        self.bucket = bucket
        self.client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=os.environ["ATTACHD_TEST_ACCESS_KEY"],
            aws_secret_access_key=os.environ["ATTACHD_TEST_SECRET_KEY"],
            config=Config(s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=60, retries={"max_attempts": 8}),
        )

    def make(self):
        self.client.create_bucket(Bucket=self.bucket)

    def keep_versions(self):
        self.client.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})

    def list(self, prefix):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [[entry["Key"], entry["Size"]] for page in pages for entry in page.get("Contents", [])]

    def get(self, key):
        try:
            return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].iter_chunks(1 << 20)
        except self.client.exceptions.NoSuchKey:
            return None

    def put(self, key, text):
        self.client.put_object(Bucket=self.bucket, Key=key, Body=text.encode())

    def uploads(self, prefix):
        pages = self.client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=prefix)
        return [upload["Key"] for page in pages for upload in page.get("Uploads", [])]


class Azblob:
    def __init__(self, endpoint, bucket):
        from azure.storage.blob import BlobServiceClient

        account = {
            "account_name": os.environ["ATTACHD_TEST_ACCESS_KEY"],
            "account_key": os.environ["ATTACHD_TEST_SECRET_KEY"],
        }
        self.container = BlobServiceClient(endpoint, credential=account).get_container_client(bucket)

    def make(self):
        self.container.create_container()

    def list(self, prefix):
        return [[blob.name, blob.size] for blob in self.container.list_blobs(name_starts_with=prefix)]

    def get(self, key):
        from azure.core.exceptions import ResourceNotFoundError

        try:
            return self.container.download_blob(key).chunks()
        except ResourceNotFoundError:
            return None

    def put(self, key, text):
        self.container.upload_blob(key, text.encode())

    def uploads(self, prefix):
        # Blocks that belong to no blob are seen as a blob that is not committed. Azure drops them after a week.
        return []


class Gcs:
    def __init__(self, endpoint, bucket):
        self.endpoint, self.bucket = endpoint, bucket

    def ask(self, method, path, body=None, **query):
        url = f"{self.endpoint}{path}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(url, method=method, data=body, headers={"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.read()

    def make(self):
        self.ask("POST", "/storage/v1/b", json.dumps({"name": self.bucket}).encode(), project="test")

    def list(self, prefix):
        found, token = [], {}
        while True:
            page = json.loads(self.ask("GET", f"/storage/v1/b/{self.bucket}/o", prefix=prefix, **token))
            found += [[entry["name"], int(entry["size"])] for entry in page.get("items", [])]
            if "nextPageToken" not in page:
                return found
            token = {"pageToken": page["nextPageToken"]}

    def get(self, key):
        try:
            path = f"/storage/v1/b/{self.bucket}/o/{urllib.parse.quote(key, safe='')}"
            return [self.ask("GET", path, alt="media")]
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def put(self, key, text):
        self.ask("POST", f"/upload/storage/v1/b/{self.bucket}/o", text.encode(), uploadType="media", name=key)

    def uploads(self, prefix):
        return []


class Fs:
    def __init__(self, root, bucket):
        self.root = os.path.join(root, bucket)

    def make(self):
        os.makedirs(self.root)

    def list(self, prefix):
        found = []
        for folder, _, names in os.walk(os.path.join(self.root, prefix)):
            for name in names:
                path = os.path.join(folder, name)
                found.append([os.path.relpath(path, self.root), os.path.getsize(path)])
        return [entry for entry in found if "/.attachd-" not in f"/{entry[0]}"]

    def get(self, key):
        try:
            with open(os.path.join(self.root, key), "rb") as file:
                return [file.read()]
        except FileNotFoundError:
            return None

    def put(self, key, text):
        path = os.path.join(self.root, key)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)

    def uploads(self, prefix):
        return []


def answer(storage, question):
    what = question["do"]
    if what == "make":
        return storage.make()
    if what == "keep versions":
        return storage.keep_versions()
    if what == "list":
        return storage.list(question["prefix"])
    if what == "uploads":
        return storage.uploads(question["prefix"])
    if what == "put":
        return storage.put(question["key"], question["text"])
    chunks = storage.get(question["key"])
    if chunks is None:
        return None
    size, digest, text = 0, hashlib.sha256(), b""
    for chunk in chunks:
        size += len(chunk)
        digest.update(chunk)
        if question.get("text"):
            text += chunk
    return {"size": size, "sha256": digest.hexdigest(), "text": text.decode("latin-1")}


def main():
    kind, address, bucket = sys.argv[1:]
    storage = {"s3": S3, "azblob": Azblob, "gcs": Gcs, "fs": Fs}[kind](address, bucket)
    for line in sys.stdin:
        try:
            said = {"ok": answer(storage, json.loads(line))}
        except Exception as error:  # The test is told, whatever it is.
            said = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(said), flush=True)


main()
