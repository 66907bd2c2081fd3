"""Decides by the rules what runs; one leader at a time."""
