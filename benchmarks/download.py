"""One large file from a hub on the loopback that gives each connection little: how long, and in how much memory.

Run from the project's directory: ``python -m benchmarks.download [BYTES [BYTES_PER_SECOND]]``, on eight connections and
on one; 2 GB at 12 MB/s if nothing is said. Anonymous memory is the client's; the system's cache of files is not.
"""

import json
import os
import struct
import subprocess
import sys
import tempfile

from tests.support.hub import Faults, LocalHub

NAME = "model.safetensors"
PROGRAM = """
import asyncio, sys, threading, time
from pathlib import Path
from app.registry.hub import Hub, Policy

peak = 0

def watch():
    global peak
    while True:
        held = next(line for line in open("/proc/self/status") if line.startswith("RssAnon"))
        peak = max(peak, int(held.split()[1]) // 1024)
        time.sleep(0.05)

async def main():
    connections = int(sys.argv[3])
    hub = Hub(cache_dir=Path(sys.argv[1]), endpoint=sys.argv[2], policy=Policy(parallel_ranges=connections))
    began = time.perf_counter()
    await hub.download("org/model").wait()
    seconds, cpu = time.perf_counter() - began, time.process_time()
    print(f"{connections} connections: {seconds:.1f} s, {cpu:.1f} s of CPU, {peak} MB of memory", flush=True)
    await hub.close()

threading.Thread(target=watch, daemon=True).start()
asyncio.run(main())
"""


def main() -> None:
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000_000
    rate = int(sys.argv[2]) if len(sys.argv) > 2 else 12_000_000
    header = json.dumps({"weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    block = os.urandom(1 << 20)
    weights = struct.pack("<Q", len(header)) + header + (block * (size // len(block) + 1))[:size]
    with LocalHub() as hub:
        hub.add("org/model", {"config.json": b"{}", "tokenizer.json": b"{}", NAME: weights})
        hub.faults[NAME] = Faults(bytes_per_second=rate)
        for connections in ("8", "1"):
            with tempfile.TemporaryDirectory() as folder:
                subprocess.run([sys.executable, "-c", PROGRAM, folder, hub.url, connections], check=True)  # noqa: S603


if __name__ == "__main__":
    main()
