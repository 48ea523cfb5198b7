"""If, Loop and Scan: traced where their condition or length is known."""
