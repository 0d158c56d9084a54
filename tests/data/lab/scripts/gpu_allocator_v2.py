"""A stand-in for the lab's own allocator, in our own words: a GPU is held by what names it."""

import fcntl
import json
import subprocess
import sys

GPUS = json.load(open("/opt/ds01-infra/gpus.json"))


def docker(*words):
    done = subprocess.run(["/usr/bin/docker", *words], capture_output=True, text=True)
    return done.stdout.split() if done.returncode == 0 else []


def held():
    form = '{{range .HostConfig.DeviceRequests}}{{join .DeviceIDs " "}} {{end}}'
    ids = docker("ps", "--all", "--quiet")
    return set(docker("inspect", "--format", form, *ids)) if ids else set()


def main(command, *words):
    with open("/var/log/ds01/gpu-allocator.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        free = [gpu for gpu in GPUS if gpu not in held()]
        if command == "allocate-external" and free:
            print(f"DOCKER_ID={free[0]}\nSTATUS=SUCCESS")
            return 0
        if command == "status":
            print(f"\nGPU Status: {len(GPUS) - len(free)}/{len(GPUS)} allocated\n")
            return 0
        print("STATUS=FAILED\nREASON=No GPUs available (all allocated)")
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
