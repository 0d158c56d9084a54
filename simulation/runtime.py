"""A runc for hosts that withhold capabilities from root, as many build machines do.

Docker 20.10 gives a privileged container every capability the kernel knows, and runc then fails
where one is withheld. What containers look like from outside does not depend on it, so that those
are struck from the list just before runc reads it.
"""

import shutil
from pathlib import Path
from typing import Final

CAPABILITIES: Final = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
    SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
    WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
"""In the order of the kernel's numbers."""

SCRIPT: Final = """#!/bin/sh
previous=
for word; do
    if [ "$previous" = --bundle ]; then
        sed -i -E {edits} "$word/config.json"
    fi
    previous=$word
done
exec {runc} "$@"
"""


def installed_runc() -> Path:
    """Return where this host has its runc."""
    return Path(shutil.which("runc") or "/usr/sbin/runc")


def runc(folder: Path, found: Path | None = None) -> Path:
    """Return the runc to use: `found`, or a wrapper around it, which is put into `folder`.

    `found` is the host's, unless it will lie elsewhere when the wrapper is called.
    """
    found = found or installed_runc()
    withheld = _withheld()
    if not withheld:
        return found
    edits = " ".join(f'-e \'s/"CAP_{name}",|,"CAP_{name}"//g\'' for name in withheld)
    wrapper = folder / "runc"
    wrapper.write_text(SCRIPT.format(edits=edits, runc=found), encoding="ascii")
    wrapper.chmod(0o755)
    return wrapper


def _withheld() -> list[str]:
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    bound = next(int(row.split()[1], 16) for row in status.splitlines() if row[:7] == "CapBnd:")
    return [name for number, name in enumerate(CAPABILITIES.split()) if not bound >> number & 1]
