#include "runtime/compute/tuner.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/process.h"
#include "runtime/compute/kernel_program.h"
#include "runtime/compute/provider.h"
#include "runtime/compute/trial.h"

static const uint64_t class_first_row[TUNING_CLASSES] = {1, 17, 65, 257};
static const uint64_t spin_up_ns =
    50 * NS_PER_MS;                            /* an idle card runs at a low clock, and so would the first candidate */
static const uint64_t measured_ns = NS_PER_MS; /* launches of one measurement; 3 are made */
enum { MAX_LAUNCHES = 32, MEASUREMENTS = 3, BETTER_BY_PERCENT = 2 };

static const char *tune_of(const struct device *device)
{
    return device->config->tune != NULL ? device->config->tune : "auto";
}

static bool searches(const struct device *device)
{
    const char *tune = tune_of(device);
    return strcmp(tune, "force") == 0 || (strcmp(tune, "auto") == 0 && device->info.class != DEVICE_CLASS_CPU);
}

/* --- which tile --------------------------------------------------------------------------------------------------- */

/* A weight gradient's output is k by n, and its few rows are not worth a tile of their own. */
static unsigned rule(const struct device *device, enum tuning_product product, uint64_t rows, uint64_t n, uint64_t k)
{
    unsigned tile = tile_rule(&device->info, product == TUNING_FORWARD ? rows : k, n);
    if (product == TUNING_GRADIENT && tile == TILE_FEW_ROWS)
        tile = TILE_OF_PROGRAM;
    return tile_is_built(&device->compute->tuner->kernels, tile) ? tile : TILE_OF_PROGRAM;
}

static unsigned choose(const struct device *device, enum tuning_product product, uint64_t rows, uint64_t n, uint64_t k)
{
    const struct tuner *tuner = device->compute->tuner;
    if (tuner->forced != TUNING_NONE)
        return (unsigned)tuner->forced;
    const int found = tuning_find(&tuner->tuning, product, tuning_class(rows), n, k);
    return found != TUNING_NONE && tile_is_built(&tuner->kernels, (unsigned)found) ? (unsigned)found
                                                                                   : rule(device, product, rows, n, k);
}

