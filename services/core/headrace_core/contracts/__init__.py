"""The wire contract as Python names: messages, actions, labels.

Generated code stays quarantined in `headrace_core._generated`; everybody imports from here.
"""

from headrace_core._generated.headrace.catalog.v1.catalog_pb2 import Item, User
from headrace_core._generated.headrace.control.v1.control_pb2 import ControlEvent
from headrace_core._generated.headrace.events.v1.events_pb2 import Action, BehaviorEvent, Enrichment
from headrace_core._generated.headrace.features.v1.features_pb2 import (
    Fallback,
    FeatureLog,
    FeaturePartial,
    FeatureSeed,
    LoggedItem,
)
from headrace_core._generated.headrace.runtime.v1.runtime_pb2 import DeadLetter
from headrace_core._generated.headrace.samples.v1.samples_pb2 import Operation, Sample, SampleChange
from headrace_core.contracts.actions import ACTION_BY_NAME, LABEL_OF_ACTION, NAME_OF_ACTION, Label
from headrace_core.contracts.time import Millis

__all__ = [
    "ACTION_BY_NAME",
    "LABEL_OF_ACTION",
    "NAME_OF_ACTION",
    "Action",
    "BehaviorEvent",
    "ControlEvent",
    "DeadLetter",
    "Enrichment",
    "Fallback",
    "FeatureLog",
    "FeaturePartial",
    "FeatureSeed",
    "Item",
    "Label",
    "LoggedItem",
    "Millis",
    "Operation",
    "Sample",
    "SampleChange",
    "User",
]
