"""What a user of the platform edits, parsed once into typed plans."""
