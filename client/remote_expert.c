/* hivemind's RemoteExpert: a uid, and tasks for it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/remote_task.h"
#include "common/uid.h"

struct expertd_expert {
    struct expertd_dht *dht;
    struct server *server; /* held; NULL: wherever the uid is */
    char uid[UID_SIZE];
};

static int make(struct expertd_expert **result, struct expertd_dht *dht, const char *endpoint, const char *uid)
{
    *result = NULL;
    if (!uid_valid(uid) || (!endpoint && !dht->lookups))
        return -EINVAL;
    struct expertd_expert *expert = calloc(1, sizeof *expert);
    if (!expert)
        return -ENOMEM;
    expert->dht = dht;
    memcpy(expert->uid, uid, strlen(uid) + 1);
    if (endpoint) {
        expert->server = server_list_get(&dht->servers, endpoint, "");
        if (!expert->server) {
            free(expert);
            return -errno;
        }
    }
    *result = expert;
    return 0;
}

int expertd_expert_new(struct expertd_expert **expert, struct expertd_dht *dht, const char *uid)
{
    return make(expert, dht, NULL, uid);
}

int expertd_expert_at(struct expertd_expert **expert, struct expertd_dht *dht, const char *endpoint, const char *uid)
{
    *expert = NULL;
    return endpoint ? make(expert, dht, endpoint, uid) : -EINVAL;
}

void expertd_expert_destroy(struct expertd_expert **expert)
{
    if (*expert && (*expert)->server)
        server_release((*expert)->server);
    free(*expert);
    *expert = NULL;
}

int expertd_expert_forward(struct expertd_expert *expert, const struct expertd_tensor *inputs, size_t n_inputs,
                           uint32_t deadline_ms, struct expertd_task **task)
{
    const struct remote_task_request request = {.uid = expert->uid,
                                                .server = expert->server,
                                                .patient = true,
                                                .tensors = {inputs},
                                                .count = {n_inputs},
                                                .deadline_ms = deadline_ms};
    return remote_task_start(expert->dht, &request, task);
}

int expertd_expert_backward(struct expertd_expert *expert, const struct expertd_tensor *inputs, size_t n_inputs,
                            const struct expertd_tensor *grad_outputs, size_t n_grad_outputs, uint32_t deadline_ms,
                            struct expertd_task **task)
{
    return expertd_expert_backward_for(expert, inputs, n_inputs, NULL, grad_outputs, n_grad_outputs, deadline_ms, task);
}

int expertd_expert_backward_for(struct expertd_expert *expert, const struct expertd_tensor *inputs, size_t n_inputs,
                                const bool *requires_grad, const struct expertd_tensor *grad_outputs,
                                size_t n_grad_outputs, uint32_t deadline_ms, struct expertd_task **task)
{
    const struct remote_task_request request = {.uid = expert->uid,
                                                .server = expert->server,
                                                .backward = true,
                                                .patient = true,
                                                .tensors = {inputs, grad_outputs},
                                                .count = {n_inputs, n_grad_outputs},
                                                .requires_grad = requires_grad,
                                                .deadline_ms = deadline_ms};
    return remote_task_start(expert->dht, &request, task);
}
