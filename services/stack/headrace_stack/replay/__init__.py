"""Logs of impressions and clicks sent through the HTTP API as if they happened now."""
