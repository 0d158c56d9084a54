"""What people without rights can do to the books, played on a booted machine.

alice is in group ds01 and may write the books (`books.writers = "group"`), dora is in group docker,
eve in neither. Whatever they put in the way: nothing outside the books' folders is read for a book,
written, changed or deleted, by the daemon or by root's commands; and another user's repair is made
during the attack, or as soon as it is over. With `books.writers = "service"` alice is refused, too.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

import pytest

from tests.machine.stories import ON_OTHER, ON_TRAIN, OTHER, booked, train_and_other
from tests.support.books import until
from tests.support.service import Service

pytestmark = [pytest.mark.machine, pytest.mark.timeout(600)]

LIB: Final = "/var/lib/ds01"
OWN: Final = "/var/lib/ds01d"
USERS: Final = {"alice": ("1001", "ds01"), "dora": ("1003", "docker"), "eve": ("1004", "users")}
# What the daemon keeps for itself changes with each pass; that it is there is what counts.
LIVING: Final = (
    *("checkpoint.json", "history.jsonl", "status.json", "containers.json", "lock"),
    *("gpu-state.last-good.json", "limits.json"),
    *(f"accounting.sqlite{part}" for part in ("", "-wal", "-shm", "-journal")),
)
MANIFEST: Final = """
import hashlib, json, os, sys
own, living, found = sys.argv[1], set(sys.argv[2].split()), {}
for place in ("/etc", "/root", "/home", "/opt/ds01-infra", "/var/log", own):
    for folder, folders, files in os.walk(place):
        folders[:] = [] if place == "/root" else [name for name in folders
                      if os.path.join(folder, name) not in {"/var/log/journal", "/var/log/ds01"}]
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            # First: a file that ds01d is writing has another name, or none, within a moment.
            if folder == own and (name in living or name.startswith((".", "gpu-state.broken-"))):
                continue
            status = os.lstat(path)
            about = [status.st_mode, status.st_uid, status.st_gid]
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    about += [status.st_ino, hashlib.sha256(file.read()).hexdigest()]
            found[path] = about
