"""hivemind.utils."""
import logging
import time
from concurrent.futures import Future as MPFuture

from .tensor_descr import BatchTensorDescriptor

__all__ = ["BatchTensorDescriptor", "MPFuture", "get_dht_time", "get_logger"]

get_dht_time = time.time
get_logger = logging.getLogger
