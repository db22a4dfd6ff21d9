#include "unit/support_rig.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/shm.h"
#include "unit/support_rig_runtime.h"

void rig_configure(const struct rig *rig, const char *listen, const char *options)
{
    FILE *file = fopen(rig->config, "w");
    ck_assert_ptr_nonnull(file);
    fprintf(file,
            "server: {name: %s, run_dir: %s}\n"
            "frontend:\n"
            "  listen: [%s]\n"
            "%s"
            "devices:\n"
            "  - {name: cpu0}\n"
            "  - {name: other}\n"
            "experts:\n"
            "  - {uid: \"nop.[0:2]\", block: nop, hidden_dim: 16, device: cpu0}\n"
            "  - {uid: mask.0, block: nop, hidden_dim: 16, device: cpu0}\n"
            "  - {uid: away.0, block: nop, hidden_dim: 16, device: other}\n",
            rig->name, rig->folder, listen ? listen : "\"tcp://127.0.0.1:*\"", options ? options : "");
    ck_assert_int_eq(fclose(file), 0);
}

void rig_open(struct rig *rig, const char *options)
{
    memset(rig, 0, sizeof *rig);
    strcpy(rig->folder, "/tmp/expertd-rig.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(rig->folder));
    static unsigned number;
    snprintf(rig->name, sizeof rig->name, "rig%d-%u", (int)getpid(), ++number);
    snprintf(rig->config, sizeof rig->config, "%s/config.yaml", rig->folder);
    snprintf(rig->log, sizeof rig->log, "%s/frontend.log", rig->folder);
    rig_configure(rig, NULL, options);
    rig->knobs = mmap(NULL, sizeof *rig->knobs, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(rig->knobs, MAP_FAILED);
}

/* build/tests/test_x -> build/bin/expertd-frontend, so that a test also runs by hand. */
static const char *program(void)
{
    static char path[4096];
    const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 64);
    ck_assert_int_gt(n, 0);
    path[n] = 0;
    char *end = strrchr(path, '/');
    *end = 0;
    end = strrchr(path, '/');
    strcpy(end, "/bin/expertd-frontend");
    return path;
}

static pid_t start(const struct rig *rig, const char *log)
{
    const char *path = program();
    const pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        const int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that is killed leaves no process */
        dup2(fd, STDERR_FILENO);
        execl(path, path, "--config", rig->config, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static char *read_log(const struct rig *rig)
{
    static char text[1 << 16];
    FILE *file = fopen(rig->log, "r");
    const size_t n = file ? fread(text, 1, sizeof text - 1, file) : 0;
    text[n] = 0;
    if (file)
        fclose(file);
    return text;
}

void rig_start_frontend(struct rig *rig)
{
    static const char listening[] = "listening on ";
    unlink(rig->log);
    rig->frontend = start(rig, rig->log);
    char *line;
    RIG_WAIT((line = strstr(read_log(rig), listening)) != NULL && strchr(line, '\n') != NULL);
    sscanf(line + strlen(listening), "%79s", rig->endpoint);
}

void rig_start_runtime(struct rig *rig, bool fresh)
{
    int ends[2];
    char ready;
    ck_assert_int_eq(pipe(ends), 0);
    rig->runtime = fork();
    ck_assert_int_ge(rig->runtime, 0);
    if (rig->runtime == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ends[0]);
        rig_runtime(rig, fresh, ends[1]);
    }
    close(ends[1]);
    ck_assert_msg(read(ends[0], &ready, 1) == 1, "the test's runtime did not start");
    close(ends[0]);
}

int rig_end(pid_t *process, int signal_number)
{
    int status = 0;
    if (*process <= 0)
        return -1;
    kill(*process, signal_number);
    ck_assert_int_eq(waitpid(*process, &status, 0), *process);
    *process = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int remove_segment(const char *name, void *context)
{
    (void)context;
    shm_remove(name);
    return 0;
}

void rig_close(struct rig *rig)
{
    char command[96];
    rig_end(&rig->frontend, SIGKILL);
    rig_end(&rig->runtime, SIGKILL);
    shm_each(rig->name, "", remove_segment, NULL);
    snprintf(command, sizeof command, "rm -rf '%s'", rig->folder);
    ck_assert_int_eq(system(command), 0);
    munmap(rig->knobs, sizeof *rig->knobs);
}

bool rig_logged(const struct rig *rig, const char *text)
{
    return strstr(read_log(rig), text) != NULL;
}

void rig_expect_log(const struct rig *rig, const char *text)
{
    RIG_WAIT(rig_logged(rig, text));
}

int rig_run_second(const struct rig *rig, const char *log)
{
    int status = 0;
    const pid_t pid = start(rig, log);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
