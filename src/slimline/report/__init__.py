"""What a user reads: the certificate, the page made from it, and the lines on the terminal."""
