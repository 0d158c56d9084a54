"""ds01d on three hosts of a lab that is made for it; the story itself is in `fleet_story.py`.

    make demo-fleet

Needs root and what `make setup` installs, systemd-nspawn among it; no GPU, no Docker of your own.
Exit status 1: something was not as it claims to be.
"""

import os
import sys
import time
from pathlib import Path
from typing import Final

sys.path[0] = str(Path(__file__).parent.parent)  # `demo` is a package of that folder

from demo import demo  # noqa: E402 - from that folder
from demo.fleet_stage import FleetStage  # noqa: E402
from demo.fleet_story import FleetStory  # noqa: E402
from demo.terminal import Failed, Terminal  # noqa: E402
from simulation import machine  # noqa: E402
from simulation.etcd import EtcdPrograms, EtcdUnavailable  # noqa: E402
from simulation.signals import own_signals  # noqa: E402
from simulation.sshd import SshdUnavailable, find_sshd  # noqa: E402

PROGRAMS: Final = ("dockerd", "busybox", "cc", "nsenter", "unshare", "timeout", "ip", "ssh")


def list_missing() -> list[str]:
    """What this machine lacks, a sentence each. Fetches sshd and etcd where they are missing."""
    needs = demo.missing(PROGRAMS)
    if not needs and (lack := machine.missing()):
        needs.append(lack)
    if not needs:
        try:
            find_sshd()
            EtcdPrograms()
        except (SshdUnavailable, EtcdUnavailable) as error:
            needs.append(str(error))
    return needs


def main() -> int:
    """Tell the story; the exit status."""
    needs = list_missing()
    for need in needs:
        print(f"demo: this needs {need}", file=sys.stderr)
    if needs:
        return 1
    own_signals()
    terminal = Terminal(sys.stdout, os.environ)
    stage = FleetStage()
    began = time.monotonic()
    try:
        with stage:
            FleetStory(stage, terminal).tell()
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
        left = [trace for machine in stage.machines for trace in demo.find_traces(machine.folder)]
        if left:
            print(f"demo: left behind, and it should not be: {', '.join(left)}", file=sys.stderr)
    if left:
        return 1
    terminal.title("Done")
    seconds = time.monotonic() - began
    terminal.ok(f"all of it was so, and nothing is left of it on this machine; {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
