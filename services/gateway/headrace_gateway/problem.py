"""Errors as callers see them: RFC 9457 problem documents."""

from headrace_core.web.problem import MEDIA_TYPE, ProblemError, invalid

__all__ = ["MEDIA_TYPE", "ProblemError", "invalid"]
