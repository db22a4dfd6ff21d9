#include "runtime/blocks/own_expert.h"

#include <dlfcn.h>
#include <string.h>

#include "common/log.h"

static bool fits(const struct own_expert *own, const char *path)
{
    static const struct own_expert mine = OWN_EXPERT(NULL);
    if (own->abi != mine.abi || own->ops_bytes != mine.ops_bytes || own->expert_bytes != mine.expert_bytes ||
        own->device_bytes != mine.device_bytes || strcmp(own->version, mine.version) != 0) {
        log_error("block '%s' was compiled for another version of the runtime: compile it with the headers of this one "
                  "(%s)",
                  path, mine.version);
        return false;
    }
    const struct expert_ops *ops = own->ops;
    if (!ops || !ops->name || !ops->schema || !ops->memory || !ops->create || !ops->warm || !ops->forward ||
        !ops->backward || !ops->finish || !ops->parameters || !ops->destroy) {
        log_error("block '%s' does not have all operations", path);
        return false;
    }
    return true;
}

const struct expert_ops *own_expert_find(const char *path)
{
    /* Every expert asks for its block: opening an object again only counts. It is never closed, as long as experts live
     * their code is in it. */
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!object) {
        log_error("cannot load block '%s': %s", path, dlerror());
        return NULL;
    }
    const struct own_expert *own = dlsym(object, "own_expert");
    if (!own)
        log_error("'%s' is no block: it does not export own_expert", path);
    return own && fits(own, path) ? own->ops : NULL;
}
