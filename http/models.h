/* The Open Inference Protocol (KServe v2), forward alone: a model is an expert, its name the uid, its only version "1".
 *
 *     GET  /v2                              GET  /v2/health/live, /v2/health/ready
 *     GET  /v2/models/UID[/versions/1]      GET  /v2/models/UID[/versions/1]/ready
 *     GET  /v2/models/UID[/versions/1]/config   (as Triton has it: max_batch_size, tensors)
 *     GET  /v2/models/stats, /v2/models/UID[/versions/1]/stats
 *     POST /v2/models/UID[/versions/1]/infer
 *     POST /v2/repository/index             POST /v2/repository/models/UID/load, .../unload (http/repository.h)
 *
 * Errors are {"error": "..."} with a status of HTTP. Any thread. */
#ifndef EXPERTD_HTTP_MODELS_H
#define EXPERTD_HTTP_MODELS_H

#include <stdbool.h>

#include "http/response.h"
#include "http/upstream.h"

struct models_request {
    const char *path; /* behind "/v2" */
    bool post;
    const char *body;
    size_t body_bytes, json_bytes; /* json_bytes 0: all of it is JSON */
};

void models_answer(struct response *response, struct upstream *upstream, const struct models_request *request);

#endif
