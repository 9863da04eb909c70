"""A proxy in front of the store, and the faults that it makes."""

import http.client
import random
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from attacks import Attack, wait_for
from lab import STORE

ERRORS = {
    "500": (500, "InternalError"),
    "503": (503, "ServiceUnavailable"),
    "SlowDown": (503, "SlowDown"),
}
# After this time the store works again, even if the command has not ended.
LONGEST = 40


def error_body(code):
    return f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>made by the proxy</Message></Error>'.encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def serve(self):
        proxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = proxy.choose(self)
        if fault in ERRORS:
            status, code = ERRORS[fault]
            return self.respond(status, [("Content-Type", "application/xml")], error_body(code))
        if fault == "reset" or fault == "drop before":
            return self.reset()
        if fault == "stall" or fault == "stall then lose":
            proxy.stall()
            if fault == "stall then lose":
                return self.reset()
        if fault == "error body":
            return self.respond(200, [("Content-Type", "application/xml")], error_body("InternalError"))
        upstream = http.client.HTTPConnection(urlsplit(STORE).netloc, timeout=60)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    upstream.putheader(name, value)
            upstream.endheaders(body or None)
            response = upstream.getresponse()
            headers, answer = response.getheaders(), response.read()
        finally:
            upstream.close()
        if fault == "drop after" or fault == "reset after":
            return self.reset()
        if fault == "late error body":
            return self.respond(200, [("Content-Type", "application/xml")], error_body("InternalError"))
        return self.answer(response.status, headers, answer, fault)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = serve

    def answer(self, status, headers, body, fault):
        if fault == "flip" and body:
            body = bytearray(body)
            for _ in range(random.randint(1, 3)):
                body[random.randrange(len(body))] ^= 1 << random.randrange(8)
        if fault == "lost tag":
            headers = [header for header in headers if header[0].lower() != "etag"]
            body = body.replace(b"ETag>", b"Gone>")
        if fault == "truncate" and body:
            return self.respond(status, headers, body, cut=len(body) // random.randint(1, 4) - 1)
        if fault == "wrong length":
            length = dict((name.lower(), value) for name, value in headers).get("content-length")
            if self.command == "HEAD" and length:
                return self.respond(status, headers, b"", length=max(0, int(length) + random.choice([-65536, -1, 1, 65536])))
            # A body that is shorter or longer than that of the object, with a length that agrees.
            cut = random.choice([1, 512, 65536])
            body = body[:-cut] if random.random() < 0.5 else body + bytes(cut)
        return self.respond(status, headers, body)

    def respond(self, status, headers, body, length=None, cut=None):
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        if self.command == "HEAD" and length is None:
            length = next((value for name, value in headers if name.lower() == "content-length"), 0)
        if status != 204:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if cut is None else body[:max(0, cut)])
        if cut is not None:
            self.close_connection = True

    def reset(self):
        """Ends the connection with RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """snapdeck was killed or the proxy has reset the connection."""


class Proxy:
    def __init__(self):
        self.lock = threading.Lock()
        self.kind, self.share, self.chance, self.made = None, 0, random.Random(), []
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.proxy = self
        self.works = threading.Event()
        self.works.set()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def begin(self, kind, share, chance):
        with self.lock:
            self.kind, self.share, self.chance, self.made = kind, share, chance, []
        self.works.clear()

    def end(self):
        with self.lock:
            self.kind = None
        self.works.set()

    def stall(self):
        self.works.wait(LONGEST)

    def choose(self, request):
        """Returns the fault of a request, or None."""
        with self.lock:
            if self.kind is None or self.chance.random() >= self.share:
                return None
            fault = FAULTS[self.kind](request, self.chance)
            if fault:
                self.made.append(f"{fault}: {request.command} {request.path[:80]}")
            return fault

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def is_object(request):
    return request.command == "GET" and "." in request.path.rsplit("/", 1)[-1].split("?")[0]


def is_completion(request):
    is_complete = request.command == "POST" and "uploadId=" in request.path
    return is_complete or (request.command == "PUT" and "x-amz-copy-source" in request.headers)


# Name -> which fault a request gets.
FAULTS = {
    "500": lambda request, chance: "500",
    "503": lambda request, chance: "503",
    "SlowDown": lambda request, chance: "SlowDown",
    "resets": lambda request, chance: chance.choice(["reset", "reset after"]),
    "stalls": lambda request, chance: chance.choice(["stall", "stall then lose"]),
    "truncation": lambda request, chance: "truncate" if request.command == "GET" else None,
    "flipped bits": lambda request, chance: "flip" if is_object(request) else None,
    "wrong lengths": lambda request, chance: "wrong length" if is_object(request) or request.command == "HEAD" else None,
    "200 with an error": lambda request, chance: (
        chance.choice(["error body", "late error body"]) if is_completion(request) else None
    ),
    "lost answers": lambda request, chance: "reset after" if request.command in ("POST", "PUT", "DELETE") else None,
    "lost tags": lambda request, chance: "lost tag",
    "5 % dropped": lambda request, chance: chance.choice(["drop before", "drop after"]),
}


class StoreFault(Attack):
    """Requests fail for a while, or until the command ends."""

    # A request that ends an upload may be among those that fail.
    leaves_documented = True

    def __init__(self, kind, share=1.0, outage=None, must_succeed=False):
        # `outage` in seconds, as a range.
        self.kind, self.share, self.outage, self.must_succeed = kind, share, outage, must_succeed

    def install(self, world):
        world.proxy = Proxy()
        world.endpoint = world.proxy.url

    def uninstall(self, world):
        world.proxy.stop()

    def disturb(self, world, child, moment, chance, log):
        # A fault that lasts is there from the start.
        wait_for(child, moment if self.outage else 0)
        proxy = world.proxy
        proxy.begin(self.kind, self.share, chance)
        wait_for(child, chance.uniform(*self.outage) if self.outage else LONGEST)
        proxy.end()
        log.append(f"{len(proxy.made)} requests: {'; '.join(proxy.made[:12])}")

    def heal(self, world):
        world.proxy.end()
