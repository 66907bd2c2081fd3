"""What the HTTP services share; needs the extra `web`."""
