"""What can go wrong with a call: one exception for each status of the protocol, with the server's sentence."""
from __future__ import annotations

from typing import Dict, Optional, Tuple, Type

__all__ = [
    "ExpertdError", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied", "ResourceExhausted", "Aborted",
    "Unimplemented", "Internal", "Unavailable", "error_of", "of_failure",
]


class ExpertdError(Exception):
    """A call failed. `status` is the protocol's number, `status_name` its name, `message` a sentence for a person,
    `endpoint` the server and `uid` the expert it was about. `not_applied` is True where the expert has certainly not
    learned from it: the call was never sent, was refused, or is no backward."""

    status = 13
    status_name = "INTERNAL"

    def __init__(self, message: str, *, endpoint: str = "", uid: str = "", not_applied: bool = True,
                 status: Optional[int] = None):
        super().__init__(message)
        self.message, self.endpoint, self.uid, self.not_applied = message, endpoint, uid, not_applied
        if status is not None:
            self.status = status

    def __reduce__(self) -> Tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.endpoint, self.uid, self.not_applied, self.status)

    def __str__(self) -> str:
        where = " at ".join(part for part in (self.uid, self.endpoint) if part)
        return f"{self.status_name}: {self.message}" + (f" ({where})" if where else "")


class InvalidArgument(ExpertdError, ValueError):
    """The request is wrong; the message says what was expected."""
    status, status_name = 3, "INVALID_ARGUMENT"


class DeadlineExceeded(ExpertdError, TimeoutError):
    """Not done in time. A backward may have been applied."""
    status, status_name = 4, "DEADLINE_EXCEEDED"


class NotFound(ExpertdError, LookupError):
    """The server, or the DHT, knows no such expert."""
    status, status_name = 5, "NOT_FOUND"


class AlreadyExists(ExpertdError):
    """That backward was applied before, and its answer is no longer kept: the expert has learned."""
    status, status_name = 6, "ALREADY_EXISTS"


class PermissionDenied(ExpertdError, PermissionError):
    """This client's key may not do that."""
    status, status_name = 7, "PERMISSION_DENIED"


class ResourceExhausted(ExpertdError):
    """The expert's pool or the server is full; nothing was done."""
    status, status_name = 8, "RESOURCE_EXHAUSTED"


class Aborted(ExpertdError, ArithmeticError):
    """A gradient of the backward's batch was NaN or infinite; the expert has not changed."""
    status, status_name = 10, "ABORTED"


class Unimplemented(ExpertdError, NotImplementedError):
    """The server does not know the method or the codec."""
    status, status_name = 12, "UNIMPLEMENTED"


class Internal(ExpertdError):
    """The batch failed on the device, or a checkpoint could not be written. Nothing was applied."""
    status, status_name = 13, "INTERNAL"


class Unavailable(ExpertdError, ConnectionError):
    """No connection, or the expert's runtime is not up or went away. A backward may have been applied."""
    status, status_name = 14, "UNAVAILABLE"


_BY_STATUS: Dict[int, Type[ExpertdError]] = {
    kind.status: kind for kind in (InvalidArgument, DeadlineExceeded, NotFound, AlreadyExists, PermissionDenied,
                                   ResourceExhausted, Aborted, Unimplemented, Internal, Unavailable)
}
# After these a backward may have been applied, or has been.
_PERHAPS_APPLIED = {4, 6, 14}
# These come of the batch that the backward was in; the others are said without a look at what was applied before.
_OF_THE_BATCH = {10, 13}


def error_of(status: int, message: str, *, endpoint: str = "", uid: str = "", backward: bool = False,
             uncertain: bool = False) -> ExpertdError:
    """The exception for a reply of that status. Numbers that are not known count as INTERNAL. uncertain: the same backward
    was sent before, and what became of it is not known."""
    kind = _BY_STATUS.get(status, Internal)
    not_applied = not backward or (status in _BY_STATUS and status not in _PERHAPS_APPLIED and
                                   (not uncertain or status in _OF_THE_BATCH))
    return kind(message, endpoint=endpoint, uid=uid, not_applied=not_applied, status=status)


def of_failure(failure: Exception, *, endpoint: str = "", uid: str = "", not_applied: bool = True) -> ExpertdError:
    """What else keeps a call from its server, on this side: itself, if it is one of these; a system's error (a key file that is
    gone, no more descriptors) is UNAVAILABLE, a value's INVALID_ARGUMENT, all else INTERNAL. It is the cause."""
    if isinstance(failure, ExpertdError):
        return failure
    kind = Unavailable if getattr(failure, "errno", None) is not None else InvalidArgument if isinstance(failure, ValueError) else Internal
    error = kind(f"the call cannot be made: {str(failure) or repr(failure)}", endpoint=endpoint, uid=uid, not_applied=not_applied)
    error.__cause__ = failure
    return error


def _rebuild(kind: Type[ExpertdError], message: str, endpoint: str, uid: str, not_applied: bool,
             status: int) -> ExpertdError:
    return kind(message, endpoint=endpoint, uid=uid, not_applied=not_applied, status=status)
