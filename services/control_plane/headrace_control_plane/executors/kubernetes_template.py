"""What the chart's template tells: the Job of a run, and whose all of it is."""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from headrace_control_plane.executors.executor import ExecutorError

#: Jobs that we made have it as their app.kubernetes.io/managed-by.
MANAGER: Final = "headrace-control-plane"
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
INSTANCE: Final = "app.kubernetes.io/instance"
COMPONENT: Final = "app.kubernetes.io/component"
RUN_ID: Final = "headrace/run-id"
ATTEMPT: Final = "headrace/attempt"
_IMAGES: Final = "headrace/images"
#: Stands for the run's id in the template.
_PLACE: Final = "RUN_ID"


@dataclass(frozen=True, slots=True)
class JobTemplate:
    """The template of Jobs.

    Attributes:
        document: as it was read.
        images: the image that has a command, by the command; others run in the one that stands in the template.
        namespace: of the installation.
        instance: its name, by which its objects are told from those of others.
    """

    document: Mapping[str, Any]
    images: Mapping[str, str]
    namespace: str
    instance: str

    @classmethod
    def read(cls, path: Path) -> "JobTemplate":
        """Read it.

        Raises:
            ExecutorError: with what is wrong.
        """
        try:
            document = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
            metadata = document["metadata"]
            images = json.loads(metadata.get("annotations", {}).pop(_IMAGES, "{}"))
            if document["kind"] != "Job" or not document["spec"]["template"]["spec"]["containers"]:
                raise ExecutorError(f"{path}: no Job with a container")
            return cls(document, images, str(metadata["namespace"]), str(metadata["labels"][INSTANCE]))
        except (OSError, YAMLError, ValueError) as error:
            raise ExecutorError(f"{path}: {error}") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise ExecutorError(f"{path}: it lacks {error}") from error

    @property
    def owned(self) -> dict[str, str]:
        """Labels of the Jobs that we made."""
        return {MANAGED_BY: MANAGER, INSTANCE: self.instance}

    def name(self, run: Mapping[str, Any]) -> str:
        """The name of the Job of this attempt of a run: the same whoever asks, and no other attempt's.

        The run's id is workflow, task and number; when it was created tells it from one that had the number in a database
        before this one.
        """
        of = json.dumps([self.instance, run["run_id"], run["created_at"], run["attempt"]])
        return f"run-{hashlib.sha256(of.encode()).hexdigest()[:40]}"

    def job(self, run: Mapping[str, Any], owners: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """The Job of this attempt of a run, which goes with these Deployments."""
        job: dict[str, Any] = _filled(copy.deepcopy(self.document), run["run_id"])
        metadata = job["metadata"]
        metadata["name"] = self.name(run)
        metadata.setdefault("labels", {}).update(self.owned)
        metadata.setdefault("annotations", {}).update({RUN_ID: run["run_id"], ATTEMPT: str(run["attempt"])})
        if owners:
            metadata["ownerReferences"] = [_reference(one) for one in owners]
        job["spec"]["backoffLimit"] = 0  # another attempt is the scheduler's to decide
        container = job["spec"]["template"]["spec"]["containers"][0]
        container["image"] = self.images.get(run["command"][0], container.get("image"))
        return job

    def ours(self, job: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
        """Whether a Job of the run's name is the one that we would have made."""
        metadata = job["metadata"]
        labels, annotations = metadata.get("labels", {}), metadata.get("annotations", {})
        return bool(self.owned.items() <= labels.items() and annotations.get(RUN_ID) == run["run_id"])


def _reference(deployment: Mapping[str, Any]) -> dict[str, Any]:
    """To an owner that need not wait for its Jobs when it goes (that is a right of its own), and does not control them."""
    of = deployment["metadata"]
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": of["name"], "uid": of["uid"], "controller": False}


def _filled(value: Any, run_id: str) -> Any:
    if isinstance(value, dict):
        return {name: _filled(one, run_id) for name, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, run_id) for one in value]
    return run_id if value == _PLACE else value
