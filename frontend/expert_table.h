/* Which expert is where: uid -> device and number of the expert in the device's control segment. Rebuilt as a whole
 * when a device comes or goes; a look-up allocates nothing. One thread. */
#ifndef EXPERTD_FRONTEND_EXPERT_TABLE_H
#define EXPERTD_FRONTEND_EXPERT_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#define EXPERT_ABSENT UINT32_MAX

struct expert_place {
    uint32_t uid_offset;  /* for expert_table_uid */
    uint32_t device;      /* number of the device in the configuration */
    uint32_t expert;      /* in its control segment; EXPERT_ABSENT: only configured there, not attached now */
    bool configured;      /* it was added as such: its configuration is known */
    bool closing;         /* it is about to go: takes no requests */
    uint32_t compression; /* enum codec: the one that its configuration advises */
    uint64_t uid_hash;
};

struct expert_table;

int expert_table_create(struct expert_table **table); /* -ENOMEM */
void expert_table_destroy(struct expert_table **table);

/* Forgets all, keeps the memory. */
void expert_table_clear(struct expert_table *table);
/* Adds a uid, which is copied; or places one that was EXPERT_ABSENT until now. -EEXIST: that uid has a place already;
 * -ENOMEM. */
int expert_table_set(struct expert_table *table, const char *uid, uint32_t device, uint32_t expert);
/* It is configured, and what its configuration advises of it; of a uid that has a place. */
void expert_table_advise(struct expert_table *table, const char *uid, uint32_t compression);

/* The uid, if it has a place, takes no requests any more. */
void expert_table_close(struct expert_table *table, const char *uid);

/* NULL: no such expert. Good until the table changes. */
const struct expert_place *expert_table_find(const struct expert_table *table, const char *uid);
/* All places, in the order in which their uids came. */
uint32_t expert_table_count(const struct expert_table *table);
const struct expert_place *expert_table_at(const struct expert_table *table, uint32_t i);
const char *expert_table_uid(const struct expert_table *table, const struct expert_place *place);

#endif
