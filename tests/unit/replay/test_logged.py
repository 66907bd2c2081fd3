"""What the gateway's figures tell about its feature logs."""

from headrace_stack.replay.logged import Reading, reading_of

TEXT = """
process_start_time_seconds 1.795e+09
headrace_events_total{service="gateway",topic="behavior-events.v1"} 500.0
headrace_events_total{service="gateway",topic="feature-logs.v1"} 40.0
headrace_events_created{service="gateway",topic="feature-logs.v1"} 9.0
headrace_request_seconds_count{route="/v1/rank",status="200"} 41.0
headrace_request_seconds_count{route="/v1/recommend",status="200"} 2.0
headrace_request_seconds_count{route="/v1/rank",status="422"} 7.0
headrace_request_seconds_count{route="/v1/events",status="202"} 8.0
headrace_degraded_total{reason="feature_log_dropped"} 2.0
headrace_degraded_total{reason="feature_log_too_large"} 1.0
headrace_degraded_total{reason="no_model"} 3.0
"""


def test_answers_and_logs_are_counted_over_all_gateways() -> None:
    assert reading_of([TEXT]) == Reading((1.795e9,), 43, 43)
    assert reading_of([TEXT, TEXT.replace("1.795e+09", "1.8e+09")]) == Reading((1.795e9, 1.8e9), 86, 86)
    assert reading_of([""]) == Reading((), 0, 0)
