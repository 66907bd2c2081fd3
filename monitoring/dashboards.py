"""The five dashboards, and `python -m monitoring.dashboards`, which writes them where the chart takes them from."""

import json
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from monitoring.panels import Query, Row, bars, board, choice, lines, number

FOLDER: Final = Path(__file__).parents[1] / "charts" / "headrace" / "dashboards"
_RATE: Final = "[$__rate_interval]"
#: Calls whose answers people wait for.
_ANSWERS: Final = 'route=~"/v1/(recommend|rank)"'


def quantile(q: float, metric: str, by: str = "", where: str = "", legend: str = "") -> Query:
    """A quantile out of a histogram of all replicas."""
    labels = f"le, {by}" if by else "le"
    told = f"p{q * 100:g}" + (f" {legend}" if legend else "")
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{{{where}}}{_RATE})))", told


def rate(metric: str, by: str = "", where: str = "", legend: str = "") -> Query:
    """A counter's rate, of all replicas; nothing counted yet is 0."""
    total = f"sum{f' by ({by})' if by else ''} (rate({metric}{{{where}}}{_RATE}))"
    return (total if by else f"{total} or vector(0)"), legend or f"{{{{{by}}}}}"


def glance() -> Dashboard:
    """Whether the loop turns, in one look."""
    errors = (
        f'(sum(rate(headrace_request_seconds_count{{{_ANSWERS}, status=~"5.."}}{_RATE})) or vector(0)) '
        f"/ sum(rate(headrace_request_seconds_count{{{_ANSWERS}}}{_RATE}))"
    )
    open_account = (
        'sum(headrace_accounting{state="impressions"}) '
        '- sum(headrace_accounting{state=~"joined|orphaned|duplicate|pending"})'
    )
    return board(
        "Platform at a glance", "Whether events become features, samples, weights and answers, and how soon.",
        Row("Now", [
            number("Answers", "Recommend and rank, all replicas.", "reqps",
                   (f"sum(rate(headrace_request_seconds_count{{{_ANSWERS}}}{_RATE}))", "answers")),
            number("Failed answers", "Share of recommend and rank answered 5xx; a degraded answer is not failed.",
                   "percentunit", (errors, "failed"), bad_above=0.001),
            number("p99 of an answer", "Recommend and rank as the gateway sees them.", "s",
                   quantile(0.99, "headrace_request_seconds", where=_ANSWERS), bad_above=0.25),
            number("Events in", "Accepted by the gateway.", "eps", rate("headrace_events_total", where='service="gateway"',
                                                                        legend="events")),
            number("Model version", "Newest version that a gateway serves; 0: popularity.", "none",
                   ("max(headrace_model_version)", "version")),
            number("Account open", "Impressions that are neither joined, orphaned, duplicate nor pending. Not 0: lost.",
                   "none", (open_account, "open"), bad_above=0.5),
        ]),
        Row("Freshness", [
            lines("Freshness p50", "From the event to its arrival (ingest), feature, sample, weights that serve (model).",
                  "s", quantile(0.5, "headrace_freshness_seconds", "stage", legend="{{stage}}")),
            lines("Freshness p99", "The same of the slowest hundredth.", "s",
                  quantile(0.99, "headrace_freshness_seconds", "stage", legend="{{stage}}")),
        ]),
        Row("What is not as it should be", [
            lines("Degraded answers", "Answers given without something, by reason.", "reqps",
                  rate("headrace_degraded_total", legend="all"), rate("headrace_degraded_total", "reason"), width=8),
            lines("Refused events", "By reason: what producers send wrong.", "eps",
                  rate("headrace_rejected_total", legend="all"), rate("headrace_rejected_total", "reason"), width=8),
            lines("Dead letters", "Records that no one can decode; `headrace dlq` shows them.", "short",
                  rate("headrace_dead_letters_total", legend="all"), rate("headrace_dead_letters_total", "topic"), width=8),
        ]),
    )  # fmt: skip


def streams() -> Dashboard:
    """The workers between Kafka and the stores."""
    return board(
        "Streams", "Feature worker and sample joiner: pace, lag, checkpoints, and what became of every impression.",
        Row("Pace", [
            lines("Events", "Taken, by service.", "eps", rate("headrace_events_total", "service")),
            lines("Watermark lag", "Now minus the watermark, the slowest partition of each job. It grows when a worker "
                  "stands, and when no one sends.", "s",
                  ("max by (job) (headrace_watermark_lag_seconds)", "{{job}}")),
        ]),
        Row("Checkpoints", [
            lines("Checkpoint time", "One transaction: state, rows, outbox.", "s",
                  quantile(0.5, "headrace_checkpoint_seconds", "job", legend="{{job}}"),
                  quantile(0.99, "headrace_checkpoint_seconds", "job", legend="{{job}}")),
            lines("Checkpoints", "How many a second.", "ops", rate("headrace_checkpoint_seconds_count", "job")),
        ]),
        Row("Samples", [
            lines("What became of impressions", "Joined as positive or negative, orphaned (no feature log), duplicate.", "eps",
                  rate("headrace_join_rows_total", "state"), width=8),
            lines("Corrections", "Published samples whose label changed: late and cancelled actions.", "eps",
                  rate("headrace_corrections_total", legend="corrections"), width=8),
            bars("Account", "All impressions since the beginning, and what became of them.", "short",
                 ("sum by (state) (headrace_accounting)", "{{state}}"), width=8),
        ]),
        Row("Features", [
            lines("Came too late", "Events after their window had closed, by feature.", "eps",
                  rate("headrace_feature_expired_total", legend="all"),
                  rate("headrace_feature_expired_total", "feature"), width=24),
        ]),
    )  # fmt: skip


