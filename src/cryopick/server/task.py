"""Run one command to its end and write down what became of it: a process that outlives the server.

``python -m cryopick.server.task RECORD`` starts the command of a record; its output goes to the
log beside the record.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cryopick.io.atomic import write_json
from cryopick.pipeline.project_holder import this_place
from cryopick.pipeline.project_layout import now
from cryopick.server.commands import environment, program

__all__ = ["main"]


def main() -> int:
    """Run the command of a record; the exit code is its."""
    path = Path(sys.argv[1])
    record: dict[str, Any] = json.loads(path.read_bytes())
    begun = time.monotonic()
    before = float(record.get("seconds", 0.0))
    with path.with_suffix(".log").open("ab") as log:
        child = subprocess.Popen(
            [*program(), *map(str, record["words"])],
            env=environment(),
            cwd=record["cwd"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

        def stop(*_: object) -> None:
            child.send_signal(signal.SIGTERM)

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        record |= {"state": "running", "started": now(), "place": asdict(this_place())}
        write_json(path, record)
        code = child.wait()
    record |= {
        "state": _state(code),
        "code": code,
        "ended": now(),
        "seconds": round(before + time.monotonic() - begun, 1),
    }
    write_json(path, record)
    return code


def _state(code: int) -> str:
    if code in (0, 3):  # 3: some items were refused
        return "done"
    return "stopped" if code in (130, 143, -signal.SIGTERM, -signal.SIGINT) else "failed"


if __name__ == "__main__":
    sys.exit(main())
