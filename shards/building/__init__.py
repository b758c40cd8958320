"""From a list of clips to shards: the plan, the cut, copies, and the marks of what is done."""
