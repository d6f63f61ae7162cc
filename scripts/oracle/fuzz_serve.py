#!/usr/bin/env python3
"""Sends `lesion-gpu serve` requests that were damaged at random, over raw sockets, and checks what comes back.

    lesion-gpu serve runs/resnet18-001 runs/unet-small-001 --read-timeout 1 &
    scripts/oracle/fuzz_serve.py --pid $! --requests 20000 --seed 1 [--port 8080] [--connections 32] [--keep DIR] [--only N]

A request is an image (JPEG, PNG, BMP, TIFF, WebP, made here) or a form of some, to a route for work; its image, its form and its
bytes as HTTP are then bent: bits flipped, ends cut, parts spliced, repeated, removed, lengths and sizes made up. Every answer has to
be HTTP whose body is as long as said, with a status that /docs lists, never 5xx but 503; every refusal with a body has to be
{"error": {"kind", "message", "next"}} and must not tell of the inside. The server has to answer /healthz throughout; with --pid its
threads may not become more, and its memory may not grow after the first quarter (Linux). Request N depends on the seed and N alone:
--only N sends it again and prints both sides; --keep DIR keeps requests with wrong answers. --corpus DIR asks nobody, but writes
what the fuzz target `upload` begins from: a content type, a line end, a body. Needs Pillow.
"""

import argparse
import asyncio
import collections
import io
import json
import os
import pathlib
import random
import re
import struct
import sys
import time
import zlib

from PIL import Image

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--port", type=int, default=8080)
parser.add_argument("--pid", type=int)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--requests", type=int, default=20000)
parser.add_argument("--connections", type=int, default=32)
parser.add_argument("--patience", type=float, default=60, help="seconds that an answer or the end of a connection may take")
parser.add_argument("--growth", type=float, default=32, help="MiB that the memory may grow after the first quarter")
parser.add_argument("--keep", type=pathlib.Path)
parser.add_argument("--only", type=int)
parser.add_argument("--corpus", type=pathlib.Path)
args = parser.parse_args()

STATUSES = {200, 400, 401, 403, 404, 405, 408, 413, 414, 415, 429, 431, 503}
LEAKS = re.compile(rb"panicked|backtrace|RUST_BACKTRACE|\.rs\b|src/|/home/|/root/|/tmp/|registry/|Os \{|Kind::|unwrap")
ROUTES = ["/v1/predict", "/v1/predict", "/v1/segment", "/v1/explain", "/v1/explain?class=nv"]


def images():
    """Small pictures in all formats and several colour types, with EXIF and without."""
    dice, made = random.Random(0), []
    for width, height in [(48, 36), (17, 61), (1, 1), (130, 90)]:
        rgb = Image.frombytes("RGB", (width, height), bytes(dice.randrange(256) for _ in range(3 * width * height)))
        exif = Image.Exif()
        exif[0x0112] = dice.randrange(1, 9)
        kinds = [("JPEG", rgb, {"exif": exif}), ("JPEG", rgb.convert("CMYK"), {}), ("JPEG", rgb, {"progressive": True})]
        kinds += [("PNG", rgb.convert(mode), {}) for mode in ["RGB", "L", "P", "RGBA", "1", "I;16"]]
        kinds += [("TIFF", rgb.convert(mode), {"compression": c}) for mode in ["RGB", "L"] for c in ["raw", "tiff_lzw", "tiff_deflate"]]
        kinds += [("BMP", rgb.convert(mode), {}) for mode in ["RGB", "P", "1"]]
        kinds += [("WEBP", rgb, {"lossless": True}), ("WEBP", rgb, {"quality": 60}), ("WEBP", rgb.convert("RGBA"), {})]
        for format_, picture, options in kinds:
            out = io.BytesIO()
            picture.save(out, format_, **options)
            made.append(out.getvalue())
    return made


IMAGES = images()
EDGES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


def bent(dice, data):
    """Bytes, changed in one way."""
    data = bytearray(data)
    at = lambda: dice.randrange(len(data) + 1)
    match dice.randrange(8) if data else 4:
        case 0:
            for _ in range(dice.choice([1, 1, 2, 8, 64])):
                data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        case 1:
            del data[at():]
        case 2:
            start = at()
            del data[start:start + dice.choice([1, 4, 64, 1000])]
        case 3:
            start = at()
            data[at():at()] = data[start:start + dice.choice([1, 16, 500])] * dice.choice([1, 2, 50])
        case 4:
            start = at()
            data[start:start] = dice.randbytes(dice.choice([1, 3, 17, 300]))
        case 5:
            start, value = at(), dice.choice(EDGES)
            data[start:start + 4] = struct.pack(dice.choice(["<I", ">I"]), value)
        case 6:
            other = dice.choice(IMAGES)
            data[at():] = other[dice.randrange(len(other)):]
        case 7:
            start = at()
            data[start:start + 2] = struct.pack(dice.choice(["<H", ">H"]), dice.choice(EDGES) & 0xFFFF)
    return bytes(data)


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def made_png(dice):
    """A PNG whose checksums are right, so that what it claims is believed."""
    side = lambda: dice.choice([0, 1, 7, 300, 5000, 20000, 20001, 65535, 0x7FFFFFFF, 0xFFFFFFFF])
    head = struct.pack(">IIBBBBB", side(), side(), dice.choice([1, 2, 4, 8, 16, 3]), dice.choice([0, 2, 3, 4, 6, 1]), 0, 0, dice.randrange(3))
    chunks = [png_chunk(b"IHDR", head)]
    for kind in dice.sample([b"PLTE", b"tRNS", b"gAMA", b"iCCP", b"zTXt", b"eXIf", b"acTL", b"fcTL"], dice.randrange(4)):
        chunks.append(png_chunk(kind, dice.choice([dice.randbytes(dice.randrange(40)), b"x\0\0" + zlib.compress(bytes(200_000))])))
    chunks.append(png_chunk(b"IDAT", dice.choice([zlib.compress(bytes(dice.choice([10, 3000, 2_000_000]))), dice.randbytes(50)])))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + dice.choice([b"", png_chunk(b"IEND", b"")])


