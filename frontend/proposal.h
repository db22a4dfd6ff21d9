/* What a change would make live: made of what somebody asked for, held against what is live and what there is, and
 * written down for the runtimes (common/config_live.h); frontend/change.h takes it through them. One thread. */
#ifndef EXPERTD_FRONTEND_PROPOSAL_H
#define EXPERTD_FRONTEND_PROPOSAL_H

#include "common/config_diff.h"
#include "frontend/change.h"
#include "frontend/startup.h"

struct proposal {
    struct server *server;
    struct change *change;       /* is told what is refused, and why */
    struct config *live;         /* what is to be */
    struct config *file;         /* of a RELOAD: the configuration that it is changes of; else NULL */
    struct elsewhere *elsewhere; /* likewise, what other frontends have; NULL: as before */
    struct config_diff diff;     /* from what is live now. Its uids are its own, its entries those of the two */
    char **closing;              /* uids that are about to go, malloc'd as their list is */
    size_t closing_count;
    char note[128]; /* for who has asked */
};

/* There is none any more; server and change stay. */
void proposal_free(struct proposal *proposal);

/* What the configuration file says now, for a RELOAD: *text is for proposal_make, malloc'd. 0 or -errno, logged. */
int proposal_read_file(struct proposal *proposal, const struct startup *startup, char **text);
/* What the text says is to be live, of which `file` is the configuration unless it was read again; origin names it in
 * messages. lost: a device whose experts go elsewhere, or CHANGE_NONE. 0; or -errno, with the reason logged or told to
 * the change. */
int proposal_make(struct proposal *proposal, const char *text, const char *origin, const struct config *file,
                  uint32_t lost);
/* What is live already, for a device that began with something else. 0 or -errno. */
int proposal_repeat(struct proposal *proposal, const struct config *live, const struct config *file, uint32_t device);

#endif
