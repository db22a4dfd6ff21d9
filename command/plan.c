#include "command/plan.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command/machine.h"
#include "command/options.h"
#include "command/planner.h"
#include "command/supervisord_file.h"
#include "common/config.h"
#include "common/log.h"
#include "common/numeral.h"
#include "common/uid.h"

enum { EXIT_USAGE = 2, PATH_SIZE = PATH_MAX + 64, EXPERTS_A_DEVICE = 8 };

static const char *const sections[] = {"server", "frontend", "dht", "http", "metrics", "checkpoint", NULL};
static const char *flag_print, *flag_out;
static struct planner_choice choice;

static const struct config_flag flags[] = {
    {"print", NULL, "say what it would do, as a table, and write nothing", &flag_print},
    {"out", "DIR",
     "write DIR/expertd.yaml and DIR/supervisord.conf; the server's locks, checkpoints and logs will be there too",
     &flag_out},
    {"class", "WORD", "devices to use: gpu, cpu, accelerator or all (gpu if there is one, else all)", &choice.class},
    {"include", "WORDS",
     "use only these: words between commas, each a device's PLATFORM.DEVICE numbers, its PCI id, or a part of its "
     "name, vendor or platform",
     &choice.include},
    {"exclude", "WORDS", "use all but these", &choice.exclude},
    {"num-experts", "N",
     "experts, over all devices: expert.0 to expert.N-1, or drawn from --expert-pattern (8 a device)",
     &options.num_experts},
    {"expert-pattern", "PATTERN", "uids to draw from, like \"ffn.[0:32].[0:256]\" (the ends are not in it)",
     &options.expert_pattern},
    {"expert-cls", "BLOCK", "their block (ffn), or the path of an own one's shared object", &options.expert_cls},
    {"hidden-dim", "N", "their hidden size (1024)", &options.hidden_dim},
    {"max-batch-size", "ROWS", "largest task and batch (4096)", &options.max_batch_size},
    {"optimizer", "WORD", "adam, adamw, sgd or none (adam)", &options.optimizer},
    {"learning-rate", "NUMBER", "of the optimizer (0.001)", &options.learning_rate},
    {NULL, NULL, NULL, NULL},
};

static const struct config_program program = {
    .name = "expertd plan",
    .purpose = "Writes a configuration that serves every OpenCL device of this machine: it measures how fast each is "
               "and how many experts its memory holds, divides the experts by that, and writes a supervisord file "
               "too. Exit status: 0 when it is done, 1 when the machine does not allow it, 2 for a wrong flag.",
    .sections = sections,
    .flags = flags,
    .reads_no_file = true,
};

struct plan {
    struct planner_device *devices;
    unsigned count;
    uint64_t experts;
    char **uids; /* of a pattern; NULL: expert.0 to expert.N-1 */
    char folder[PATH_MAX];
    int argc;
    char **argv;
};

/* --- texts of configurations -----------------------------------------------------------------------------------------
 */

/* Their entries, with the names device0, device1, ... of those that are used. */
static void print_devices(FILE *out, const struct plan *plan, bool tune)
{
    unsigned name = 0;
    fputs("devices:\n", out);
    for (unsigned i = 0; i < plan->count; i++) {
        const struct options_device *is = &plan->devices[i].is;
        if (plan->devices[i].left_out)
            continue;
        fprintf(out, "  - {name: device%u, platform: \"%u\", device: \"%u\"%s} # %s, %s", name++, is->platform,
                is->device, tune ? "" : ", tune: off", is->class, is->name);
        fprintf(out, "%s%s\n", is->pci[0] ? ", PCI " : "", is->pci);
    }
}

static void print_expert(FILE *out, const char *uid, unsigned device)
{
    fputs("  - uid: ", out);
    config_print_text(out, uid);
    fprintf(out, "\n    device: device%u\n", device);
    options_print_settings(out, &options);
}

