"""The stream runtime: batches, claims, epochs, checkpoints, outbox; Faust only drives it."""