print(json.dumps(found))
"""


# As `fuser --kill FILE...` does it, which a minimal system lacks.
KILL_USERS = """
for descriptor in /proc/[0-9]*/fd/*; do
    for file; do
        if [ "$descriptor" -ef "$file" ]; then
            process=${descriptor%/fd/*}
            kill -KILL "${process#/proc/}" || :
        fi
    done
done
"""


def manifest(service: Service) -> dict[str, Any]:
    """Every file that is none of the books: inode, mode, owner and content."""
    command = ("/usr/bin/python3", "-c", MANIFEST, OWN, " ".join(LIVING))
    found: dict[str, Any] = json.loads(service.machine.run(*command).stdout)
    assert "/etc/docker/daemon.json" in found
    assert f"{OWN}/{OTHER}.json" in found
    return found


def act(service: Service, user: str, script: str, *, check: bool = True) -> int:
    """Have a user run a script in the books' folder; its exit status."""
    command = ("runuser", "-u", user, "--", "sh", "-euc", f"cd {LIB}\n{script}")
    done = service.machine.run(*command, check=False)
    if check:
        assert done.returncode == 0, done.stderr
    return done.returncode


@pytest.fixture(scope="module")
def populated(booted: Service) -> Service:
    """The machine with its three users."""
    for user, (uid, group) in USERS.items():
        booted.machine.run("useradd", "--no-create-home", "-u", uid, "-G", group, user)
    return booted


@pytest.fixture
def ground(populated: Service, stopped_service: Service) -> Iterator[Service]:
    """Ready for an attack: ds01d is stopped, another user's drift waits for it.

    What a thief would like to have deleted or written lies where ds01d and root may do so.
    """
    service, machine = stopped_service, stopped_service.machine
    train_and_other(service)
    for victim in (OWN, "/etc/docker"):
        machine.put(f"{victim}/{OTHER}.json", '{"container": "other._.1002", "user": "root"}')
    machine.run("chown", "ds01d:", f"{OWN}/{OTHER}.json")
    yield service
    kill_users = f"set -- {LIB}/gpu-state.json.lock {OWN}/lock; {KILL_USERS}"
    machine.run("sh", "-c", kill_users, check=False)
    restore(service)
    machine.run("rm", "-f", f"/etc/docker/{OTHER}.json", f"{OWN}/{OTHER}.json")


def share(service: Service, *, sticky: bool) -> None:
    """The folder as the package leaves it, or as it was before."""
    machine = service.machine
    machine.run("chown", "root:ds01", LIB, f"{LIB}/container-metadata")
    machine.run("chmod", "2775", LIB, f"{LIB}/container-metadata")
    if sticky:
        service.chown_books()


def restore(service: Service) -> None:
    """Whatever an attack has left in the books' folder."""
    machine = service.machine
    script = f"""cd {LIB}
        chmod -t .
        if [ -d away ] && [ ! -L away ]; then
            rm -rf container-metadata; mv -T away container-metadata
        fi
        rm -rf gpu-state.json.lock .gpu-state.json.lock.* container-metadata/flood*
        chown root: . container-metadata; chmod 775 . container-metadata
    """
    machine.run("sh", "-euc", script)
    service.chown_books()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """`script` is run by `user` in the books' folder, `end` by root.

    `during`: repairs go on meanwhile. `told`: what the plan says of it meanwhile.
    """

    name: str
    user: str
    script: str
    end: str = ""
    during: bool = True
    told: tuple[str, ...] = ()
    sticky: bool = False
    background: bool = False
    unwritten: tuple[str, ...] = field(default=())


def _link(name: str, target: str) -> Attack:
    return Attack(
        name=name,
        user="alice",
        script=f"mv container-metadata away; ln -s {target} container-metadata",
        end="rm container-metadata; mv away container-metadata",
        during=False,
        told=("container-metadata is a symbolic link of alice", "remove it"),
    )


RECORD: Final = '"user": "mallory", "gpu_id": "1.1", "allocated_at": "2026-01-01T00:00:00"'
ATTACKS: Final = (
    _link("a link to ds01d's own folder", OWN),
    _link("a link to Docker's configuration", "/etc/docker"),
    Attack(
        name="a folder of the attacker's",
        user="alice",
        script="mv container-metadata away; mkdir -m 777 container-metadata",
        end="rmdir container-metadata; mv away container-metadata",
        during=False,
        told=("container-metadata belongs to alice", "chown"),
    ),
    Attack(
        name="a state of the attacker's own",
        user="alice",
        script="cp gpu-state.json x; mv x gpu-state.json; chmod 644 gpu-state.json",
    ),
    Attack(
        name="a lock of the attacker's own",
        user="alice",
        script="rm -f gpu-state.json.lock; umask 077; touch gpu-state.json.lock",
    ),
    Attack(
        name="a folder in the lock's place",
        user="alice",
        script="rm -f gpu-state.json.lock; mkdir -p gpu-state.json.lock/full",
    ),
    Attack(
        name="a FIFO in the lock's place",
        user="alice",
        script="rm -f gpu-state.json.lock; mkfifo gpu-state.json.lock",
    ),
    Attack(
        name="a link in the lock's place",
        user="alice",
        script=f"rm -f gpu-state.json.lock; ln -s {OWN}/history.jsonl gpu-state.json.lock",
    ),
    Attack(
        name="a lock held for ever",
        user="alice",
        script="exec flock gpu-state.json.lock sleep 1000",
        end=f"set -- gpu-state.json.lock; {KILL_USERS}",
        during=False,
        told=("gpu-state.json.lock was not free within", "of alice (flock"),
        background=True,
    ),
    Attack(
        name="a lock that one outside the group would like to hold",
        user="eve",
        script="exec flock gpu-state.json.lock sleep 1000",
        background=True,
    ),
    Attack(
        name="a record that may not be read",
        user="alice",
        script=f"echo '{{{RECORD}}}' > container-metadata/flood._.1001.json;"
        " chmod 000 container-metadata/flood._.1001.json",
    ),
    Attack(
        name="records of a megabyte",
        user="alice",
        script=f"""for n in $(seq 110); do
            {{ printf '{{{RECORD}, "x": "'; head -c 1000000 /dev/zero | tr '\\0' x; printf '"}}'
            }} > container-metadata/flood$n._.1001.json
        done""",
    ),
    Attack(
        name="three hundred thousand names in a slot",
        user="alice",
        script="""python3 -c '
import json
state = json.load(open("gpu-state.json"))
state["gpus"]["1.3"]["containers"] = [f"flood{number}._.1001" for number in range(300000)]
json.dump(state, open("gpu-state.json", "w"))'""",
        sticky=True,
    ),
    Attack(
        name="numbers of any size",
        user="alice",
        script="""python3 -c '
import json
state = json.load(open("gpu-state.json"))
state["gpus"]["1.3"].update(containers=["ghost"], users={"x": 10**30})
json.dump(state, open("gpu-state.json", "w"))
last = "9999-12-31T23:59:59-14:00"
record = {"user": "x", "gpu_id": "9" * 5000, "priority": 10**4000, "allocated_at": last}
json.dump(record, open("container-metadata/flood._.1001.json", "w"))'""",
    ),
    Attack(
        name="logs that are links and pipes",
        user="alice",
        script=f"""cd /var/log/ds01; mkdir -p old; mv *.log old
            ln -s {OWN}/history.jsonl container-operations.log; mkfifo gpu-allocations.log""",
        end="cd /var/log/ds01; rm *.log; mv old/* .",
    ),
    Attack(
        name="names that ds01d will use",
        user="alice",
        script="""for n in $(seq 200); do
            mkdir .gpu-state.json.ds01d-replaced-99999999999$n-aaaaaaaa
            ln -s /etc/passwd .ds01d-tmp-$n; touch -h -d '2 hours ago' .ds01d-tmp-$n
        done; ln -s /etc/passwd container-metadata/.ds01d-tmp-1""",
    ),
)


AT_ONCE: Final = (
    (
        "a state of the attacker's own",
        "a lock of the attacker's own",
        "a record that may not be read",
    ),
    ("a folder in the lock's place", "records of a megabyte"),
    ("a FIFO in the lock's place", "numbers of any size"),
    ("a link in the lock's place", "logs that are links and pipes"),
    ("a lock that one outside the group would like to hold", "names that ds01d will use"),
)
"""What is played together, as repairs go on whatever it is, and each is about another file."""


def plays() -> Iterator[tuple[Attack, ...]]:
    """Every attack once: those `AT_ONCE` together, each other one alone."""
    by_name = {attack.name: attack for attack in ATTACKS}
    for names in AT_ONCE:
        yield tuple(by_name.pop(name) for name in names)
    yield from ((attack,) for attack in by_name.values())


def name_of(attacks: tuple[Attack, ...]) -> str:
    return ", ".join(attack.name for attack in attacks).replace(" ", "-")


@pytest.mark.parametrize("attacks", tuple(plays()), ids=name_of)
def test_nothing_else_comes_to_harm_and_others_are_repaired(
    ground: Service, attacks: tuple[Attack, ...]
) -> None:
    service, machine = ground, ground.machine
    share(service, sticky=any(attack.sticky for attack in attacks))
    before = manifest(service)
    holders: list[subprocess.Popen[bytes]] = []
    for attack in attacks:
        if attack.background:
            holders.append(hold(service, attack))
        else:
            act(service, attack.user, attack.script)
    service.start()
    if all(attack.during for attack in attacks):
        booked(service, ON_TRAIN)
    for words in chain.from_iterable(attack.told for attack in attacks):
        tells(service, words)
    for command in ("reconcile", "plan"):
        machine.run("ds01ctl", command, "--json", check=False)
    service.systemctl("stop")
    machine.run("ds01ctl", "reconcile", "--json", check=False)
    assert manifest(service) == before
    for attack in attacks:
        if attack.end:
            machine.run("sh", "-euc", f"cd {LIB}\n{attack.end}", check=not attack.background)
    for holder in holders:
        holder.wait(timeout=60)
    service.start()
    booked(service, ON_TRAIN)
    assert manifest(service) == before
    largest = max(path.stat().st_size for path in service.books.state_dir.glob("history.jsonl*"))
    assert largest <= 8 << 20


def hold(service: Service, attack: Attack) -> subprocess.Popen[bytes]:
    """Begin an attack that goes on: until it has the lock, or was refused."""
    machine, lock = service.machine, f"{LIB}/gpu-state.json.lock"
    setup = f"touch {lock}; chown ds01d:ds01 {lock}; chmod 660 {lock}"
    machine.run("sh", "-euc", setup)
    script = ("sh", "-euc", f"cd {LIB}\n{attack.script}")
    process = subprocess.Popen(
        machine.inside(("runuser", "-u", attack.user, "--", *script)), stderr=subprocess.DEVNULL
    )
    free = ("flock", "-n", lock, "true")
    until(lambda: process.poll() is not None or machine.run(*free, check=False).returncode == 1)
    return process


def tells(service: Service, words: str) -> None:
    """Wait until root's plan, the STATUS line or the journal has these words."""

    def told() -> str:
        plan = service.machine.run("ds01ctl", "plan", "--json", check=False).stdout
        return f"{plan}\n{service.line}\n{service.tail()}"

    until(lambda: words in told(), what=told)


@pytest.mark.parametrize("name", ["container-metadata", "gpu-state.json", "gpu-state.json.lock"])
def test_in_the_folder_as_the_package_leaves_it_nobody_exchanges_anything(
    ground: Service, name: str
) -> None:
    service = ground
    share(service, sticky=True)
    service.start()
    booked(service, ON_TRAIN)
    before = manifest(service)
    for script in (f"mv -T {name} away", f"rm -rf {name}", f"cp -r {name} x && mv -Tf x {name}"):
        act(service, "alice", script, check=False)
        assert (service.books.state.parent / name).exists()
    act(service, "alice", "ds01-allocator allocate alice new._.1001 9 1")
    assert ("new._.1001", "1.1") not in service.books.bookings()
    assert "new._.1001" in {name for name, _ in service.books.bookings()}
    act(service, "alice", "ds01-allocator release new._.1001")
    booked(service, ON_TRAIN)
    assert manifest(service) == before


SWAPS: Final = f"""
import os, time
os.chdir("{LIB}")
targets = ["/etc/docker", "{OWN}"]
for number, target in enumerate(targets):
    os.symlink(target, f"link{{number}}")
end = time.monotonic() + 6
while time.monotonic() < end:
    for number in range(len(targets)):
        os.rename("container-metadata", "away")
        os.rename(f"link{{number}}", "container-metadata")
        os.rename("container-metadata", f"link{{number}}")
        os.rename("away", "container-metadata")
for number in range(len(targets)):
    os.unlink(f"link{{number}}")
"""


def test_swapped_again_and_again_while_passes_are_made(ground: Service) -> None:
    """Before a pass, between deciding and repairing, and while root repairs too."""
    service, machine = ground, ground.machine
    share(service, sticky=False)
    before = manifest(service)
    machine.put("/usr/lib/swaps.py", SWAPS)
    service.start()
    swapper = machine.inside(
        ("runuser", "-u", "alice", "--", "/usr/bin/python3", "/usr/lib/swaps.py")
    )
    with subprocess.Popen(swapper) as swapping:
        while swapping.poll() is None:
            machine.run("ds01ctl", "reconcile", "--json", check=False)
    assert swapping.returncode == 0
    booked(service, ON_TRAIN)
    until(lambda: service.books.record(OTHER) is None, what=service.tail)
    assert manifest(service) == before


def test_taking_back_writes_nothing_where_a_link_leads(ground: Service) -> None:
    """The bytes that come back are those of a record: whoever wrote it wrote the attacker's."""
    service, machine = ground, ground.machine
    share(service, sticky=False)
    service.start()
    booked(service, ON_TRAIN)
    service.systemctl("stop")
    (entry,) = [
        one["id"] for one in service.ctl("history")["entries"] if one.get("container") == OTHER
    ]
    for victim in (OWN, "/etc/docker"):
        machine.run("rm", f"{victim}/{OTHER}.json")
    listed = machine.run("find", OWN, "/etc/docker", "-name", "*._.*").stdout
    for target in (OWN, "/etc/docker"):
        act(service, "alice", f"mv container-metadata away; ln -s {target} container-metadata")
        done = machine.run("ds01ctl", "undo", str(entry), check=False)
        assert done.returncode == 1
        assert "container-metadata is a symbolic link of alice" in done.stderr
        assert machine.run("find", OWN, "/etc/docker", "-name", "*._.*").stdout == listed
        machine.run("sh", "-euc", f"cd {LIB}; rm container-metadata; mv away container-metadata")
    machine.run("ds01ctl", "undo", str(entry))
    assert ON_OTHER in service.books.bookings()
    for victim in (OWN, "/etc/docker"):
        machine.put(f"{victim}/{OTHER}.json", "{}")


def test_with_one_writer_none_of_it_is_possible(ground: Service) -> None:
    """Every attack of above by each of the three, the member of group ds01 included."""
    service, machine = ground, ground.machine
    service.configure(books={"writers": "service"})
    share(service, sticky=True)  # as the package does
    service.start()
    booked(service, ON_TRAIN)
    until(lambda: service.books.record(OTHER) is None, what=service.tail)  # it goes after the slot
    machine.put("/usr/lib/swaps.py", SWAPS)
    scripts = (*(attack.script for attack in ATTACKS), "/usr/bin/python3 /usr/lib/swaps.py")
    # What ds01d keeps of a replaced state goes by itself.
    links = ("!", "(", "-user", "ds01d", "-name", "*.ds01d-replaced-*", ")")
    listing = ("find", LIB, "/var/log/ds01", *links, "-printf", "%p %i %#m %u %l\\n")
    before, listed = manifest(service), machine.run(*listing).stdout
    for user in USERS:
        for script in scripts:
            tried = f"cd {LIB}; {script}"
            command = ("runuser", "-u", user, "--", "timeout", "60", "sh", "-uc", tried)
            done = machine.run(*command, check=False)
            assert done.returncode not in {0, 124}, (user, script)
            assert "Permission denied" in done.stderr, (user, script, done.stderr)
    assert machine.run(*listing).stdout == listed
    assert manifest(service) == before
    assert service.books.bookings() == {ON_TRAIN}


def test_root_writes_as_the_service_does(ground: Service) -> None:
    """What root's commands make is ds01d's, and who called stands in the history."""
    service, machine = ground, ground.machine
    share(service, sticky=True)
    for path in (f"{LIB}/gpu-state.json.lock", f"{OWN}/lock", f"{OWN}/checkpoint.json"):
        machine.run("rm", "-f", path)

    def repaired() -> bool:
        """A creation that may still be under way is no drift, and not waited for."""
        machine.run("ds01ctl", "reconcile", "--wait", "--json", check=False)
        return service.books.bookings() == {ON_TRAIN}

    until(repaired)
    machine.run("ds01-allocator", "allocate", "alice", "new._.1001", "9", "1")
    machine.run("ds01ctl", "freeze", "--for", "1h", "--reason", "a test")
    frozen = json.dumps(service.ctl("status"))
    assert '"by": "root"' in frozen
    machine.run("ds01ctl", "thaw")
    owners = machine.run(
        *("find", LIB, OWN, "-newer", "/usr/lib/books.sh", "-type", "f", "-printf", "%u %p\\n")
    ).stdout
    made = [line for line in owners.splitlines() if OTHER not in line and "train" not in line]
    assert made
    assert {line.split()[0] for line in made} == {"ds01d"}, owners
    machine.run("ds01-allocator", "release", "new._.1001")