def image(dice):
    if dice.random() < 0.08:
        return made_png(dice)
    data = dice.choice(IMAGES)
    for _ in range(dice.choice([0, 0, 0, 1, 1, 2, 5])):
        data = bent(dice, data)
    return data


def form(dice):
    boundary = dice.choice([b"XX", b"----WebKitFormBoundaryabc", b"'()+_,-./:=?", b"X" * dice.choice([1, 70, 71, 300])])
    parts = []
    for i in range(dice.choice([0, 1, 1, 2, 3, 16, 17, 200])):
        data = image(dice) if i < 3 else dice.choice([b"x", b""])
        name = dice.choice([b"a.png", b"../../x", b"\xff\xfe", b'"\\"', b"\xe2\x80\xae", b"n" * 500, b""])
        head = b'Content-Disposition: form-data; name="file"; filename="' + name + b'"\r\n'
        if dice.random() < 0.3:
            head += dice.choice([b"Content-Type: image/png\r\n", b"Content-Type: multipart/mixed; boundary=YY\r\n", b"X: y\r\n" * 40])
        parts.append(b"--" + boundary + b"\r\n" + head + b"\r\n" + data + b"\r\n")
    if parts and dice.random() < 0.2:
        parts += [dice.choice(parts)] * dice.choice([1, 3, 300])
    dice.shuffle(parts)
    body = b"".join(parts) + b"--" + boundary + b"--\r\n"
    for _ in range(dice.choice([0, 0, 1, 2])):
        body = bent(dice, body)
    return b"multipart/form-data; boundary=" + dice.choice([boundary, b'"' + boundary + b'"']), body


def content(dice):
    """A content type and a body."""
    if dice.random() < 0.5:
        return form(dice)
    return dice.choice([b"image/png", b"application/octet-stream", b"image/x"]), image(dice)


def request(number):
    """The bytes of a request, in how many pieces they are sent, and whether that end of the connection is then closed."""
    dice = random.Random(f"{args.seed}:{number}")
    kind, body = content(dice)
    lines = [b"POST " + dice.choice(ROUTES).encode() + b" HTTP/1.1", b"Host: localhost", b"Connection: close", b"Content-Type: " + kind]
    if dice.random() < 0.1:
        lines.append(dice.choice([b"Accept: image/png", b"Expect: 100-continue", b"Origin: null", b"Authorization: Bearer x", b"X: y"]))
    if dice.random() < 0.2:
        pieces, rest = [], body
        while rest:
            size = dice.choice([1, 7, 1000, 100_000]) if len(pieces) < 50 else len(rest)
            pieces.append(b"%x\r\n%b\r\n" % (len(rest[:size]), rest[:size]))
            rest = rest[size:]
        body = b"".join(pieces) + b"0\r\n\r\n"
        lines.append(b"Transfer-Encoding: chunked")
    else:
        lines.append(b"Content-Length: %d" % (len(body) + (dice.choice([0] * 20 + [-1, 1, 1000, 10**9]))))
    if dice.random() < 0.1:
        lines[1:] = dice.sample(lines[1:] * dice.choice([1, 2]), len(lines) - 1)
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    if dice.random() < 0.15:
        head = bent(dice, head)
    data = head + body
    if dice.random() < 0.05:
        data = bent(dice, data)
    return data, dice.choice([1, 1, 2, 5]), dice.random() < 0.1


