"""What the benchmarks time: ways to train the same trials, each in a process of its own."""
