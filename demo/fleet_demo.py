"""ds01d on three hosts of a lab that is made for it; the story itself is in `fleet_story.py`.

    make demo-fleet

Needs root and what `make setup` installs, systemd-nspawn among it; no GPU, no Docker of your own.
Exit status 1: something was not as it claims to be.
"""

import sys
from pathlib import Path
from typing import Final

sys.path[0] = str(Path(__file__).parent.parent)  # `demo` is a package of that folder

from demo import demo  # noqa: E402 - from that folder
from demo.fleet_stage import FleetStage  # noqa: E402
from demo.fleet_story import FleetStory  # noqa: E402
from simulation import machine  # noqa: E402
from simulation.etcd import EtcdPrograms, EtcdUnavailable  # noqa: E402
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


def find_left(stage: FleetStage) -> list[str]:
    """What is left on this machine of its machines."""
    return [trace for one in stage.machines for trace in demo.find_traces(one.folder)]


def main() -> int:
    """Tell the story; the exit status."""
    return demo.play(
        list_missing(),
        FleetStage,
        lambda stage, terminal: FleetStory(stage, terminal).tell(),
        find_left,
    )


if __name__ == "__main__":
    sys.exit(main())