def wrong(data, answer):
    """What is wrong with an answer; none if nothing is. An end without an answer is none: what was sent need not be HTTP."""
    while answer.startswith(b"HTTP/1.1 1"):
        answer = answer.partition(b"\r\n\r\n")[2]
    if not answer:
        return None, "end"
    head, end, body = answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    found = re.fullmatch(rb"HTTP/1\.[01] (\d{3}) [ -~]*", lines[0])
    if not found or not end:
        return f"no HTTP: {answer[:80]!r}", "?"
    status = int(found[1])
    if status not in STATUSES:
        return f"status {status}: {body[:300]!r}", status
    if not all(re.fullmatch(rb"[!#-'*+.0-9A-Z^-z|~-]+: [ -~\x80-\xff]*", line) for line in lines[1:]):
        return f"header: {head!r}", status
    headers = {name.lower(): value for name, value in (line.split(b": ", 1) for line in lines[1:])}
    length = int(headers.get(b"content-length", b"-1"))
    # Behind an answer there may be others, where bent bytes are several requests; none may be cut off.
    if length < 0 or (len(body) < length and not data.startswith(b"HEAD ")):
        return f"length {length}, and {len(body)} came", status
    body = body[:length]
    if status != 200 and body:
        try:
            error = json.loads(body)["error"]
            assert set(error) == {"kind", "message", "next"} and all(isinstance(v, str) and v for v in error.values())
        except (ValueError, KeyError, AssertionError, TypeError):
            return f"refusal: {body[:300]!r}", status
        if LEAKS.search(body):
            return f"leak: {body[:300]!r}", status
        if b"content-security-policy" not in headers:
            return f"headers: {head!r}", status
    return None, status


async def ask(data, pieces, half):
    """Sends, and reads until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", args.port)
    answer = bytearray()

    async def send():
        size = max(1, -(-len(data) // pieces))
        try:
            for start in range(0, len(data), size):
                writer.write(data[start:start + size])
                await writer.drain()
                if pieces > 1:
                    await asyncio.sleep(0.001)
            if half:
                writer.write_eof()
        except OSError:
            pass  # A server that refuses early need not read on.

    sending = asyncio.create_task(send())
    try:
        while part := await asyncio.wait_for(reader.read(1 << 16), args.patience):
            answer += part
    except ConnectionError:
        pass
    finally:
        sending.cancel()
        writer.close()
    return bytes(answer)


async def healthy():
    answer = await ask(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 1, False)
    return answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"ok\n")


def process():
    """Resident MiB and threads."""
    if args.pid is None:
        return 0.0, 0
    text = pathlib.Path(f"/proc/{args.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024, int(re.search(r"Threads:\s+(\d+)", text)[1])


counts, failures, samples = collections.Counter(), [], []


def fail(number, data, what):
    failures.append(what)
    print(f"FAIL request {number}: {what}", flush=True)
    if args.keep and data is not None:
        args.keep.mkdir(parents=True, exist_ok=True)
        (args.keep / f"{args.seed}-{number}.http").write_bytes(data)


async def client(numbers):
    for number in numbers:
        data, pieces, half = request(number)
        try:
            answer = await ask(data, pieces, half)
        except TimeoutError:
            fail(number, data, f"neither an answer nor the end within {args.patience} s")
            continue
        except OSError as error:
            fail(number, data, f"no connection: {error}")
            await asyncio.sleep(0.2)
            continue
        what, status = wrong(data, answer)
        counts[status] += 1
        if what:
            fail(number, data, what)
        if number % 500 == 0:
            if not await healthy():
                fail(number, None, "/healthz")
            samples.append((number, *process()))
            if number % 2500 == 0:
                print(f"{number} requests, {samples[-1][1]:.0f} MiB, {samples[-1][2]} threads", flush=True)
        if len(failures) > 20:
            return


async def main():
    start, (_, threads) = time.monotonic(), process()
    numbers = iter(range(1, args.requests + 1))
    await asyncio.gather(*(client(numbers) for _ in range(args.connections)))
    took = time.monotonic() - start
    # Threads that decode go when they have had nothing to do for ten seconds.
    await asyncio.sleep(12)
    if not await healthy():
        fail("end", None, "/healthz")
    memory, threads_after = process()
    print(f"{sum(counts.values())} requests in {took:.0f} s, seed {args.seed}")
    print("answers   ", dict(sorted(counts.items(), key=str)))
    if args.pid is not None and samples:
        early = max(m for n, m, _ in samples if n <= max(args.requests / 4, samples[0][0]))
        most = max(t for _, _, t in samples)
        print(f"memory     {early:.0f} MiB at most in the first quarter, {max(m for _, m, _ in samples):.0f} in all, {memory:.0f} after")
        print(f"threads    {threads} before, {most} at most, {threads_after} after")
        if memory > early + args.growth:
            fail("end", None, f"memory grew from {early:.0f} to {memory:.0f} MiB")
        # One for each core decodes, and one may just have done so.
        if threads_after > threads or most > threads + 2 * os.cpu_count() + 2:
            fail("end", None, f"threads: {threads}, {most}, {threads_after}")


if args.corpus:
    args.corpus.mkdir(parents=True, exist_ok=True)
    for number in range(300):
        kind, body = content(random.Random(f"{args.seed}:{number}"))
        if len(body) < 1 << 15:
            (args.corpus / f"{number}").write_bytes(kind + b"\n" + body)
    for number, whole in enumerate(IMAGES):
        (args.corpus / f"whole-{number}").write_bytes(b"image/x\n" + whole)
    sys.exit()
if args.only is not None:
    sent = request(args.only)
    got = asyncio.run(ask(*sent))
    print(sent[0][:2000], got[:2000], wrong(sent[0], got), sep="\n")
    sys.exit()
asyncio.run(main())
sys.exit(f"{len(failures)} failed" if failures else 0)
