"""The commands people type, and what runs them: terminal, processes, training."""

from clipvip.pipeline.runtime.memory import say_it_in_one_line

say_it_in_one_line()
