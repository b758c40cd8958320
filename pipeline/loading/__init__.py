"""How loading processes start and end, and the memory in which frames come from them."""
