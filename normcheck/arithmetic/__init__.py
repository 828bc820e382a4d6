"""What a number is: formats, rounding, events, orders of summation, and the arithmetics that run steps."""
