/* A request of the Open Inference Protocol (KServe v2, POST .../infer) taken apart: JSON, and behind it the tensors of
 * its binary extension. Everything in it is a stranger's. Pure. */
#ifndef EXPERTD_HTTP_INFER_REQUEST_H
#define EXPERTD_HTTP_INFER_REQUEST_H

#include <stdbool.h>
#include <stddef.h>

#include "client/expertd.h"

struct json_object;

enum { INFER_WHY_SIZE = 256 };

struct infer_input {
    const char *name;
    struct expertd_tensor tensor;
    void *owned; /* its elements, if they were JSON, or lay badly in the body */
};
struct infer_output {
    const char *name;
    bool binary;
};

struct infer_request {
    const char *id; /* NULL: none */
    struct infer_input inputs[EXPERTD_MAX_TENSORS];
    size_t inputs_count;
    struct infer_output outputs[EXPERTD_MAX_TENSORS]; /* those asked for; none: all */
    size_t outputs_count;
    bool binary_output;       /* of outputs that do not say it themselves */
    struct json_object *root; /* what the names lie in */
};

/* The first json_bytes of the body are JSON (0: all of it). 0; or -EINVAL, -ENOMEM with the reason in why. The body
 * must outlive the request. Free it in every case. */
int infer_request_parse(struct infer_request *request, const char *body, size_t bytes, size_t json_bytes,
                        char why[INFER_WHY_SIZE]);
void infer_request_free(struct infer_request *request);

/* The inputs in the schema's order: 0, or -EINVAL with the reason. Shapes are the server's to check. */
int infer_request_order(const struct infer_request *request, const struct expertd_schema *schema,
                        struct expertd_tensor tensors[EXPERTD_MAX_TENSORS], char why[INFER_WHY_SIZE]);
/* Whether an output is wanted, and *binary whether as bytes. */
bool infer_request_wants(const struct infer_request *request, const char *output, bool *binary);

#endif
