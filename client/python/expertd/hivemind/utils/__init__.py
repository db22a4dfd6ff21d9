"""hivemind.utils."""
import time
from concurrent.futures import Future as MPFuture

from .limits import increase_file_limit
from .logging import get_logger, use_hivemind_log_handler
from .networking import LOCALHOST
from .tensor_descr import BatchTensorDescriptor

__all__ = ["BatchTensorDescriptor", "LOCALHOST", "MPFuture", "get_dht_time", "get_logger", "increase_file_limit",
           "use_hivemind_log_handler"]

get_dht_time = time.time
