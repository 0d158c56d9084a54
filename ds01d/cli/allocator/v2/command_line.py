"""The command line of `gpu_allocator_v2.py`."""

from __future__ import annotations

import argparse
from typing import Final

PROGRAM: Final = "gpu_allocator_v2.py"


def build_parser() -> argparse.ArgumentParser:
    """As the original has it, down to the texts: what is printed of a wrong call is the same."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="GPU Allocator Smart - Stateless GPU allocation"
    )
    commands = parser.add_subparsers(dest="command", help="Command")
    allocate = commands.add_parser("allocate", help="Allocate GPU to container")
    allocate.add_argument("user", help="Username")
    allocate.add_argument("container", help="Container name (full tag)")
    allocate.add_argument("max_gpus", type=int, help="Max GPUs for user")
    allocate.add_argument("priority", type=int, help="User priority")
    release = commands.add_parser("release", help="Release GPU from container")
    release.add_argument("container", help="Container name")
    commands.add_parser("status", help="Show GPU allocation status")
    count = commands.add_parser("user-count", help="Show GPU count for user")
    count.add_argument("user", help="Username")
    stale = commands.add_parser(
        "release-stale", help="Release stale GPU allocations from stopped containers"
    )
    stale.add_argument("user", nargs="?", help="Optional: username to filter (default: all users)")
    multi = commands.add_parser("allocate-multi", help="Allocate multiple GPU slots to container")
    multi.add_argument("user", help="Username")
    multi.add_argument("container", help="Container name (full tag)")
    multi.add_argument(
        "container_type", help="Container type (api, devcontainer, compose, docker, unknown)"
    )
    multi.add_argument("num_gpus", type=int, help="Number of GPU slots to allocate")
    multi.add_argument(
        "--prefer-full", action="store_true", help="Deprecated no-op (slots are full GPUs)"
    )
    external = commands.add_parser(
        "allocate-external",
        help="Allocate GPU for external container (devcontainer, compose, docker run)",
    )
    external.add_argument("user", help="Username")
    external.add_argument(
        "container_type", help="Container type (devcontainer, compose, docker, unknown)"
    )
    return parser
