"""Makes the messages' Python code: `python -m headrace_stack.protos` (`make protos`)."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from headrace_stack.layout import checkout

PACKAGE: Final = "headrace_core._generated"


def generate(target: Path) -> None:
    """Write the code of protos/ below a folder, each folder a package.

    protoc imports one file's code from another's by the proto's own path; ours is quarantined in a package of core.

    Raises:
        subprocess.CalledProcessError: protoc refused a file.
    """
    source = checkout() / "protos"
    files = sorted(str(file.relative_to(source)) for file in source.rglob("*.proto"))
    command = [sys.executable, "-W", "ignore", "-m", "grpc_tools.protoc", f"-I{source}"]
    subprocess.run([*command, f"--python_out={target}", f"--pyi_out={target}", *files], check=True)
    for made in target.rglob("*_pb2.py*"):
        text = made.read_text(encoding="utf-8")
        made.write_text(
            re.sub(r"^from headrace\.", f"from {PACKAGE}.headrace.", text, flags=re.MULTILINE), encoding="utf-8"
        )
    for folder in [target, *(path for path in target.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").touch()


def main() -> None:
    """Entry point: replaces core's generated code, whole or not at all."""
    kept = checkout() / "services" / "core" / PACKAGE.replace(".", "/")
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        made = Path(folder) / "made"
        made.mkdir()
        generate(made)
        shutil.rmtree(kept)
        made.rename(kept)


if __name__ == "__main__":
    main()