void tuner_grid(const struct device *device, enum tuning_product product, uint64_t rows, uint64_t n, uint64_t k,
                struct kernel_grid *grid)
{
    const unsigned tile = choose(device, product, rows, n, k);
    if (product == TUNING_FORWARD)
        tile_grid(&device->compute->tuner->kernels, tile, KERNEL_LINEAR, rows, n, grid);
    else
        tile_grid(&device->compute->tuner->kernels, tile, KERNEL_WEIGHT_GRADIENT, k, n, grid);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

int tuner_open(struct device *device)
{
    static const unsigned ruled[] = {TILE_FEW_ROWS, TILE_OF_PROGRAM, TILE_LARGE};
    const char *sources[3];
    struct tuner *tuner = device->compute->tuner = calloc(1, sizeof *tuner);
    if (tuner == NULL)
        return -ENOMEM;
    tuner->forced = TUNING_NONE;
    tuner->left_ns = (uint64_t)(device->config->tune_time * (double)NS_PER_S);
    tile_sources(device, sources);
    const uint64_t hash = kernel_program_hash(device, sources);
    tuning_key(tuner->key, hash, device->info.name, device->info.driver);
    if (device->cache_path[0] != '\0')
        snprintf(tuner->path, sizeof tuner->path, "%s/tuning-%016" PRIx64 ".txt", device->cache_path, hash);
    int result = 0;
    for (unsigned i = 0; i < 3 && result == 0; i++) {
        result = tile_build(&tuner->kernels, device, ruled[i]);
        if (result == 0 || device->lost)
            continue;
        log_warning("device %s: cannot have tiles of %s: %s", device->config->name, tile_list[ruled[i]].name,
                    result == -ENOTSUP ? "too large for it" : device->error);
        result = 0; /* the program's own does it, too */
    }
    return result;
}

void tuner_close(struct device *device)
{
    if (device->compute->tuner == NULL)
        return;
    tile_release(&device->compute->tuner->kernels);
    free(device->compute->tuner);
    device->compute->tuner = NULL;
}

/* What an earlier start found; with "force" nothing is taken from it. */
static void load_once(struct device *device)
{
    struct tuner *tuner = device->compute->tuner;
    char error[128];
    if (tuner->loaded)
        return;
    tuner->loaded = true;
    if (tuner->path[0] == '\0' || strcmp(tune_of(device), "auto") != 0)
        return;
    const int result = tuning_load(&tuner->tuning, tuner->key, tuner->path, error, sizeof error);
    if (result == 0)
        log_info("device %s: took the tiles for products of %u sizes from %s", device->config->name,
                 tuner->tuning.count, tuner->path);
    else if (result != -ENOENT)
        log_warning("device %s: %s is not used (%s); its tiles are searched for anew", device->config->name,
                    tuner->path, error);
}

/* --- the search --------------------------------------------------------------------------------------------------- */

struct search {
    struct device *device;
    uint64_t rows; /* as many as a product will ever have */
    uint64_t deadline_ns;
    struct trial trial;
    unsigned step, steps;
};

/* One product that is to get its tile. */
struct step {
    enum tuning_product product;
    unsigned class;
    cl_int rows;
    const struct linear_size *size;
};

static int launch(const struct trial *trial, const struct step *step)
{
    return trial_launch(trial, step->product == TUNING_GRADIENT, (uint64_t)step->rows, step->size);
}

static bool is_over(const struct search *search)
{
    return clock_now_ns() >= search->deadline_ns || process_stopping();
}

static int time_launches(const struct search *search, const struct step *step, unsigned count, uint64_t *each_ns)
{
    const uint64_t start_ns = clock_now_ns();
    int result = 0;
    for (unsigned i = 0; i < count && result == 0; i++)
        result = launch(&search->trial, step);
    const int finished = device_finish(search->device);
    *each_ns = (clock_now_ns() - start_ns) / count;
    return result != 0 ? result : finished;
}

/* The time of a launch with the forced tile; roughly, if it is far from the best. */
static int measure(const struct search *search, const struct step *step, uint64_t best_ns, uint64_t *ns)
{
    uint64_t each_ns;
    int result = time_launches(search, step, 1, &each_ns); /* loads it, or even compiles */
    if (result == 0)
        result = time_launches(search, step, 1, ns);
    if (result != 0 || *ns > 2 * best_ns)
        return result;
    const uint64_t fitting = measured_ns / (*ns + 1);
    const unsigned count = 1 + (unsigned)(fitting < MAX_LAUNCHES ? fitting : MAX_LAUNCHES - 1);
    for (unsigned i = 0; i < MEASUREMENTS && result == 0 && (i == 0 || !is_over(search)); i++) {
        result = time_launches(search, step, count, &each_ns);
        *ns = each_ns < *ns ? each_ns : *ns;
    }
    return result;
}

static int spin_up(const struct search *search, const struct step *step)
{
    const uint64_t end_ns = clock_now_ns() + spin_up_ns;
    uint64_t each_ns;
    int result = 0;
    while (result == 0 && clock_now_ns() < end_ns && !is_over(search))
        result = time_launches(search, step, 1, &each_ns);
    return result;
}

struct winner {
    unsigned tile;
    uint64_t ns, ruled_ns;
};

/* Measures one candidate. What the device cannot run is no error, unless the device is lost. */
static int try_tile(const struct search *search, const struct step *step, unsigned tile, bool ruled,
                    struct winner *winner)
{
    struct device *device = search->device;
    uint64_t ns = UINT64_MAX;
    int result = tile_build(&device->compute->tuner->kernels, device, tile);
    if (result == 0) {
        device->compute->tuner->forced = (int)tile;
        result = measure(search, step, winner->ns, &ns);
        device->compute->tuner->forced = TUNING_NONE;
    }
    if (result != 0) {
        log_debug("device %s: the tile %s does not run: %s", device->config->name, tile_list[tile].name, device->error);
        return device->lost ? -ENODEV : 0;
    }
    if (ruled)
        winner->ruled_ns = ns;
    if (winner->ns == UINT64_MAX || ns < winner->ns - winner->ns / 100 * BETTER_BY_PERCENT) {
        winner->tile = tile;
        winner->ns = ns;
    }
    return 0;
}

/* -ETIME: the time was over, and nothing is noted. */
static int search_tile(struct search *search, const struct step *step)
{
    struct device *device = search->device;
    const uint64_t rows = (uint64_t)step->rows, n = step->size->n, k = step->size->k;
    const unsigned ruled = rule(device, step->product, rows, n, k);
    struct winner winner = {.tile = ruled, .ns = UINT64_MAX, .ruled_ns = UINT64_MAX};
    search->step++;
    int result = search->step == 1 ? spin_up(search, step) : 0;
    if (result == 0 && !is_over(search))
        result = try_tile(search, step, ruled, true, &winner);
    for (unsigned tile = 0; tile < TILE_COUNT && result == 0; tile++) {
        if (tile == ruled || !tile_suits(&tile_list[tile], step->product == TUNING_FORWARD ? rows : k))
            continue;
        if (is_over(search))
            return -ETIME;
        result = try_tile(search, step, tile, false, &winner);
    }
    if (result != 0 || winner.ns == UINT64_MAX)
        return result;
    log_info("device %s: tuning %u of %u: %s, %" PRIu64 " rows, %" PRIu64 " to %" PRIu64
             ": tile %s, %.1f us (%s: %.1f us)",
             device->config->name, search->step, search->steps, tuning_product_name(step->product), rows, k, n,
             tile_list[winner.tile].name, (double)winner.ns / NS_PER_US, tile_list[ruled].name,
             (double)winner.ruled_ns / NS_PER_US);
    return tuning_note(&device->compute->tuner->tuning, step->product, step->class, n, k, winner.tile);
}

/* Calls visit for each product and class of up to `rows` rows; -ETIME and other errors end it. */
static int each_step(struct search *search, const struct linear_size *sizes, unsigned count,
                     int (*visit)(struct search *search, const struct step *step))
{
    int result = 0;
    for (unsigned s = 0; s < count; s++) {
        for (unsigned i = 0; i < TUNING_PRODUCTS * TUNING_CLASSES && result == 0; i++) {
            const unsigned class = i % TUNING_CLASSES;
            const uint64_t most = tuning_class_rows(class);
            const struct step step = {
                .product = i / TUNING_CLASSES,
                .class = class,
                .rows = (cl_int)(most < search->rows ? most : search->rows),
                .size = &sizes[s],
            };
            if (class_first_row[class] <= search->rows && !(step.product == TUNING_GRADIENT && sizes[s].frozen))
                result = visit(search, &step);
        }
    }
    return result;
}

static bool is_known(const struct search *search, const struct step *step)
{
    return tuning_find(&search->device->compute->tuner->tuning, step->product, step->class, step->size->n,
                       step->size->k) != TUNING_NONE;
}

static int count_unknown(struct search *search, const struct step *step)
{
    search->steps += !is_known(search, step);
    return 0;
}

static int search_unknown(struct search *search, const struct step *step)
{
    return is_known(search, step) ? 0 : search_tile(search, step);
}

static void save(const struct device *device)
{
    const struct tuner *tuner = device->compute->tuner;
    const int result = tuner->path[0] != '\0' ? tuning_save(&tuner->tuning, tuner->key, tuner->path) : 0;
    if (result != 0)
        log_warning("device %s: the tiles that were found could not be kept in %s: %s", device->config->name,
                    tuner->path, strerror(-result));
}

/* Whatever ends the search early, but the loss of the device: the rule chooses for what is left. */
static int run_search(struct search *search, const struct linear_size *sizes, unsigned count)
{
    struct device *device = search->device;
    struct tuner *tuner = device->compute->tuner;
    const uint64_t start_ns = clock_now_ns();
    search->deadline_ns = start_ns + tuner->left_ns;
    int result = trial_open(&search->trial, device, search->rows, sizes, count);
    if (result == 0)
        result = each_step(search, sizes, count, search_unknown);
    trial_close(&search->trial);
    const uint64_t took_ns = clock_now_ns() - start_ns;
    tuner->left_ns -= took_ns < tuner->left_ns ? took_ns : tuner->left_ns;
    save(device);
    if (device->lost)
        return -ENODEV;
    if (result != 0 && !process_stopping())
        log_warning("device %s: tuning ended after %u of %u (%s); a rule chooses the other tiles", device->config->name,
                    search->step > 0 ? search->step - 1 : 0, search->steps,
                    result == -ETIME    ? "tune_time is over"
                    : result == -ENOSPC ? "products of too many sizes"
                                        : device->error);
    return 0;
}

/* --- ready -------------------------------------------------------------------------------------------------------- */

/* The first launch, which PoCL compiles at, is of the smallest product. */
static int launch_once(struct device *device, enum tuning_product product, unsigned tile)
{
    static const struct linear_size smallest = {.n = 1, .k = 1};
    struct tuner *tuner = device->compute->tuner;
    struct trial trial;
    if (tuner->warm[product][tile] || device->workspace_bytes < sizeof(float) * trial_floats(device, 1, &smallest))
        return 0;
    tuner->forced = (int)tile;
    trial_borrow(&trial, device);
    int result = trial_launch(&trial, product == TUNING_GRADIENT, 1, &smallest);
    tuner->forced = TUNING_NONE;
    if (result == 0)
        result = device_finish(device);
    tuner->warm[product][tile] = result == 0;
    return result;
}

/* The tile that was found; and the rule's, any of which a row count of the class may take. */
static int warm(struct search *search, const struct step *step)
{
    static const unsigned ruled[] = {TILE_FEW_ROWS, TILE_OF_PROGRAM, TILE_LARGE};
    struct device *device = search->device;
    struct tuner *tuner = device->compute->tuner;
    const int found = tuning_find(&tuner->tuning, step->product, step->class, step->size->n, step->size->k);
    if (found != TUNING_NONE && tile_build(&tuner->kernels, device, (unsigned)found) == 0)
        return launch_once(device, step->product, (unsigned)found);
    if (device->lost)
        return -ENODEV;
    int result = 0;
    for (unsigned i = step->product == TUNING_FORWARD ? 0 : 1; i < 3 && result == 0; i++) {
        if (tile_is_built(&tuner->kernels, ruled[i]))
            result = launch_once(device, step->product, ruled[i]);
    }
    return result;
}

int tuner_prepare(struct device *device, uint64_t rows, const struct linear_size *sizes, unsigned count)
{
    struct search search = {.device = device, .rows = rows};
    int result = 0;
    if (searches(device)) {
        load_once(device);
        each_step(&search, sizes, count, count_unknown);
        if (search.steps > 0 && device->compute->tuner->left_ns > 0)
            result = run_search(&search, sizes, count);
    }
    return result == 0 ? each_step(&search, sizes, count, warm) : result;
}
