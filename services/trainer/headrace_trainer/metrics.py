"""What the trainer tells Prometheus."""

from typing import Final

from headrace_core.telemetry import SECONDS
from prometheus_client import Counter, Gauge, Histogram

AUC: Final = Gauge("headrace_model_auc", "Area under the ROC curve, progressive.", ["model", "version", "slice"])
LOGLOSS: Final = Gauge("headrace_model_logloss", "Log loss, progressive.", ["model", "version", "slice"])
CALIBRATION: Final = Gauge(
    "headrace_model_calibration", "Mean prediction over mean label, progressive.", ["model", "version", "slice"]
)
LEARNED: Final = Counter(
    "headrace_learned_samples_total", "Samples learned, by model and operation.", ["model", "operation"]
)
LEARNED_SEQ: Final = Gauge(
    "headrace_learned_seq",
    "Last change of samples.v1 that is in the weights, by model and source.",
    ["model", "source"],
)
ROWS: Final = Gauge("headrace_id_rows", "Ids with a row of their own, by model and bank.", ["model", "bank"])
EXPORT_SECONDS: Final = Histogram("headrace_export_seconds", "Time of one export.", ["model"], buckets=SECONDS)
EXPORTED_VERSION: Final = Gauge("headrace_exported_version", "Newest version that was exported.", ["model"])
