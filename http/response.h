/* One answer over HTTP, made by whoever handles the request and sent by web.c. */
#ifndef EXPERTD_HTTP_RESPONSE_H
#define EXPERTD_HTTP_RESPONSE_H

#include "http/text.h"

struct response {
    unsigned status; /* of HTTP */
    const char *content_type;
    struct text body;
    size_t json_bytes; /* not 0: the body is that much JSON and then tensors (Inference-Header-Content-Length) */
};

#endif
