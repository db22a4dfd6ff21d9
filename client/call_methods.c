/* The calls that programs make, as requests. */
#include "client/client.h"
#include "client/expertd.h"

int expertd_ping(struct expertd_client *client, uint32_t deadline_ms, struct expertd_call **call)
{
    struct call_request request = {.method = EXPERTD__METHOD__PING};
    return client_make_call(client, &request, deadline_ms, call);
}

int expertd_list(struct expertd_client *client, const char *prefix, uint32_t offset, uint32_t limit,
                 uint32_t deadline_ms, struct expertd_call **call)
{
    Expertd__ListQuery query = EXPERTD__LIST_QUERY__INIT;
    struct call_request request = {.method = EXPERTD__METHOD__LIST, .list = &query};
    if (prefix)
        query.prefix = (char *)(uintptr_t)prefix;
    query.offset = offset;
    query.limit = limit;
    return client_make_call(client, &request, deadline_ms, call);
}

int expertd_info(struct expertd_client *client, const char *uid, uint32_t deadline_ms, struct expertd_call **call)
{
    struct call_request request = {.method = EXPERTD__METHOD__INFO, .uid = uid};
    return client_make_call(client, &request, deadline_ms, call);
}

int expertd_stats(struct expertd_client *client, uint32_t deadline_ms, struct expertd_call **call)
{
    struct call_request request = {.method = EXPERTD__METHOD__STATS};
    return client_make_call(client, &request, deadline_ms, call);
}

int expertd_stats_experts(struct expertd_client *client, const char *prefix, uint32_t limit, uint32_t deadline_ms,
                          struct expertd_call **call)
{
    Expertd__ListQuery query = EXPERTD__LIST_QUERY__INIT;
    struct call_request request = {.method = EXPERTD__METHOD__STATS, .list = &query};
    if (prefix)
        query.prefix = (char *)(uintptr_t)prefix;
    query.limit = limit;
    return client_make_call(client, &request, deadline_ms, call);
}

int expertd_checkpoint(struct expertd_client *client, const char *uid, uint32_t deadline_ms, struct expertd_call **call)
{
    struct call_request request = {.method = EXPERTD__METHOD__CHECKPOINT, .uid = uid};
    return client_make_call(client, &request, deadline_ms, call);
}

int expertd_load(struct expertd_client *client, const char *uid, const char *const *settings, size_t n_settings,
                 uint32_t deadline_ms, struct expertd_call **call)
{
    struct call_request request = {
        .method = EXPERTD__METHOD__LOAD, .uid = uid, .settings = settings, .n_settings = n_settings};
    return client_make_call(client, &request, deadline_ms, call);
}

int expertd_unload(struct expertd_client *client, const char *uid, uint32_t deadline_ms, struct expertd_call **call)
{
    struct call_request request = {.method = EXPERTD__METHOD__UNLOAD, .uid = uid};
    return client_make_call(client, &request, deadline_ms, call);
}

int expertd_set(struct expertd_client *client, const char *uid, const char *const *settings, size_t n_settings,
                uint32_t deadline_ms, struct expertd_call **call)
{
    struct call_request request = {
        .method = EXPERTD__METHOD__SET, .uid = uid, .settings = settings, .n_settings = n_settings};
    return client_make_call(client, &request, deadline_ms, call);
}

int expertd_reload(struct expertd_client *client, uint32_t deadline_ms, struct expertd_call **call)
{
    struct call_request request = {.method = EXPERTD__METHOD__RELOAD};
    return client_make_call(client, &request, deadline_ms, call);
}

int expertd_forward(struct expertd_client *client, const char *uid, const struct expertd_tensor *inputs,
                    size_t n_inputs, uint32_t deadline_ms, struct expertd_call **call)
{
    struct call_request request = {
        .method = EXPERTD__METHOD__FORWARD, .uid = uid, .tensors = {inputs}, .count = {n_inputs}};
    return client_make_call(client, &request, deadline_ms, call);
}

int expertd_forward_parts(struct expertd_client *client, const struct expertd_part *parts, size_t n_parts,
                          const struct expertd_tensor *inputs, size_t n_inputs, uint32_t deadline_ms,
                          struct expertd_call **call)
{
    struct call_request request = {.method = EXPERTD__METHOD__FORWARD,
                                   .many = true,
                                   .parts = parts,
                                   .n_parts = n_parts,
                                   .tensors = {inputs},
                                   .count = {n_inputs}};
    return client_make_call(client, &request, deadline_ms, call);
}

int expertd_backward_parts(struct expertd_client *client, const struct expertd_part *parts, size_t n_parts,
                           const struct expertd_tensor *inputs, size_t n_inputs,
                           const struct expertd_tensor *grad_outputs, size_t n_grad_outputs, uint32_t deadline_ms,
                           struct expertd_call **call)
{
    struct call_request request = {.method = EXPERTD__METHOD__BACKWARD,
                                   .many = true,
                                   .parts = parts,
                                   .n_parts = n_parts,
                                   .tensors = {inputs, grad_outputs},
                                   .count = {n_inputs, n_grad_outputs}};
    return client_make_call(client, &request, deadline_ms, call);
}

int expertd_backward(struct expertd_client *client, const char *uid, const struct expertd_tensor *inputs,
                     size_t n_inputs, const struct expertd_tensor *grad_outputs, size_t n_grad_outputs,
                     uint32_t deadline_ms, struct expertd_call **call)
{
    return expertd_backward_for(client, uid, inputs, n_inputs, NULL, grad_outputs, n_grad_outputs, deadline_ms, call);
}

int expertd_backward_for(struct expertd_client *client, const char *uid, const struct expertd_tensor *inputs,
                         size_t n_inputs, const bool *requires_grad, const struct expertd_tensor *grad_outputs,
                         size_t n_grad_outputs, uint32_t deadline_ms, struct expertd_call **call)
{
    struct call_request request = {.method = EXPERTD__METHOD__BACKWARD,
                                   .uid = uid,
                                   .tensors = {inputs, grad_outputs},
                                   .count = {n_inputs, n_grad_outputs},
                                   .requires_grad = requires_grad};
    return client_make_call(client, &request, deadline_ms, call);
}
