"""One technique, one file; `slimline.methods.method` says what a method is."""
