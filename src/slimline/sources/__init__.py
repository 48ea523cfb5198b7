"""Where networks come from: everything is converted here, at the door."""
