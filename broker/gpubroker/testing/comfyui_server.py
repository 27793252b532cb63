"""A tiny ComfyUI: the part of its HTTP API that `gpubroker.integrations.comfyui` uses.

It needs nothing but Python, and is one file, so that it can be sent to a machine and started
there::

    python3 comfyui_server.py --port 8188 --seconds 2

Its pictures are small real PNGs, made of all that goes into them: the uploaded image, the texts,
the seed. The same inputs make the same picture. A text input tells it to fail: ``!refuse``,
``!error``, ``!oom``, ``!interrupt``, ``!crash``, ``!nothing``, ``!truncated``, ``!hostile``,
``!text`` and ``!forget``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import struct
import sys
import threading
import time
import uuid
import zlib
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

_MAX_BODY = 128 * 1024 * 1024
_SIDE = 192
_PICTURE_NODES = ("SaveImage", "PreviewImage")


class Server:
    """The queue, and the one thread that works on it.

    Args:
        seconds: what a picture takes.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.uploads: dict[str, bytes] = {}
        self.pictures: dict[str, bytes] = {}
        self.history: dict[str, dict[str, Any]] = {}
        self.waiting: list[list[Any]] = []
        self.running: list[list[Any]] = []
        self._number = 0
        self._news = threading.Condition()
        self._interrupted = threading.Event()

    def submit(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Queue a workflow, or say what is wrong with it."""
        prompt: dict[str, Any] = body.get("prompt") or {}
        if not prompt:
            return 400, {"error": {"type": "no_prompt", "message": "No prompt provided"}}
        errors = _node_errors(prompt, self.uploads)
        if errors or not any(node["class_type"] in _PICTURE_NODES for node in prompt.values()):
            kind = "prompt_outputs_failed_validation" if errors else "prompt_no_outputs"
            message = kind.replace("_", " ").capitalize()
            error = {"type": kind, "message": message, "details": ""}
            return 400, {"error": error, "node_errors": errors}
        with self._news:
            self._number += 1
            name = str(uuid.uuid4())
            extra = {"client_id": body.get("client_id", "")}
            self.waiting.append([self._number, name, prompt, extra, []])
            self._news.notify_all()
        print(f"got prompt {name}", flush=True)
        return 200, {"prompt_id": name, "number": self._number, "node_errors": {}}

    def delete(self, names: list[str]) -> None:
        """Take workflows out of the queue that have not begun."""
        with self._news:
            self.waiting = [entry for entry in self.waiting if entry[1] not in names]

    def interrupt(self) -> None:
        """End the workflow that runs."""
        self._interrupted.set()

    def work(self) -> None:
        """Run workflows one after the other, for ever."""
        while True:
            with self._news:
                while not self.waiting:
                    self._news.wait()
                entry = self.waiting.pop(0)
                self.running = [entry]
                self._interrupted.clear()
            name, prompt = entry[1], entry[2]
            told = _told(prompt)
            began = time.monotonic()
            result = self._result(name, prompt, told)
            print(f"prompt executed in {time.monotonic() - began:.2f} s", flush=True)
            with self._news:
                if told != "!forget":
                    self.history[name] = {"prompt": entry, **result}
                self.running = []

    def _result(self, name: str, prompt: dict[str, Any], told: str) -> dict[str, Any]:
        node = next(key for key, one in prompt.items() if one["class_type"] in _PICTURE_NODES)
        if told == "!crash":
            print("CUDA error: an illegal memory access was encountered", file=sys.stderr)
            sys.stderr.flush()
            os._exit(1)
        if self._interrupted.wait(self.seconds) or told == "!interrupt":
            return _failed("execution_interrupted", {"node_id": node, "executed": []})
        if told in ("!error", "!oom"):
            kind = "torch.OutOfMemoryError" if told == "!oom" else "ValueError"
            words = "Allocation on device" if told == "!oom" else "the model file is damaged"
            error = {"node_id": node, "exception_type": kind, "exception_message": words}
            return _failed("execution_error", {**error, "traceback": []})
        pictures = [] if told == "!nothing" else [self._save(name, prompt, told, node)]
        outputs = {node: {"images": pictures}}
        return {"outputs": outputs, "status": {"status_str": "success", "completed": True}}

    def _save(self, name: str, prompt: dict[str, Any], told: str, node: str) -> dict[str, str]:
        data = picture(_essence(prompt, self.uploads))
        if told == "!truncated":
            data = data[: len(data) // 2]
        if told == "!text":
            data = b"<script>alert(1)</script>"
        prefix = str(prompt[node]["inputs"].get("filename_prefix", "ComfyUI"))
        filename = "../../etc/passwd" if told == "!hostile" else f"{prefix}_{name[:8]}_.png"
        self.pictures[filename] = data
        return {"filename": filename, "subfolder": "", "type": "output"}


def picture(essence: bytes) -> bytes:
    """A small PNG whose colours and pattern come from `essence`."""
    digest = hashlib.sha256(essence).digest()
    first, second, turn = digest[0:3], digest[3:6], digest[6] % 5 + 1
    shades = [
        bytes(round(a + (b - a) * step / _SIDE) for a, b in zip(first, second, strict=True))
        for step in range(_SIDE)
    ]
    rows = b"".join(
        b"\0" + b"".join(shades[(x * turn + y * (6 - turn)) % _SIDE] for x in range(_SIDE))
        for y in range(_SIDE)
    )
    head = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _essence(prompt: dict[str, Any], uploads: dict[str, bytes]) -> bytes:
    """All that makes a picture what it is."""
    images = [
        uploads.get(str(node["inputs"].get("image")), b"")
        for node in prompt.values()
        if node["class_type"] == "LoadImage"
    ]
    return json.dumps([node["inputs"] for node in prompt.values()]).encode() + b"".join(images)


def _told(prompt: dict[str, Any]) -> str:
    """The first text input that tells this server to fail."""
    texts = [text for node in prompt.values() for text in node["inputs"].values()]
    return next((t for t in texts if isinstance(t, str) and t.startswith("!")), "")


def _node_errors(prompt: dict[str, Any], uploads: dict[str, bytes]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, node in prompt.items():
        problem = ""
        image = node["inputs"].get("image")
        if node["class_type"] == "LoadImage" and image not in uploads:
            problem = f"image - Invalid image file: {image}"
        elif "!refuse" in node["inputs"].values():
            problem = "ckpt_name: 'none.safetensors' not in []"
        if problem:
            error = {"type": "value_not_in_list", "message": "Value not in list"}
            errors = [{**error, "details": problem}]
            found[name] = {"errors": errors, "class_type": node["class_type"]}
    return found


def _failed(what: str, message: dict[str, Any]) -> dict[str, Any]:
    status = {"status_str": "error", "completed": False, "messages": [[what, message]]}
    return {"outputs": {}, "status": status}


class Handler(BaseHTTPRequestHandler):
    """The API of one `Server`."""

    server_version = "tiny-comfyui"
    protocol_version = "HTTP/1.1"
    served: Server

    def do_GET(self) -> None:
        """Answer what is asked for."""
        url = urlsplit(self.path)
        if url.path == "/system_stats":
            device = {"name": "cpu", "type": "cpu", "index": 0}
            self._json(200, {"system": {"comfyui_version": "tiny"}, "devices": [device]})
        elif url.path == "/queue":
            served = self.served
            self._json(200, {"queue_running": served.running, "queue_pending": served.waiting})
        elif url.path.startswith("/history/"):
            name = url.path.removeprefix("/history/")
            entry = self.served.history.get(name)
            self._json(200, {} if entry is None else {name: entry})
        elif url.path == "/view":
            data = self.served.pictures.get(parse_qs(url.query).get("filename", [""])[0])
            self._send(404 if data is None else 200, data or b"", "image/png")
        else:
            self._send(404, b"", "text/plain")

    def do_POST(self) -> None:
        """Do what is asked for."""
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(min(length, _MAX_BODY))
        path = urlsplit(self.path).path
        if path == "/upload/image":
            self._upload(body)
        elif path == "/prompt":
            self._json(*self.served.submit(json.loads(body)))
        elif path == "/queue":
            self.served.delete(json.loads(body).get("delete", []))
            self._send(200, b"", "text/plain")
        elif path == "/interrupt":
            self.served.interrupt()
            self._send(200, b"", "text/plain")
        else:
            self._send(404, b"", "text/plain")

    def _upload(self, body: bytes) -> None:
        kind = self.headers.get("Content-Type", "").encode()
        form = BytesParser().parsebytes(b"Content-Type: " + kind + b"\r\n\r\n" + body)
        for part in form.get_payload() if form.is_multipart() else []:
            name = part.get_filename()  # type: ignore[union-attr]
            if name:
                self.served.uploads[name] = part.get_payload(decode=True)  # type: ignore
                self._json(200, {"name": name, "subfolder": "", "type": "input"})
                return
        self._send(400, b"", "text/plain")

    def _json(self, status: int, answer: dict[str, Any]) -> None:
        self._send(status, json.dumps(answer).encode(), "application/json")

    def _send(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Say nothing of single requests."""


def serve(port: int, seconds: float) -> ThreadingHTTPServer:
    """A server that listens on a port of 127.0.0.1 (0: any) and works on its queue."""
    served = Server(seconds)
    handler = type("BoundHandler", (Handler,), {"served": served})
    http = ThreadingHTTPServer(("127.0.0.1", port), handler)
    http.daemon_threads = True
    threading.Thread(target=served.work, daemon=True).start()
    return http


def main() -> None:
    """Serve for ever."""
    parser = argparse.ArgumentParser(description="a tiny ComfyUI")
    parser.add_argument("--port", type=int, default=8188)
    parser.add_argument("--seconds", type=float, default=1.0, help="what a picture takes")
    options = parser.parse_args()
    with serve(options.port, options.seconds) as http:
        print(f"To see the GUI go to: http://127.0.0.1:{http.server_address[1]}", flush=True)
        http.serve_forever()


if __name__ == "__main__":
    main()
