"""`headrace-init`: migrations and topics, the job that runs before anything else."""
