"""Asking model servers for scores by TensorFlow Serving's protocol, without TensorFlow."""
