"""hivemind.utils.networking."""
LOCALHOST = "127.0.0.1"

__all__ = ["LOCALHOST"]
