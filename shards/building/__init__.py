"""From a list of clips to shards: the plan, the cut and the marks of what is done."""
