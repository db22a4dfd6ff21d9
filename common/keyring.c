#include "common/keyring.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/certificate.h"
#include "common/clock.h"
#include "common/log.h"

static const uint64_t pause_ns = NS_PER_S / 10;

struct entry {
    char key[CERTIFICATE_KEY_SIZE];
    enum role role;
};

struct entries {
    struct entry *items; /* by key */
    uint32_t count, room;
};

struct keyring {
    struct keyring_settings settings;
    pthread_mutex_t lock;
    struct entries entries;
    uint64_t signature, looked_ns; /* of the folder as it was read */
    _Atomic uint64_t generation;
};

const char *role_name(enum role role)
{
    static const char *const names[] = {"none", "reader", "trainer", "operator"};
    return (unsigned)role < sizeof names / sizeof names[0] ? names[role] : "unknown";
}

int role_of_name(const char *name, enum role *role)
{
    for (enum role r = ROLE_NONE; r <= ROLE_OPERATOR; r++) {
        if (strcmp(name, role_name(r)) == 0) {
            *role = r;
            return 0;
        }
    }
    return -EINVAL;
}

/* --- the folder -----------------------------------------------------------------------------------------------------
 */

/* Public certificates: zcertstore leaves these out, too. */
static bool is_candidate(const char *name)
{
    static const char secret[] = "_secret";
    const size_t length = strlen(name);
    return name[0] != '.' && !(length >= sizeof secret - 1 && strcmp(name + length - (sizeof secret - 1), secret) == 0);
}

static int open_folder(const struct keyring *keyring, DIR **folder)
{
    *folder = opendir(keyring->settings.folder);
    if (*folder)
        return 0;
    static struct log_burst burst;
    unsigned left_out = 0;
    const int rc = -errno;
    if (log_burst_allows(&burst, &left_out, strerror(-rc)))
        log_error("cannot read the clients' certificates in '%s': %s (%u more like it)", keyring->settings.folder,
                  strerror(-rc), left_out);
    return rc;
}

/* A number that changes with any file. */
static int sign(const struct keyring *keyring, uint64_t *signature)
{
    DIR *folder;
    *signature = 1;
    if (!keyring->settings.folder[0])
        return 0;
    const int rc = open_folder(keyring, &folder);
    if (rc < 0)
        return rc;
    const struct dirent *file;
    while ((file = readdir(folder)) != NULL) {
        struct stat status;
        if (!is_candidate(file->d_name) || fstatat(dirfd(folder), file->d_name, &status, 0) < 0)
            continue;
        const uint64_t parts[] = {status.st_ino, (uint64_t)status.st_size, (uint64_t)status.st_mtim.tv_sec,
                                  (uint64_t)status.st_mtim.tv_nsec};
        uint64_t hash = UINT64_C(14695981039346656037);
        for (const char *c = file->d_name; *c; c++)
            hash = (hash ^ (unsigned char)*c) * UINT64_C(1099511628211);
        for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
            hash = (hash ^ parts[i]) * UINT64_C(1099511628211);
        *signature += hash; /* in whatever order they come */
    }
    closedir(folder);
    return 0;
}

static int add(struct entries *entries, const char *key, enum role role)
{
    if (entries->count == entries->room) {
        const uint32_t room = entries->room ? 2 * entries->room : 16;
        struct entry *items = realloc(entries->items, room * sizeof *items);
        if (!items)
            return -ENOMEM;
        entries->items = items;
        entries->room = room;
    }
    struct entry *entry = &entries->items[entries->count++];
    entry->role = role;
    memcpy(entry->key, key, CERTIFICATE_KEY_SIZE);
    return 0;
}

static int add_file(struct entries *entries, const char *folder, const char *name)
{
    struct certificate certificate;
    const char *why;
    char path[4096];
    enum role role = ROLE_READER;
    const int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    if (n < 0 || (size_t)n >= sizeof path)
        return 0;
    if (certificate_read(&certificate, path, &why) < 0) {
        log_error("'%s' is left out: %s", path, why);
        return 0;
    }
    explicit_bzero(certificate.secret_key, sizeof certificate.secret_key);
    if (certificate.role[0] && (role_of_name(certificate.role, &role) < 0 || role == ROLE_NONE)) {
        log_error("'%s' is left out: its role '%s' is none of reader, trainer, operator", path, certificate.role);
        return 0;
    }
    return add(entries, certificate.public_key, role);
}

