"""How any stage runs: errors, workers, progress, report."""
