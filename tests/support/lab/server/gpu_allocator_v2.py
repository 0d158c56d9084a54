"""A stand-in for the lab's own allocator, in our own words: a GPU is held by what names it."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path

GPUS = Path("/opt/ds01-infra/gpus.json")
LOCK = Path("/var/log/ds01/gpu-allocator.lock")
FORM = '{{range .HostConfig.DeviceRequests}}{{join .DeviceIDs " "}} {{end}}'


def ask_docker(*words: str) -> list[str]:
    command = ("/usr/bin/docker", *words)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else []


def list_free() -> list[str]:
    ids = ask_docker("ps", "--all", "--quiet")
    held = ask_docker("inspect", "--format", FORM, *ids) if ids else []
    return [gpu for gpu in json.loads(GPUS.read_text(encoding="utf-8")) if gpu not in held]


def main(command: str) -> int:
    with LOCK.open("a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        free = list_free()
    if command == "status":
        sys.stdout.write(f"\nGPU Status: {len(free)} free\n")
        return 0
    if free:
        sys.stdout.write(f"DOCKER_ID={free[0]}\nSTATUS=SUCCESS\n")
        return 0
    sys.stdout.write("STATUS=FAILED\nREASON=No GPUs available (all allocated)\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
