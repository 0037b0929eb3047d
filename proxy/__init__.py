"""A Responses API in front of inference endpoints."""
