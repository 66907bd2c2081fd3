"""Serves SavedModels by the protocol of TensorFlow Serving."""
