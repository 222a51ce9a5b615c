"""The machine that an instance boots on, with its commands recorded and its files in a folder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VOLUME = "vol-0a1b2c3d4e5f60718"
_DEVICES = "dev/disk/by-id"
_RECORD = """#!/usr/bin/env bash
echo "{name} $*" >>"$BOOT_RECORD"
{behaviour}
"""
_BEHAVIOUR = {
    "curl": "case \"$*\" in *api/token) echo token ;; *instance-id) echo i-0123456789abcdef0 ;; esac",
    "snap": "",
    "apt-get": "",
    "systemctl": "",
    "mount": "",
    "sleep": "",
    "mkfs.ext4": "touch \"$CATALUNYA_BOOT_ROOT/formatted\"",
    "blkid": "test -e \"$CATALUNYA_BOOT_ROOT/formatted\" || exit 2",
    "docker": """case "$*" in
    *"version --short") echo 2.40.3 ;;
    *config) printf '  airflow-apiserver:\\n        published: "8080"\\n  site:\\n        published: "8081"\\n' ;;
    *"ps --quiet"*) echo 0123456789ab ;;
esac""",
}  # fmt: skip
ATTACH = """case "$*" in *attach-volume*)
    if [ -e "$CATALUNYA_BOOT_ROOT/busy" ]; then rm "$CATALUNYA_BOOT_ROOT/busy" && exit 255; fi
    volume=${4/-/}
    mkdir -p "$BOOT_DEVICES" && touch "$BOOT_DEVICES/nvme-Amazon_Elastic_Block_Store_$volume" && exit
esac
"""


@dataclass
class Machine:
    """A machine in `root` that runs `user_data`; `aws` is the behaviour of AWS's command line."""

    root: Path
    user_data: str
    aws: str

    def __post_init__(self) -> None:
        (self.root / "bin").mkdir(parents=True)
        (self.root / "etc").mkdir()
        for name, behaviour in {**_BEHAVIOUR, "aws": ATTACH + self.aws}.items():
            self.replace(name, behaviour)

    def replace(self, name: str, behaviour: str) -> None:
        """Give a command another behaviour."""
        path = self.root / "bin" / name
        path.write_text(_RECORD.format(name=name, behaviour=behaviour))
        path.chmod(0o755)

    def boot(self, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run the script of the first boot."""
        env = {
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "CATALUNYA_BOOT_ROOT": str(self.root),
            "BOOT_RECORD": str(self.root / "record"),
            "BOOT_DEVICES": str(self.root / _DEVICES),
            **(variables or {}),
        }
        return subprocess.run(
            ["bash", "-c", self.user_data], env=env, capture_output=True, text=True, check=False, timeout=120
        )

    @property
    def record(self) -> list[str]:
        return (self.root / "record").read_text().splitlines()

    def commands(self, name: str) -> list[str]:
        """Return the recorded commands that begin with `name`."""
        return [line for line in self.record if line.startswith(f"{name} ")]

    @property
    def settings_file(self) -> Path:
        return self.root / "opt/catalunya/orchestration/config/environment/production.env"

    @property
    def settings(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.settings_file.read_text().splitlines())
