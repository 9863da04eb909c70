#!/usr/bin/env python3
"""An S3 store for the benchmarks in which an object is a list of file ranges, so that copying a part costs nothing. It does
not check credentials.

    range-store.py DIRECTORY [discard] [--address ADDRESS]   prints its port, serves 127.0.0.1 or ADDRESS until it is killed

With "discard" uploaded parts are not stored. GET /sent returns the number of object bytes sent, GET /received that of the
bytes of uploaded objects and parts, GET /requests that of the other requests.
"""

import bisect
import itertools
import os
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

ROOT, DISCARDS = sys.argv[1], "discard" in sys.argv[2:]
ADDRESS = sys.argv[-1] if "--address" in sys.argv else "127.0.0.1"
CHUNK_BYTES = 1 << 20
numbers, lock = itertools.count(1), threading.Lock()
# KEY -> Content; ID -> {NUMBER: Content}
objects, uploads = {}, {}
sent, received, requests = 0, 0, 0


class Content:
    """Ordered extents (file, offset, length)."""

    def __init__(self, extents):
        self.extents = []
        for file, offset, length in extents:
            if self.extents:
                last_file, last_offset, last_length = self.extents[-1]
                if (file, offset) == (last_file, last_offset + last_length):
                    self.extents[-1] = (file, last_offset, last_length + length)
                    continue
            self.extents.append((file, offset, length))
        self.ends = list(itertools.accumulate(length for _, _, length in self.extents))
        self.size = self.ends[-1] if self.ends else 0
        # Not the form of a checksum.
        self.tag = f'"{next(numbers):032x}-1"'

    def slice(self, start, length):
        extents = []
        index = bisect.bisect_right(self.ends, start)
        while length > 0 and index < len(self.extents):
            file, offset, size = self.extents[index]
            skipped = start - (self.ends[index] - size)
            count = min(size - skipped, length)
            extents.append((file, offset + skipped, count))
            start, length, index = start + count, length - count, index + 1
        return extents


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    rbufsize = CHUNK_BYTES
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def parse(self):
        global requests
        url = urlsplit(self.path)
        if url.path not in ("/sent", "/received", "/requests"):
            with lock:
                requests += 1
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        return unquote(url.path).lstrip("/"), query

    def respond(self, status, body="", **headers):
        body = body.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def fail(self, status, code):
        self.respond(status, f"<Error><Code>{code}</Code></Error>", Content_Type="application/xml")

    def store_body(self, discard=False):
        """Writes the body of the request to a file; decodes aws-chunked bodies."""
        global received
        path = "/dev/null" if discard else os.path.join(ROOT, str(next(numbers)))
        with open(path, "wb", buffering=0) as file:
            if "aws-chunked" in self.headers.get("Content-Encoding", "") or self.headers.get(
                "x-amz-content-sha256", ""
            ).startswith("STREAMING"):
                size = self.copy_chunks(file)
            else:
                size = int(self.headers.get("Content-Length", 0))
                self.copy_body(file, size)
        with lock:
            received += size
        return [(path, 0, size)]

    def copy_body(self, file, size):
        while size > 0:
            bytes_ = self.rfile.read(min(size, CHUNK_BYTES))
            if not bytes_:
                raise ConnectionError
            file.write(bytes_)
            size -= len(bytes_)

    def copy_chunks(self, file):
        total = 0
        while True:
            size = int(self.rfile.readline().split(b";")[0].strip() or b"0", 16)
            if size == 0:
                break
            self.copy_body(file, size)
            total += size
            self.rfile.readline()
        # Trailers end with an empty line.
        while self.rfile.readline().strip():
            pass
        return total

    def do_PUT(self):
        key, query = self.parse()
        if "uploadId" in query:
            return self.put_part(query)
        extents = self.store_body()
        if "/" in key:
            objects[key] = Content(extents)
            return self.respond(200, ETag=objects[key].tag)
        return self.respond(200)

    def put_part(self, query):
        upload, number = uploads.get(query["uploadId"]), int(query["partNumber"])
        source = self.headers.get("x-amz-copy-source")
        part = None
        if source:
            first, last = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["x-amz-copy-source-range"]).groups()
            content = objects.get(unquote(source).lstrip("/"))
            if content is None:
                return self.fail(404, "NoSuchKey")
            if self.headers.get("x-amz-copy-source-if-match", content.tag) != content.tag:
                return self.fail(412, "PreconditionFailed")
            part = Content(content.slice(int(first), int(last) - int(first) + 1))
        else:
            part = Content(self.store_body(DISCARDS))
        if upload is None:
            return self.fail(404, "NoSuchUpload")
        upload[number] = part
        if source:
            return self.respond(200, f"<CopyPartResult><ETag>{escape(part.tag)}</ETag></CopyPartResult>")
        return self.respond(200, ETag=part.tag)

    def do_POST(self):
        key, query = self.parse()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "uploads" in query:
            upload = f"{next(numbers):016x}"
            uploads[upload] = {}
            return self.respond(
                200,
                f"<InitiateMultipartUploadResult><Bucket>lab</Bucket><Key>{escape(key)}</Key>"
                f"<UploadId>{upload}</UploadId></InitiateMultipartUploadResult>",
            )
        parts = uploads.pop(query.get("uploadId"), None)
        if parts is None:
            return self.fail(404, "NoSuchUpload")
        with lock:
            objects[key] = Content([extent for number in sorted(parts) for extent in parts[number].extents])
        tag = escape(objects[key].tag)
        return self.respond(
            200, f"<CompleteMultipartUploadResult><Key>{escape(key)}</Key><ETag>{tag}</ETag>"
            "</CompleteMultipartUploadResult>"
        )

    def do_DELETE(self):
        key, query = self.parse()
        uploads.pop(query.get("uploadId"), None) if "uploadId" in query else objects.pop(key, None)
        self.respond(204)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        global sent
        key, query = self.parse()
        if key in ("sent", "received", "requests"):
            return self.respond(200, str({"sent": sent, "received": received, "requests": requests}[key]))
        if "uploadId" in query:
            return self.fail(404, "NoSuchUpload")
        if "/" not in key.rstrip("/"):
            return self.respond(200, "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
        content = objects.get(key)
        if content is None:
            return self.fail(404, "NoSuchKey")
        start, end, status = 0, content.size, 200
        headers = {"ETag": content.tag, "Accept_Ranges": "bytes", "Last_Modified": "Wed, 01 Jan 2025 00:00:00 GMT"}
        requested = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if requested:
            start, end, status = int(requested[1]), min(content.size, int(requested[2] or content.size - 1) + 1), 206
            headers["Content_Range"] = f"bytes {start}-{end - 1}/{content.size}"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if self.command == "HEAD":
            return None
        for path, offset, length in content.slice(start, end - start):
            with open(path, "rb") as file:
                while length > 0:
                    count = os.sendfile(self.connection.fileno(), file.fileno(), offset, length)
                    offset, length = offset + count, length - count
                    with lock:
                        sent += count
        return None


server = ThreadingHTTPServer((ADDRESS, 0), Handler)
server.daemon_threads = True
print(server.server_port, flush=True)
server.serve_forever()
