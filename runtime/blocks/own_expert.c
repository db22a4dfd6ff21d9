#include "runtime/blocks/own_expert.h"

#include <dlfcn.h>
#include <string.h>

#include "common/log.h"

static bool fits(const struct own_expert *own, const char *path)
{
    static const struct own_expert mine = OWN_EXPERT(NULL);
    if (own->abi != mine.abi || own->version_bytes != mine.version_bytes || own->headers != mine.headers ||
        strcmp(own->version, mine.version) != 0) {
        log_error("block '%s' was compiled for another version of the runtime: compile it with the headers of this one "
                  "(%s)",
                  path, mine.version);
        return false;
    }
    for (unsigned i = 0; own->block != NULL && own->block->kinds != NULL && own->block->kinds[i] != NULL; i++) {
        const struct block_kind *kind = own->block->kinds[i];
        if (!kind->name || !kind->shape || !kind->implementation || !kind->implementation->forward ||
            !kind->implementation->backward) {
            log_error("block '%s': its kind of layer '%s' has not all that a kind has", path,
                      kind->name ? kind->name : "");
            return false;
        }
    }
    if (own->block == NULL || !own->block->name || own->block->layers_count == 0) {
        log_error("block '%s' declares none", path);
        return false;
    }
    return true;
}

const struct block *own_expert_find(const char *path)
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
    return own && fits(own, path) ? own->block : NULL;
}