def serving() -> Dashboard:
    """Gateway and model server."""
    return board(
        "Serving", "Answers over HTTP, the stages that they go through, and the versions that score them.",
        Row("Requests", [
            lines("Requests", "By route.", "reqps", rate("headrace_request_seconds_count", "route"), width=8),
            lines("By status", "429: over a limit; 503: Kafka does not take events.", "reqps",
                  rate("headrace_request_seconds_count", "status"), width=8),
            lines("Latency of answers", "Recommend and rank.", "s",
                  quantile(0.5, "headrace_request_seconds", where=_ANSWERS),
                  quantile(0.95, "headrace_request_seconds", where=_ANSWERS),
                  quantile(0.99, "headrace_request_seconds", where=_ANSWERS), width=8),
        ]),
        Row("Inside", [
            lines("Stages p99", "Where an answer's time goes.", "s",
                  quantile(0.99, "headrace_stage_seconds", "stage", legend="{{stage}}")),
            lines("Degraded", "By reason.", "reqps", rate("headrace_degraded_total", legend="all"),
                  rate("headrace_degraded_total", "reason")),
        ]),
        Row("Versions", [
            lines("Version that serves", "By model and track; a step is a swap, a step down a rollback.", "none",
                  ("max by (model, track) (headrace_model_version)", "{{model}} {{track}}"), width=8, at_least=None),
            lines("Loaded versions", "In the model server.", "none",
                  ("max by (model) (headrace_model_server_versions)", "{{model}}"), width=8),
            lines("Load time p99", "Of a version, by whether a slot with its graph was there.", "s",
                  quantile(0.99, "headrace_model_load_seconds", "slot", legend="{{slot}}"), width=8),
        ]),
        Row("Candidates", [
            lines("Items known", "Candidates of last resort in each gateway, and those that did not fit in.", "short",
                  ("max(headrace_gateway_snapshot_items)", "items"),
                  ("max(headrace_gateway_snapshot_left_out)", "left out"), width=24),
        ]),
    )  # fmt: skip


def learning() -> Dashboard:
    """Trainer and models."""
    own = 'model=~"$model", slice="all"'

    def quality(metric: str) -> Query:
        return f"avg by (model) (last_over_time({metric}{{{own}}}[5m]))", "{{model}}"

    return board(
        "Learning", "What the trainer learns, how well the weights predict what they have not learned yet, and versions.",
        Row("Quality, measured before learning", [
            lines("Log loss", "Of samples scored by the weights so far, before they learn them.", "none",
                  quality("headrace_model_logloss"), width=8),
            lines("AUC", "Of the same samples.", "none", quality("headrace_model_auc"), width=8),
            lines("Calibration", "Mean prediction over mean label; 1 is right.", "none",
                  quality("headrace_model_calibration"), width=8),
        ]),
        Row("Learning", [
            lines("Samples learned", "By operation: insert, or correct for a late or cancelled action.", "eps",
                  rate("headrace_learned_samples_total", "operation", 'model=~"$model"'), width=8),
            lines("Freshness of weights", "From the newest sample in a version to that version's export.", "s",
                  quantile(0.5, "headrace_freshness_seconds", where='stage="model"'),
                  quantile(0.99, "headrace_freshness_seconds", where='stage="model"'), width=8),
            lines("Ids with a row", "By bank; ids below admission share one.", "short",
                  ('max by (model, bank) (headrace_id_rows{model=~"$model"})', "{{model}} {{bank}}"), width=8),
        ]),
        Row("Versions", [
            lines("Exported and serving", "The gap is what validation and deployment have not let through yet.", "none",
                  ('max by (model) (headrace_exported_version{model=~"$model"})', "{{model}} exported"),
                  ('max by (model) (headrace_model_version{model=~"$model"})', "{{model}} serving"), at_least=None),
            lines("Export time p99", "One export.", "s",
                  quantile(0.99, "headrace_export_seconds", "model", 'model=~"$model"', "{{model}}")),
        ]),
        variables=[choice("model", "Model", "headrace_exported_version")],
    )  # fmt: skip


def workflows() -> Dashboard:
    """The control plane."""
    return board(
        "Workflows", "Rules that fire, tasks and their newest runs, and the way of events into Kafka.",
        Row("Rules", [
            lines("Firings", "By rule.", "cpm",
                  ("sum by (workflow, rule) (increase(headrace_rule_fired_total[1m]))", "{{workflow}} {{rule}}")),
            lines("Events set aside", "That a rule could not work with; `headrace why` shows them.", "cpm",
                  ("sum(increase(headrace_control_set_aside_total[5m])) or vector(0)", "all")),
        ]),
        Row("Tasks", [
            bars("Newest run of each task", "Its status.", "none",
                 ("sum by (workflow, task, status) (headrace_task_status)", "{{task}}: {{status}}"), width=24),
        ]),
        Row("Control plane", [
            lines("Leaders", "1, but for the seconds of a take-over.", "none", ("sum(headrace_control_leader)", "leaders")),
            lines("Events not in Kafka yet", "As the leader sees it.", "short",
                  ("max(headrace_control_relay_behind)", "behind")),
        ]),
    )  # fmt: skip


def rendered() -> dict[str, str]:
    """Content by file name."""
    content = {}
    for made in (glance(), streams(), serving(), learning(), workflows()):
        built = made.build()
        for number_of_panel, panel in enumerate(built.panels or (), 1):
            panel.id_val = number_of_panel
        content[f"{built.uid}.json"] = json.dumps(built, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
    return content


def main() -> None:
    """Write them, and nothing else is left there."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.json"):
        old.unlink()
    for name, content in rendered().items():
        (FOLDER / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
