/* Any bytes as a packet between a client on the same host and the frontend: what is taken lies within them and within
 * the client's memory, and is written again as it was. */
#include <stdlib.h>
#include <string.h>

#include "proto/local_record.h"

static const uint64_t region_bytes = 1 << 20;

static void check(const struct local_record *record, const uint8_t *data, size_t size, long bytes)
{
    if (bytes <= 0 || (size_t)bytes > size || bytes % 8 != 0)
        abort();
    if (record->header_bytes && (record->header < data || record->header + record->header_bytes > data + bytes))
        abort();
    for (uint32_t i = 0; i < record->tensors && i < MESSAGE_MAX_TENSORS; i++) {
        if (record->spans[i].at > region_bytes || record->spans[i].bytes > region_bytes - record->spans[i].at)
            abort();
    }
    if (record->room.at > region_bytes || record->room.bytes > region_bytes - record->room.at)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static unsigned char again[LOCAL_PACKET_MAX];
    struct local_record record;
    for (size_t at = 0; at < size;) {
        const long bytes = local_request_parse(data + at, size - at, region_bytes, &record);
        if (bytes < 0)
            break;
        check(&record, data + at, size - at, bytes);
        if (record.slot >= LOCAL_SLOTS)
            abort();
        /* What is behind the header may be anything; all else is the same. */
        const size_t known = (size_t)(record.header - data) - at + record.header_bytes;
        if (record.tensors <= MESSAGE_MAX_TENSORS &&
            (local_request_write(&record, again, sizeof again) != bytes || memcmp(again, data + at, known) != 0))
            abort();
        at += (size_t)bytes;
    }
    for (size_t at = 0; at < size;) {
        const long bytes = local_reply_parse(data + at, size - at, region_bytes, &record);
        if (bytes < 0)
            break;
        check(&record, data + at, size - at, bytes);
        if (record.slot >= LOCAL_SLOTS && record.slot != LOCAL_READY)
            abort();
        at += (size_t)bytes;
    }
    return 0;
}
