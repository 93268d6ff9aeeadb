"""Two nodes, one of them active: who it is, its virtual addresses, and how the other one takes over."""
