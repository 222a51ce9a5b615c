"""Valid HTTP answers made invalid: the same seed makes the same answer."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

HTML = b"<!DOCTYPE html><html><head><title>Manteniment</title></head><body>En manteniment</body></html>"
_MARK = "\ue000"
"""Stands for a text that no JSON library writes."""
ODD_TEXTS = [
    "1" * 5000, "-1", "1e400", "NaN", "Infinity", "1.5", "01", "true", "null", "{}", "[]", '"\\ud800"', '"\\u0000"',
    '".."', '"2020p"', '"2019.0"', '""', '"' + "x" * 70_000 + '"', "[" * 3000 + "]" * 3000, "9223372036854775808",
    '{"a":' * 3000 + "1" + "}" * 3000, "9" * 25, '"\\u202e\\u2028"', '"1.000"', '["a",{"b":[1,2]}]', '"9999-12-31"', "1e308",
]  # fmt: skip
ODD_HEADERS = [
    b"X-Odd: caf\xe9\xff", b"ETag: \"\xe9\xff\"", b"Last-Modified: Tue, 99 Foo 99999 00:00:00 +9999", b"Content-Length: -1",
    b"Content-Length: 5, 6", b"Content-Length: 99999999999999999999", b"Content-Length: abc", b"Content-Length: \xb2",
    b"Content-Encoding: gzip", b"Content-Encoding: br, deflate", b"Transfer-Encoding: chunked", b"no colon at all",
    b"Set-Cookie: \xc5\xb5=\xc5\xb5; Max-Age=99999999999999999999; Expires=never", b"Location: http://[::1", b": empty",
    b"Content-Type: text/html; charset=\xff", b"X-Catalunya-Demo: \xff", b"Retry-After: " + b"9" * 5000,
    b"\r\n".join(b"X-%d: 1" % number for number in range(150)), b"X-Long: " + b"x" * 70_000, b"ETag: a\r\n folded",
]  # fmt: skip
ODD_STATUSES = [
    b"HTTP/1.1 429 Slow\r\nRetry-After: Tue, 20 Jan 2026 08:00:00 +99999999",
    b"HTTP/1.1 503 Busy\r\nRetry-After: " + b"9" * 400,
    b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe://", b"HTTP/1.1 302 Found\r\nLocation: mailto:nobody",
    b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:99999/", b"HTTP/1.1 302 Found\r\nLocation: http://a:b@[1",
    b"HTTP/1.1 304 Same", b"HTTP/1.1 999 Odd", b"HTTP/1.1 204 None", b"HTTP/9.9 200 OK", b"\x00\xff garbage", b"HTTP/1.1 2",
    b"HTTP/1.1 500 \xe9", b"HTTP/1.1 300 Many", b"HTTP/1.1 416 Range", b"HTTP/1.1 101 Switch", b"HTTP/1.1 206 Part",
]  # fmt: skip


def answer(body: bytes, headers: tuple[bytes, ...] = (), status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """A whole HTTP answer; its length is given unless one of `headers` speaks of it."""
    spoken = b"\r\n".join(headers).lower()
    own = (
        ()
        if b"content-length" in spoken or b"transfer-encoding" in spoken
        else (b"Content-Length: %d" % len(body),)
    )
    return b"\r\n".join(
        [status, b"Content-Type: application/json", *headers, *own, b"Connection: close", b"", body]
    )


def mutated(rng: random.Random, body: bytes) -> tuple[str, bytes]:
    """What was done to the good answer of `body`, and the answer."""
    change = rng.choice([*_BYTES, *[_tree] * 8, _header, _header, _status])
    return change.__name__.strip("_"), change(rng, body)


def _truncated(rng: random.Random, body: bytes) -> bytes:
    return answer(body[: rng.randrange(len(body))])


def _cut_off(rng: random.Random, body: bytes) -> bytes:
    return answer(body)[: -rng.randrange(1, len(body))]


def _flipped(rng: random.Random, body: bytes) -> bytes:
    changed = bytearray(body)
    for _ in range(rng.choice([1, 1, 3, 50])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return answer(bytes(changed))


def _encoded(rng: random.Random, body: bytes) -> bytes:
    codec = rng.choice(["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-32", "utf-7", "utf-8-sig"])
    return answer(body.decode().encode(codec, "replace"))


def _inserted(rng: random.Random, body: bytes) -> bytes:
    at = rng.choice([0, len(body), rng.randrange(len(body))])
    odd = rng.choice(
        [b"\x00", b"\xef\xbb\xbf", b"\xff", b"\xed\xa0\x80", b"\n,{", b"]", b"}", b'"', b"\\", b"garbage"]
    )
    return answer(body[:at] + odd + body[at:])


def _html(rng: random.Random, body: bytes) -> bytes:
    return answer(HTML, (b"Content-Type: text/html",))


def _other(rng: random.Random, body: bytes) -> bytes:
    return answer(rng.choice([b"", b" ", *(text.encode() for text in ODD_TEXTS)]))


def _header(rng: random.Random, body: bytes) -> bytes:
    return answer(body, (rng.choice(ODD_HEADERS),))


def _status(rng: random.Random, body: bytes) -> bytes:
    return answer(body, status=rng.choice(ODD_STATUSES))


_BYTES: list[Callable[[random.Random, bytes], bytes]] = [
    _truncated, _cut_off, _flipped, _flipped, _encoded, _inserted, _inserted, _html, _other,
]  # fmt: skip


def _tree(rng: random.Random, body: bytes) -> bytes:
    """One place of the JSON made odd, or the same odd thing in all places of its name."""
    tree = json.loads(body)
    holder, key = rng.choice(_places(tree, depth=rng.randrange(1, 7)))
    odd = rng.choice(ODD_TEXTS)
    kind = rng.choice(["odd", "odd", "odd everywhere", "missing", "duplicated", "reordered", "renamed"])
    if kind == "missing":
        del holder[key]
    elif kind == "renamed" and isinstance(holder, dict):
        holder[rng.choice(["level", "geometry", "status", ":id", "", "a\x00b", "x" * 300])] = holder.pop(key)
    elif kind == "duplicated" and isinstance(holder, dict):
        holder[key + _MARK] = rng.choice(list(holder.values()))
        return answer(_text(tree).replace("\\ue000", "").encode())
    elif kind == "reordered" and isinstance(holder, list):
        rng.shuffle(holder)
    elif kind == "odd everywhere":
        for place, name in _places(tree, depth=9):
            if name == key and isinstance(place, dict):
                place[name] = _MARK
    else:
        holder[key] = _MARK
    return answer(_text(tree).replace('"\\ue000"', odd).encode())


def _text(tree: Any) -> str:
    return json.dumps(tree, separators=(",", ":"))


def _places(tree: Any, depth: int) -> list[tuple[Any, Any]]:
    """Every place at most `depth` down; of long lists only some."""
    found: list[tuple[Any, Any]] = []
    if depth and isinstance(tree, dict | list) and tree:
        keys = list(tree) if isinstance(tree, dict) else [*range(min(3, len(tree))), len(tree) - 1]
        for key in keys:
            found.append((tree, key))
            found += _places(tree[key], depth - 1)
    return found
