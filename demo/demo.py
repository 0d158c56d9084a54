"""ds01d at work on a host made for it; the story itself is in `story.py`.

    make demo

Needs root and what `make setup` installs; no GPU, no Docker of your own, no systemd. Exit status 1:
something was not as it claims to be.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, TypeVar

sys.path[0] = str(Path(__file__).parent.parent)  # `demo` is a package of that folder

from demo.stage import Stage  # noqa: E402 - from that folder
from demo.story import Story  # noqa: E402
from demo.terminal import Failed, Terminal  # noqa: E402
from simulation.signals import own_signals  # noqa: E402

AnyStage = TypeVar("AnyStage", bound=AbstractContextManager[Any])

PROGRAMS: Final = ("dockerd", "docker", "busybox", "cc", "nsenter", "unshare", "setpriv", "timeout")


def missing(programs: Sequence[str] = PROGRAMS) -> list[str]:
    """What this machine lacks, a sentence each."""
    needs = []
    if os.geteuid() != 0:
        needs.append("root: it starts private Docker engines. Try it with sudo")
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    absent = [program for program in programs if shutil.which(program, path=path) is None]
    if absent:
        needs.append(f"{', '.join(absent)}: run `make setup` as root")
    return needs


def find_traces(root: Path) -> list[str]:
    """What is left on this machine of what had its files in `root`."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    # Not by glob: other programs' groups go while we look, and that would end it.
    tree = os.walk("/sys/fs/cgroup")
    groups = [Path(folder, root.name) for folder, below, _ in tree if root.name in below]
    found = [str(root)] if root.exists() else []
    found += [row for row in mounts.splitlines() if str(root) in row]
    found += [str(group) for group in groups]
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        if bytes(root) in command:
            found.append(f"process {entry.parent.name}")
    return found


def play(
    needs: Sequence[str],
    make_stage: Callable[[], AnyStage],
    tell: Callable[[AnyStage, Terminal], None],
    find_left: Callable[[AnyStage], list[str]],
) -> int:
    """Tell a story on its stage, unless this machine lacks something; the exit status."""
    for need in needs:
        print(f"demo: this needs {need}", file=sys.stderr)
    if needs:
        return 1
    own_signals()
    terminal = Terminal(sys.stdout, os.environ)
    began = time.monotonic()
    stage = make_stage()
    try:
        with stage:
            tell(stage, terminal)
    except Failed as error:
        terminal.failed(str(error))
        return 1
    except KeyboardInterrupt:
        terminal.failed("interrupted")
        return 130
    except BrokenPipeError:  # nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    finally:
        left = find_left(stage)
        if left:
            print(f"demo: left behind, and it should not be: {', '.join(left)}", file=sys.stderr)
    if left:
        return 1
    seconds = time.monotonic() - began
    terminal.title("Done")
    terminal.ok(f"all of it was so, and nothing is left of it on this machine; {seconds:.0f} s")
    return 0


def main() -> int:
    """Tell the story; the exit status."""
    return play(
        missing(),
        Stage,
        lambda stage, terminal: Story(stage, terminal).tell(),
        lambda stage: find_traces(stage.engine.root),
    )


if __name__ == "__main__":
    sys.exit(main())
