"""Pure logic: user sequences and counts at the source partition, ranked lists at the key's, catalog entries."""
