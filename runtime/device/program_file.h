/* A file of compiled kernels, as device_program.c keeps them from one start to the next. What a driver is given it may
 * run, so that it is only given what this user has written, whole. Knows no OpenCL. */
#ifndef EXPERTD_RUNTIME_PROGRAM_FILE_H
#define EXPERTD_RUNTIME_PROGRAM_FILE_H

#include <stddef.h>
#include <stdint.h>

enum { PROGRAM_FILE_MAX_BYTES = 256 << 20 };

/* FNV-1a, and where it begins; goes on from `hash`. */
#define PROGRAM_FILE_HASH UINT64_C(0xcbf29ce484222325)
uint64_t program_file_hash(uint64_t hash, const void *bytes, size_t size);

/* The program in the file, the caller's to free. -ENOENT: there is no file; -EPERM: it is no plain file, or others can
 * write it; -EBADMSG: it is cut off, damaged, or no such file at all. */
int program_file_read(const char *path, unsigned char **bytes, size_t *length);
/* Replaces the file as a whole, by way of <path>.<process id>. */
int program_file_write(const char *path, const unsigned char *bytes, size_t length);

#endif
