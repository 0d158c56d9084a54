"""The host on which the demonstration plays: an engine, GPUs, the books, and ds01d itself.

The engine is a real dockerd of its own, the GPUs are a stand-in for NVIDIA's library, the books are
the recorded ones of `tests/data`. All of it lies in one temporary folder and is gone afterwards,
also if this process is killed. Tells nobody anything.
"""

import json
import os
import queue
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from simulation import nvml
from simulation.engine import IMAGE, PrivateEngine
from simulation.signals import deaf

ROOT: Final = Path(__file__).parent.parent
BIN: Final = Path(sys.executable).parent
SEED: Final = ROOT / "tests/data/states/drift-seed"
LIMITS: Final = ROOT / "tests/data/resource-limits.yaml"
TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}")
ALLOCATED_BEFORE: Final = timedelta(hours=3)
STOP_S: Final = 10

CONFIGURATION: Final = """\
[docker]
url = "{url}"
timeout = "5s"
[gpu]
source = "nvml"
[books]
state = "{host}/lib/gpu-state.json"
metadata = "{host}/lib/container-metadata"
limits = "{host}/resource-limits.yaml"
[logs]
syslog = false
operations = "{host}/log/container-operations.log"
allocations = "{host}/log/gpu-allocations.log"
[daemon]
state_dir = "{host}/ds01d"
[containers]
frameworks = "{host}/frameworks.toml"
[service]
socket = "{host}/booking.sock"
containers = true
[policy]
settle = "2s"
absence_grace = "2m"
"""

FRAMEWORKS: Final = f"""\
[container]
command = ["sleep", "600"]
[[image]]
framework = "pytorch"
version = "2.5.0"
architecture = "CUDA_ADA"
image = "{IMAGE}"
"""

USERS: Final = {"amy": 64001, "ben": 64002}
"""Logins that ds01d alone knows: nobody is made a user of this machine."""

# Who is in no group cannot reach Docker. The capability lets them read our Python, wherever it is.
AS: Final = """\
#!/bin/sh -e
case $1 in amy) uid=64001 ;; ben) uid=64002 ;; esac
shift
exec setpriv --reuid "$uid" --regid "$uid" --clear-groups --bounding-set -all,+dac_read_search \\
  --inh-caps +dac_read_search --ambient-caps +dac_read_search -- "$@"
"""

Entry = Mapping[str, object]


