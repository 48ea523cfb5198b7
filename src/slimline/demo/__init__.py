"""What `slimline demo` ships: a trained network, a slice of Fashion-MNIST and the job that uses both."""