static int compare(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    const int by_key = strcmp(x->key, y->key);
    return by_key ? by_key : (int)x->role - (int)y->role;
}

static int read_folder(struct keyring *keyring, struct entries *entries)
{
    DIR *folder;
    *entries = (struct entries){0};
    if (!keyring->settings.folder[0])
        return 0;
    int rc = open_folder(keyring, &folder);
    if (rc < 0)
        return rc;
    const struct dirent *file;
    while (rc == 0 && (file = readdir(folder)) != NULL) {
        if (is_candidate(file->d_name))
            rc = add_file(entries, keyring->settings.folder, file->d_name);
    }
    closedir(folder);
    if (rc == 0 && entries->count)
        qsort(entries->items, entries->count, sizeof entries->items[0], compare);
    return rc;
}

/* What was known stays known when the folder cannot be read now. */
static int refresh(struct keyring *keyring)
{
    struct entries entries;
    uint64_t signature;
    int rc = sign(keyring, &signature);
    if (rc < 0 || signature == keyring->signature)
        return rc;
    rc = read_folder(keyring, &entries);
    if (rc < 0) {
        free(entries.items);
        return rc;
    }
    free(keyring->entries.items);
    keyring->entries = entries;
    keyring->signature = signature;
    /* Release: who sees the number looks a key up again, under the lock. */
    atomic_fetch_add_explicit(&keyring->generation, 1, memory_order_release);
    if (keyring->settings.folder[0])
        log_info("%u clients' certificates in '%s'", entries.count, keyring->settings.folder);
    return 0;
}

/* --- the keyring ----------------------------------------------------------------------------------------------------
 */

int keyring_create(struct keyring **keyring, const struct keyring_settings *settings)
{
    struct keyring *made = *keyring = calloc(1, sizeof *made);
    if (!made)
        return -ENOMEM;
    made->settings = *settings;
    pthread_mutex_init(&made->lock, NULL);
    const int rc = refresh(made);
    if (rc < 0)
        keyring_destroy(keyring);
    return rc;
}

void keyring_destroy(struct keyring **keyring)
{
    if (!*keyring)
        return;
    free((*keyring)->entries.items);
    pthread_mutex_destroy(&(*keyring)->lock);
    free(*keyring);
    *keyring = NULL;
}

void keyring_look(struct keyring *keyring, uint64_t now_ns)
{
    pthread_mutex_lock(&keyring->lock);
    if (now_ns >= keyring->looked_ns + pause_ns) {
        (void)refresh(keyring);
        keyring->looked_ns = now_ns;
    }
    pthread_mutex_unlock(&keyring->lock);
}

static int compare_key(const void *key, const void *entry)
{
    return strcmp(key, ((const struct entry *)entry)->key);
}

enum role keyring_role(struct keyring *keyring, const char *key)
{
    if (keyring->settings.operator_key[0] && strcmp(key, keyring->settings.operator_key) == 0)
        return ROLE_OPERATOR;
    pthread_mutex_lock(&keyring->lock);
    const struct entries *entries = &keyring->entries;
    const struct entry *found =
        entries->count ? bsearch(key, entries->items, entries->count, sizeof entries->items[0], compare_key) : NULL;
    /* In two files: the least of the roles. */
    while (found && found > entries->items && strcmp(found[-1].key, key) == 0)
        found--;
    const enum role role = found ? found->role : keyring->settings.strangers;
    pthread_mutex_unlock(&keyring->lock);
    return role;
}

uint64_t keyring_generation(const struct keyring *keyring)
{
    return atomic_load_explicit(&keyring->generation, memory_order_acquire);
}

uint32_t keyring_count(struct keyring *keyring)
{
    pthread_mutex_lock(&keyring->lock);
    const uint32_t count = keyring->entries.count;
    pthread_mutex_unlock(&keyring->lock);
    return count;
}