/* One expert for each device, for it to be measured with. */
static void print_samples(FILE *out, const struct plan *plan)
{
    unsigned name = 0;
    char uid[32];
    print_devices(out, plan, false);
    fputs("experts:\n", out);
    for (unsigned i = 0; i < plan->count; i++) {
        if (plan->devices[i].left_out)
            continue;
        snprintf(uid, sizeof uid, "expert.%u", name);
        print_expert(out, uid, name++);
    }
}

static void print_experts(FILE *out, const struct plan *plan)
{
    char uid[64];
    uint64_t first = 0;
    unsigned name = 0;
    fputs("experts:\n", out);
    for (unsigned i = 0; i < plan->count; i++) {
        const uint64_t end = first + plan->devices[i].experts;
        if (plan->devices[i].left_out)
            continue;
        snprintf(uid, sizeof uid, "expert.[%" PRIu64 ":%" PRIu64 "]", first, end);
        if (!plan->uids && first < end)
            print_expert(out, uid, name);
        for (uint64_t e = first; plan->uids && e < end; e++)
            print_expert(out, plan->uids[e], name);
        first = end;
        name++;
    }
}

/* --- measuring -------------------------------------------------------------------------------------------------------
 */

/* The text that print makes, as a file; its configuration has to be right. 0, or -errno after a message. */
static int write_checked(const char *path, void (*print)(FILE *out, const struct plan *plan), const struct plan *plan)
{
    struct config config;
    char *text = NULL, next[PATH_SIZE + 16];
    size_t length = 0;
    FILE *memory = open_memstream(&text, &length), *out = NULL;
    int result = -ENOMEM;
    if (memory) {
        print(memory, plan);
        result = fclose(memory) == 0 ? config_load_text(&config, &program, 1, plan->argv, text, "plan") : -ENOMEM;
    }
    if (result == 0) {
        config_destroy(&config);
        snprintf(next, sizeof next, "%s.%d", path, (int)getpid());
        out = fopen(next, "we");
        const bool written = out && fwrite(text, 1, length, out) == length;
        if (!out || (fclose(out) != 0) || !written || rename(next, path) != 0) {
            result = errno ? -errno : -EIO;
            log_error("cannot write %s: %s", path, strerror(-result));
            (void)unlink(next);
        }
    }
    free(text);
    return result;
}

static int measure(struct plan *plan)
{
    char folder[] = "/tmp/expertd-plan.XXXXXX", file[sizeof folder + 16], device[32];
    unsigned name = 0, left = 0;
    if (!mkdtemp(folder)) {
        log_error("cannot make a folder in /tmp: %s", strerror(errno));
        return -errno;
    }
    snprintf(file, sizeof file, "%s/plan.yaml", folder);
    int result = write_checked(file, print_samples, plan);
    for (unsigned i = 0; result == 0 && i < plan->count; i++) {
        struct planner_device *measured = &plan->devices[i];
        if (measured->left_out)
            continue;
        snprintf(device, sizeof device, "device%u", name++);
        if (machine_measure(file, device, &measured->gflops, &measured->room) < 0)
            measured->left_out = "does not compute";
        left += !measured->left_out;
    }
    (void)unlink(file);
    (void)rmdir(folder);
    if (result == 0 && left == 0) {
        log_error("none of the devices could be measured");
        result = -EIO;
    }
    return result;
}

/* --- what is planned -------------------------------------------------------------------------------------------------
 */

static int list_devices(struct plan *plan)
{
    struct options_device *list = NULL;
    int result = machine_devices(&list, &plan->count);
    plan->devices = result == 0 ? calloc(plan->count + 1, sizeof *plan->devices) : NULL;
    if (result == 0 && !plan->devices)
        result = -ENOMEM;
    for (unsigned i = 0; plan->devices && i < plan->count; i++)
        plan->devices[i].is = list[i];
    free(list);
    return result;
}

