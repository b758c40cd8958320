"""The commands people type, and what runs them: terminal, processes, training."""
