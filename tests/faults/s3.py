"""A small S3 client (AWS Signature Version 4): it shares no code with snapdeck."""

import datetime
import hashlib
import hmac
import http.client
import xml.etree.ElementTree as ElementTree
from urllib.parse import quote, urlsplit

from lab import BUCKET, KEY, SECRET, STORE, HarnessError

REGION = "us-east-1"


def sign(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def request(method, key="", query=(), body=b"", headers=()):
    """Sends a request to the lab's bucket; returns (status, headers, body)."""
    host, path = urlsplit(STORE).netloc, quote(f"/{BUCKET}/{key}" if key else f"/{BUCKET}")
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(dict(query).items()))
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    signed = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": now, **dict(headers)}
    names = ";".join(sorted(signed))
    lines = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
    canonical = "\n".join([method, path, query, lines, names, digest])
    scope = f"{now[:8]}/{REGION}/s3/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    secret = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        secret = sign(secret, part)
    signature = sign(secret, to_sign).hex()
    signed["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    connection = http.client.HTTPConnection(host, timeout=60)
    try:
        connection.request(method, f"{path}?{query}" if query else path, body or None, signed)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def expect(statuses, method, *args, **options):
    status, headers, body = request(method, *args, **options)
    if status not in statuses:
        raise HarnessError(f"{method} {args}: status {status} {body[:300]!r}")
    return headers, body


def put(key, body, metadata=()):
    """Uploads an object; returns its entity tag."""
    return expect([200], "PUT", key, body=body, headers=metadata)[0]["etag"].strip('"')


def get(key):
    """Returns (entity tag, body), or None without such an object."""
    status, headers, body = request("GET", key)
    if status == 404:
        return None
    if status != 200:
        raise HarnessError(f"GET {key}: status {status} {body[:300]!r}")
    return headers["etag"].strip('"'), body


def delete(key):
    expect([200, 204, 404], "DELETE", key)


def elements(body, name):
    return [element for element in ElementTree.fromstring(body).iter() if element.tag.rsplit("}", 1)[-1] == name]


def child_text(element, name):
    return next((child.text or "" for child in element if child.tag.rsplit("}", 1)[-1] == name), "")


def keys(prefix):
    """Returns the keys below a prefix; there are less than 1000."""
    body = expect([200], "GET", query={"list-type": "2", "prefix": prefix})[1]
    return sorted(child_text(element, "Key") for element in elements(body, "Contents"))


def uploads(prefix):
    """Returns [(key, id)] of the unfinished multipart uploads below a prefix."""
    body = expect([200], "GET", query={"uploads": "", "prefix": prefix})[1]
    found = [(child_text(element, "Key"), child_text(element, "UploadId")) for element in elements(body, "Upload")]
    return sorted(upload for upload in found if upload[0].startswith(prefix))


def begin_upload(key, part):
    """Begins a multipart upload and uploads its first part; returns its id."""
    body = expect([200], "POST", key, query={"uploads": ""})[1]
    upload = elements(body, "UploadId")[0].text
    expect([200], "PUT", key, query={"partNumber": "1", "uploadId": upload}, body=part)
    return upload


def upload_exists(key, upload):
    """Returns whether an upload still has its part."""
    status, _, body = request("GET", key, query={"uploadId": upload})
    return status == 200 and bool(elements(body, "Part"))


def abort(key, upload):
    request("DELETE", key, query={"uploadId": upload})


def remove_all(prefix):
    """Removes everything below a prefix."""
    for key, upload in uploads(prefix):
        abort(key, upload)
    for key in keys(prefix):
        delete(key)
