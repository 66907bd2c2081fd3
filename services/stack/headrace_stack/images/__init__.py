"""The images of the services, built and measured: `python -m headrace_stack.images`."""
