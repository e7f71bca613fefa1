"""One module per deployable process, and the command line; wiring only."""