class Stage:
    """The host, as a context manager."""

    def __init__(self) -> None:
        """Prepare; `with` builds it."""
        # Containers live on while dockerd is away, as on a server that is to survive its upgrade.
        self.engine = PrivateEngine(live_restore=True)
        self.folder = self.engine.root / "host"
        self.gpus = nvml.prod4()
        self._process: subprocess.Popen[str] | None = None
        self._entries: queue.SimpleQueue[Entry] = queue.SimpleQueue()

    def __enter__(self) -> "Stage":  # noqa: PYI034 - typing has no Self in Python 3.10
        """Start the engine, and lay out the books and the GPUs."""
        try:
            self.engine.start()
            self.folder.mkdir()
            _plant(SEED, self.folder, datetime.now() - ALLOCATED_BEFORE)  # noqa: DTZ005 - local, as in the books
            shutil.copy(LIMITS, self.folder)
            text = CONFIGURATION.format(url=self.engine.url, host=self.folder)
            (self.folder / "ds01d.toml").write_text(text, encoding="utf-8")
            (self.folder / "frameworks.toml").write_text(FRAMEWORKS, encoding="utf-8")
            self._introduce_users()
            self.library = nvml.build(self.folder / "nvml")
            self.gpus.write(self.world)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take everything down, whatever signal still comes."""
        deaf()
        self.close()

    def close(self) -> None:
        """End ds01d, the engine and its containers, and remove the folder."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self.engine.close()

    @property
    def world(self) -> Path:
        """The file that says which GPUs there are."""
        return self.folder / "gpus.world"

    @property
    def exports(self) -> Mapping[str, str]:
        """What a shell needs to work on this host in place of the real one."""
        return {
            "DOCKER_HOST": self.engine.url,
            "DS01D_CONFIG": str(self.folder / "ds01d.toml"),
            "LD_LIBRARY_PATH": str(self.library),
            "DS01_SIM_NVML": str(self.world),
        }

    @property
    def env(self) -> Mapping[str, str]:
        """A whole environment with the exports in it, and with nothing of a user's Docker."""
        theirs = ("DOCKER_", "SUDO_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(theirs)}
        path = f"{BIN}:{self.folder / 'bin'}:{kept.get('PATH', os.defpath)}:/usr/sbin:/sbin"
        config = {"DOCKER_CONFIG": str(self.folder / "docker")}
        return {**kept, **config, **self.exports, "PATH": path}

    # ---- ds01d

    @property
    def pid(self) -> int:
        """The process id of ds01d."""
        assert self._process is not None
        return self._process.pid

    @property
    def ended(self) -> int | None:
        """The exit status of ds01d; None: it runs."""
        return None if self._process is None else self._process.poll()

    def start_daemon(self) -> None:
        """Run ds01d, as it is installed. It dies with us, whatever we die of."""
        self._process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", self._command],
            env=dict(self.env),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stderr is not None
        reader = threading.Thread(target=self._read, args=(self._process.stderr,), daemon=True)
        reader.start()

    @property
    def _command(self) -> str:
        """ds01d with users of its own; it dies with us."""
        passwd = shlex.quote(str(self.folder / "passwd"))
        return f"mount --bind {passwd} /etc/passwd && exec setpriv --pdeathsig KILL ds01d"

    def _introduce_users(self) -> None:
        rows = [f"{name}:x:{uid}:{uid}::/nonexistent:/bin/sh\n" for name, uid in USERS.items()]
        known = Path("/etc/passwd").read_text(encoding="utf-8")
        (self.folder / "passwd").write_text(known + "".join(rows), encoding="utf-8")
        script = self.folder / "bin" / "as"
        script.parent.mkdir()
        script.write_text(AS, encoding="ascii")
        script.chmod(0o755)

    def stop_daemon(self) -> int:
        """Wait for ds01d after it was told to stop, and return its exit status."""
        assert self._process is not None
        return self._process.wait(STOP_S)

    def entries(self) -> Iterator[Entry]:
        """The entries of ds01d's log that nobody has taken yet."""
        while not self._entries.empty():  # we alone take from it
            yield self._entries.get()

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                try:
                    entry = json.loads(line)
                except ValueError:
                    entry = {"message": line.rstrip(), "event": "", "level": "error"}
                    entry["timestamp"] = datetime.now().astimezone().isoformat()
                self._entries.put(entry)

    # ---- the GPUs and the books

    def use_gpu(self, slot: str, pid: int) -> None:
        """Let a process use the device of a slot, as NVML tells it."""
        self._change(lambda gpus: gpus.with_process(slot, pid))

    def leave_gpu(self, pid: int) -> None:
        """Let a process use no device any more."""
        self._change(lambda gpus: gpus.without_process(pid))

    def _change(self, change: Callable[[nvml.World], nvml.World]) -> None:
        self.gpus = change(self.gpus)
        self.gpus.write(self.world)

    @property
    def state(self) -> bytes:
        """The allocator's state, byte for byte."""
        return (self.folder / "lib/gpu-state.json").read_bytes()

    def bookings(self) -> Mapping[str, str]:
        """Who is booked where: container by slot."""
        gpus = json.loads(self.state)["gpus"]
        return {slot: name for slot, entry in gpus.items() for name in entry["containers"]}

    def held(self) -> Mapping[str, str]:
        """Who holds what by the status: container by slot."""
        slots = json.loads((self.folder / "ds01d/status.json").read_text(encoding="utf-8"))["slots"]
        return {slot["id"]: holder["container"] for slot in slots for holder in slot["holders"]}

    def counted(self) -> int:
        """How many bookings the counters of the users tell."""
        gpus = json.loads(self.state)["gpus"]
        return sum(sum(entry["users"].values()) for entry in gpus.values())

    def records(self) -> set[str]:
        """Whose metadata there is."""
        return {path.stem for path in (self.folder / "lib/container-metadata").glob("*.json")}

    def has_swept_since(self, moment: float) -> bool:
        """A sweep that began after `moment` is in the status."""
        sweep = self.status()["last_sweep"]
        return isinstance(sweep, dict) and sweep["at"] > moment

    def status(self) -> Mapping[str, object]:
        """What ds01d publishes about itself."""
        text = (self.folder / "ds01d/status.json").read_text(encoding="utf-8")
        found: Mapping[str, object] = json.loads(text)
        return found


def _plant(seed: Path, folder: Path, newest: datetime) -> None:
    """Copy the recorded books, their times moved so that the newest is `newest`."""
    for part in ("lib", "log"):
        shutil.copytree(seed / part, folder / part)
    files = [*folder.glob("lib/container-metadata/*"), *folder.glob("log/*")]
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    times = [datetime.fromisoformat(time) for text in texts.values() for time in TIME.findall(text)]
    shift = newest - max(times)

    def moved(match: re.Match[str]) -> str:
        return (datetime.fromisoformat(match[0]) + shift).isoformat(timespec="microseconds")

    for file, text in texts.items():
        file.write_text(TIME.sub(moved, text), encoding="utf-8")
