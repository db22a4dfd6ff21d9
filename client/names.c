/* Names and sizes that programs ask for, and the one thing that is set for the whole process. */
#include <malloc.h>

#include "client/expertd.h"
#include "common/status.h"
#include "common/tensor.h"
#include "proto/codec.h"

uint32_t expertd_version_number(void)
{
    return EXPERTD_VERSION_NUMBER;
}

const char *expertd_version(void)
{
    return EXPERTD_VERSION; /* the build's; that it is the header's is a matter of a test */
}

const char *expertd_status_name(enum expertd_status status)
{
    return status_name((enum status)status);
}

size_t expertd_dtype_size(enum expertd_dtype dtype)
{
    return dtype_size((uint32_t)dtype);
}

const char *expertd_dtype_name(enum expertd_dtype dtype)
{
    return dtype_name((uint32_t)dtype);
}

const char *expertd_codec_name(enum expertd_codec codec)
{
    return codec_name((uint32_t)codec);
}

int expertd_codec_of_name(const char *name, enum expertd_codec *codec)
{
    const int number = codec_of_name(name);
    if (number >= 0)
        *codec = (enum expertd_codec)number;
    return number < 0 ? number : 0;
}

void expertd_tune_allocator(void)
{
#ifdef __GLIBC__
    enum { MIB = 1 << 20 };
    mallopt(M_MMAP_THRESHOLD, 32 * MIB); /* glibc takes no more */
    mallopt(M_TRIM_THRESHOLD, 1024 * MIB);
    mallopt(M_TOP_PAD, 16 * MIB); /* grow by much, so that growing is rare */
#endif
}
