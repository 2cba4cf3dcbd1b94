"""A wall clock that a test sets for the processes that it starts, while they run."""

import mmap
import os
import shutil
import struct
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

SOURCE = Path(__file__).with_name("wall_clock.c")


def build(folder):
    """The library to preload; the tests need a C compiler anyway."""
    library = Path(folder) / "wall_clock.so"
    compiler = os.environ.get("CC") or shutil.which("cc") or "gcc"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
    return library


class WallClock:
    def __init__(self, library, folder):
        self.library, self.path = library, Path(folder) / "wall-clock"
        self.path.write_bytes(bytes(8))
        with open(self.path, "r+b") as file:
            self.page = mmap.mmap(file.fileno(), 8)

    @property
    def env(self):
        """For a process that shall live by this clock."""
        return {"LD_PRELOAD": str(self.library), "TEST_WALL_CLOCK": str(self.path)}

    @property
    def ahead(self):
        """Seconds that it is before the machine's."""
        return struct.unpack("=q", self.page[:])[0]

    def jump(self, **by):
        self.page[:] = struct.pack("=q", self.ahead + int(timedelta(**by).total_seconds()))

    def now(self):
        return datetime.now(timezone.utc) + timedelta(seconds=self.ahead)
