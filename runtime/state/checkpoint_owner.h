/* Who may write the checkpoints of an expert: one process at a time, so that two servers with one folder do not load
 * each other's weights. The claim is a lock on one byte of <dir>/.lock, whose place is the uid's hash: an
 * open-file-description lock, which the kernel ends with the process, however it died. Experts that do not train need
 * none.
 *
 * The runtime's thread only. */
#ifndef EXPERTD_RUNTIME_CHECKPOINT_OWNER_H
#define EXPERTD_RUNTIME_CHECKPOINT_OWNER_H

struct checkpoint_owner;

/* Of nothing yet; dir is kept, not copied, and made at the first claim. -ENOMEM. */
int checkpoint_owner_create(struct checkpoint_owner **owner, const char *dir);
/* Ends all claims. Nulls. */
void checkpoint_owner_destroy(struct checkpoint_owner **owner);

/* Claims the expert's checkpoints; again what is claimed is nothing new. 0; -EBUSY: another process has them; or
 * -errno. All were logged. */
int checkpoint_owner_take(struct checkpoint_owner *owner, const char *uid);
/* Ends the claim, however often it was made; nothing where there is none. */
void checkpoint_owner_release(struct checkpoint_owner *owner, const char *uid);
/* The lock excludes others only as long as its name leads to it. Before a write: if the folder or the file was removed,
 * or another is there now, claims all again in what is there. 0; -EBUSY: somebody else was faster; -errno. */
int checkpoint_owner_renew(struct checkpoint_owner *owner);

#endif