static int count_experts(struct plan *plan)
{
    unsigned used = 0;
    for (unsigned i = 0; i < plan->count; i++)
        used += !plan->devices[i].left_out;
    plan->experts = (uint64_t)used * EXPERTS_A_DEVICE;
    if (!options.num_experts)
        return 0;
    if (numeral_read_whole(options.num_experts, &plan->experts) < 0 || plan->experts == 0 || plan->experts > 16777216) {
        log_error("--num-experts: '%.100s' is not a number from 1 to 16777216%s", options.num_experts,
                  numeral_hint(options.num_experts));
        return -EINVAL;
    }
    return 0;
}

/* The same of a box at each time, others of another box. */
static int draw_uids(struct plan *plan)
{
    struct config config;
    char *text = NULL, host[HOST_NAME_MAX + 1] = "";
    size_t length = 0;
    uint64_t count = 0;
    FILE *out = options.expert_pattern ? open_memstream(&text, &length) : NULL;
    if (!out)
        return options.expert_pattern ? -ENOMEM : 0;
    (void)gethostname(host, sizeof host - 1);
    fputs("experts:\n  - uid: ", out);
    config_print_text(out, options.expert_pattern);
    fprintf(out, "\n    count: %" PRIu64 "\n    seed: %" PRIu64 "\n", plan->experts, uid_hash(host, strlen(host)));
    int result = fclose(out) == 0 ? config_load_text(&config, &program, 1, plan->argv, text, "plan") : -ENOMEM;
    if (result == 0) {
        result = config_expert_uids(&config.experts[0], &plan->uids, &count);
        config_destroy(&config);
    }
    free(text);
    return result;
}

static void print_table(const struct plan *plan)
{
    unsigned name = 0;
    printf("%-9s %-6s %-14s %-12s %9s %10s %9s %9s  %s\n", "NAME", "OPENCL", "CLASS", "PCI", "MiB", "GFLOP/s", "ROOM",
           "EXPERTS", "DEVICE");
    for (unsigned i = 0; i < plan->count; i++) {
        const struct planner_device *device = &plan->devices[i];
        char numbers[32], label[32] = "-";
        snprintf(numbers, sizeof numbers, "%u.%u", device->is.platform, device->is.device);
        if (!device->left_out)
            snprintf(label, sizeof label, "device%u", name++);
        printf("%-9s %-6s %-14s %-12s %9" PRIu64, label, numbers, device->is.class,
               device->is.pci[0] ? device->is.pci : "-", device->is.memory_mib);
        if (device->left_out)
            printf(" %30s", device->left_out);
        else
            printf(" %10.1f %9" PRIu64 " %9" PRIu64, device->gflops, device->room, device->experts);
        printf("  %s (%s)\n", device->is.name, device->is.vendor);
    }
}

/* --- what is written -------------------------------------------------------------------------------------------------
 */

static void print_place(FILE *out, const char *lead, const struct plan *plan, const char *name)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/%s", plan->folder, name);
    fputs(lead, out);
    config_print_text(out, path);
    fputs("}\n", out);
}

static void print_configuration(FILE *out, const struct plan *plan)
{
    struct config base, config;
    char *text = NULL;
    size_t length = 0;
    FILE *places = open_memstream(&text, &length);
    if (!places)
        return;
    print_place(places, "server: {run_dir: ", plan, "run");
    print_place(places, "checkpoint: {dir: ", plan, "checkpoints");
    if (fclose(places) == 0 && config_load_text(&config, &program, plan->argc, plan->argv, text, "flags") == 0) {
        if (config_load_text(&base, &program, 1, plan->argv, "", "defaults") == 0) {
            fputs("# Made by expertd plan; expertd print --config FILE shows every option.\n", out);
            config_print_changed(out, &config, &base);
            print_devices(out, plan, true);
            print_experts(out, plan);
            config_destroy(&base);
        }
        config_destroy(&config);
    }
    free(text);
}

