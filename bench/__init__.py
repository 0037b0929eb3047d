"""What a stream, a token and a request cost: through this proxy, a bare pass-through and other gateways."""
