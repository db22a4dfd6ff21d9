/* Any text as a uid and as a pattern: what a pattern names are valid uids, and a valid uid is a pattern of itself. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/uid.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_pattern(const struct uid_pattern *pattern)
{
    char uid[UID_SIZE];
    uint64_t drawn[16];
    const uint64_t count = uid_pattern_count(pattern);
    const uint64_t some = count < 16 ? count : 16;
    if (count == 0 || uid_pattern_draw(pattern, some, count, drawn) != 0)
        abort();
    for (uint64_t i = 0; i < some; i++) {
        uid_pattern_nth(pattern, drawn[i], uid);
        if (drawn[i] >= count || !uid_valid(uid))
            abort();
    }
    uid_pattern_nth(pattern, count - 1, uid);
    if (!uid_valid(uid))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char error[64];
    char uid[UID_SIZE];
    struct uid_pattern pattern;
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    const int rc = uid_pattern_parse(&pattern, text, error, sizeof error);
    if (rc == 0)
        check_pattern(&pattern);
    if (uid_valid(text)) {
        if (rc != 0 || uid_pattern_count(&pattern) != 1)
            abort();
        uid_pattern_nth(&pattern, 0, uid);
        if (strcmp(uid, text) != 0)
            abort();
    }
    free(text);
    return 0;
}
