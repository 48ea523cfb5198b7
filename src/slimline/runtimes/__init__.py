"""What runs a network: one file per runtime, each exporting a network to an artifact and opening it as a runner."""
