"""Networks by name, weights, initialization, backbones."""
