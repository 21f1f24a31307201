"""What programs become for a GPU that isn't here: XLA compiles them, and its text is read."""
