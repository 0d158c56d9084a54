"""A real journald on a /run of its own, with the message catalog compiled, and what is in it then.

All of it lives in a mount namespace: nothing of the host's journal or catalogs is touched.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CATALOG = ROOT / "systemd" / "ds01d.catalog"

_STORY = """
set -e
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal
mount -t tmpfs tmpfs /var/lib/systemd && mkdir /var/lib/systemd/catalog
mount -t tmpfs tmpfs /usr/lib/systemd/catalog && cp "$CATALOG" /usr/lib/systemd/catalog/
journalctl --update-catalog
settings=/run/systemd/journald.conf.d && mkdir $settings
printf '[Journal]\\nStorage=volatile\\nRateLimitIntervalSec=0\\n' > $settings/here.conf
/lib/systemd/systemd-journald & pid=$!
for try in $(seq 500); do [ -S /run/systemd/journal/socket ] && break; sleep 0.01; done
JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) "$@" >&2 && status=0 || status=$?
kill -TERM $pid; wait $pid || true
[ $status = 0 ]
journalctl -D /run/log/journal -o json --all SYSLOG_IDENTIFIER=ds01d > "$OUT/entries"
journalctl -D /run/log/journal -x --no-pager -o short SYSLOG_IDENTIFIER=ds01d > "$OUT/explained"
"""


def in_journal(command: Sequence[str], out: Path) -> tuple[list[dict[str, Any]], str]:
    """Run a command whose stderr is the journal's, as systemd says it; needs root.

    Gives its entries, and what `journalctl -x` shows.
    """
    subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", _STORY, "sh", *command],
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "CATALOG": str(CATALOG),
            "OUT": str(out),
            "LANG": "C.UTF-8",
        },
        cwd=ROOT,
        check=True,
        timeout=100,
    )
    lines = (out / "entries").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], (out / "explained").read_text(encoding="utf-8")
