"""Fr-BRAIN: claims scans from the store, analyses them in worker processes, writes reports."""
