"""Setup, loop, step, state, optimizer, loss, schedule, learning-rate finder."""
