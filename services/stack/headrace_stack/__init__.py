"""The headrace command line and the embedded stack."""
