"""A file a command: parse, call, print. Only here is anything printed."""
