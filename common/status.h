/* The statuses of the wire, with gRPC's names and numbers. */
#ifndef EXPERTD_COMMON_STATUS_H
#define EXPERTD_COMMON_STATUS_H

enum status {
    STATUS_OK = 0,
    STATUS_INVALID_ARGUMENT = 3,
    STATUS_DEADLINE_EXCEEDED = 4,
    STATUS_NOT_FOUND = 5,
    STATUS_ALREADY_EXISTS = 6, /* a backward whose step was applied before, and whose answer is no longer kept */
    STATUS_PERMISSION_DENIED = 7,
    STATUS_RESOURCE_EXHAUSTED = 8,
    STATUS_ABORTED = 10, /* a backward that was computed but whose optimizer step was skipped (NaN or Inf) */
    STATUS_UNIMPLEMENTED = 12,
    STATUS_INTERNAL = 13,
    STATUS_UNAVAILABLE = 14,
};

/* "OK", "INVALID_ARGUMENT", ...; "UNKNOWN" for a number that is none of them. */
const char *status_name(enum status status);

#endif
