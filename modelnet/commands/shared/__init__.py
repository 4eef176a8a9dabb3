"""What the commands share: how they write, and how their process starts and ends."""