static int write_supervisord(const struct plan *plan, const char *file)
{
    struct config config;
    char path[PATH_SIZE];
    char *const argv[] = {plan->argv[0], (char[]){"--config"}, (char *)(uintptr_t)file, NULL};
    snprintf(path, sizeof path, "%s/supervisord.conf", plan->folder);
    int result = config_load(&config, &program, 3, (char **)(uintptr_t)argv);
    if (result < 0)
        return result;
    FILE *out = fopen(path, "we");
    result = out ? supervisord_file_print(out, &config, machine_programs(), file, plan->folder, true, NULL) : -errno;
    if (out && fclose(out) != 0 && result == 0)
        result = -EIO;
    if (result < 0 && result != -EINVAL)
        log_error("cannot write %s: %s", path, strerror(-result));
    if (result < 0)
        (void)unlink(path);
    config_destroy(&config);
    return result;
}

/* Where it goes: made, and without the files of an earlier plan. */
static int prepare_folder(struct plan *plan)
{
    static const char *const names[] = {"expertd.yaml", "supervisord.conf"};
    char path[PATH_SIZE];
    if (mkdir(flag_out, 0777) != 0 && errno != EEXIST) {
        log_error("cannot make the folder %s: %s", flag_out, strerror(errno));
        return -errno;
    }
    if (!realpath(flag_out, plan->folder)) {
        log_error("%s: %s", flag_out, strerror(errno));
        return -errno;
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", plan->folder, names[i]);
        if (access(path, F_OK) == 0) {
            log_error("%s is there already", path);
            return -EEXIST;
        }
    }
    return 0;
}

static int write_files(const struct plan *plan)
{
    char file[PATH_SIZE];
    snprintf(file, sizeof file, "%s/expertd.yaml", plan->folder);
    int result = write_checked(file, print_configuration, plan);
    if (result == 0) {
        result = write_supervisord(plan, file);
        if (result < 0)
            (void)unlink(file);
    }
    if (result == 0)
        printf("\nwrote %s and supervisord.conf beside it; to start: expertd serve --config %s, or supervisord -n -c "
               "%s/supervisord.conf\n",
               file, file, plan->folder);
    return result;
}

static int check_flags(const struct plan *plan)
{
    for (int i = 1; i < plan->argc; i++)
        if (strncmp(plan->argv[i], "--config", 8) == 0) {
            log_error("expertd plan makes a configuration, and reads none: --config has no place here");
            return -EINVAL;
        }
    if (!flag_out == !flag_print) {
        log_error("what is to be done? --out DIR writes the files, --print says what would be in them");
        return -EINVAL;
    }
    return 0;
}

static int make(struct plan *plan)
{
    struct config config;
    int result = config_load(&config, &program, plan->argc, plan->argv);
    if (result < 0)
        return result;
    config_destroy(&config);
    result = check_flags(plan);
    if (result == 0 && flag_out)
        result = prepare_folder(plan);
    if (result == 0)
        result = list_devices(plan);
    if (result == 0)
        result = planner_choose(plan->devices, plan->count, &choice);
    if (result == 0)
        result = measure(plan);
    if (result == 0)
        result = count_experts(plan);
    if (result == 0)
        result = planner_divide(plan->devices, plan->count, plan->experts);
    if (result == 0)
        result = draw_uids(plan);
    if (result == 0)
        print_table(plan);
    return result == 0 && flag_out ? write_files(plan) : result;
}

int plan(int argc, char **argv)
{
    struct plan plan = {0};
    plan.argv = options_translate(argc, argv, &plan.argc);
    if (!plan.argv)
        return EXIT_FAILURE;
    const int result = make(&plan);
    free(plan.uids);
    free(plan.devices);
    free(plan.argv);
    if (result < 0)
        return result == -EINVAL ? EXIT_USAGE : EXIT_FAILURE;
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
