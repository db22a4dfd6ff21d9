"""The operations of a trace, made into the server's layers.

Much of a module is no layer of its own: activations belong to the linear layer before them, a root mean square is
several operations, attention begins with splitting heads. So what an operation gives is kept as it is (values.py) until
something reads it that settles what it is (layers.py)."""
from .translator import Translator
from .values import DROPOUTS, MASK_DTYPES

__all__ = ["DROPOUTS", "MASK_DTYPES", "Translator"]
