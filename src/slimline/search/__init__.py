"""From a budget to the best trial: sensitivity, allocation, strength, study."""
