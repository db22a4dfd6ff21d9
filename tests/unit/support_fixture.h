/* Tensors of a small safetensors file of tests/fixtures/. The tests fail if the file or a tensor is not there. */
#ifndef EXPERTD_TESTS_SUPPORT_FIXTURE_H
#define EXPERTD_TESTS_SUPPORT_FIXTURE_H

#include <stddef.h>

struct support_fixture;
struct support_fixture *support_fixture_open(const char *name); /* "ffn" */
void support_fixture_close(struct support_fixture **fixture);
/* The tensor's floats (the fixture's own) and, in *count, how many. */
const float *support_fixture_find(const struct support_fixture *fixture, size_t *count, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
