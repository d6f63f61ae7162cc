#!/usr/bin/env python3
"""Sends a picture to `lesion-gpu serve` over many connections, each as soon as its last answer is there.

    lesion-gpu serve runs/simple-cnn-001 &
    scripts/oracle/load_serve.py photo.jpg [--port 8080] [--connections 32] [--seconds 12] [--pid PID]

Prints answers by status, pictures a second, the times of those that were answered and of those that were refused, and with --pid
the resident memory of the server before and after (Linux). Needs nothing but Python.
"""

import argparse
import asyncio
import collections
import pathlib
import re
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("picture", type=pathlib.Path)
parser.add_argument("--port", type=int, default=8080)
parser.add_argument("--connections", type=int, default=32)
parser.add_argument("--seconds", type=float, default=12)
parser.add_argument("--pid", type=int)
args = parser.parse_args()
body = args.picture.read_bytes()
head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
request = head.encode() + body
times = collections.defaultdict(list)
broken = collections.Counter()


def memory():
    if args.pid is None:
        return 0
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{args.pid}/status").read_text())[1]) / 1024


async def client(end):
    while time.monotonic() < end:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", args.port)
            while time.monotonic() < end:
                start = time.monotonic()
                writer.write(request)
                answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                await reader.readexactly(int(re.search(r"content-length: (\d+)", answer)[1]))
                status = int(answer.split()[1])
                times[status].append(time.monotonic() - start)
                if status != 200:
                    await asyncio.sleep(0.05)
            writer.close()
        except (OSError, asyncio.IncompleteReadError) as error:
            broken[type(error).__name__] += 1
            await asyncio.sleep(0.05)


async def main():
    end = time.monotonic() + args.seconds
    await asyncio.gather(*(client(end) for _ in range(args.connections)))


def percentiles(values):
    values = sorted(values)
    return ", ".join(f"{p} % in {1000 * values[p * (len(values) - 1) // 100]:.0f} ms" for p in (50, 95, 99)) if values else "none"


before = memory()
asyncio.run(main())
refused = [t for status, list_ in times.items() if status != 200 for t in list_]
print("answers   ", {status: len(list_) for status, list_ in sorted(times.items())}, dict(broken))
print("pictures  ", f"{len(times[200]) / args.seconds:.1f} a second, {percentiles(times[200])}")
print("refused   ", percentiles(refused))
if args.pid is not None:
    print("memory    ", f"{before:.0f} MiB before, {memory():.0f} MiB after")
