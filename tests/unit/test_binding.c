/* A socket whose name is removed is found again by those who come later; those who are connected notice nothing. */
#include <check.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#include "proto/binding.h"

static char folder[] = "/tmp/test-binding.XXXXXX";
static char path[64], endpoint[80];
static void *context, *server;
static struct bindings bindings;

static void set_up(void)
{
    strcpy(folder, "/tmp/test-binding.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/socket", folder);
    snprintf(endpoint, sizeof endpoint, "ipc://%s", path);
    bindings = (struct bindings){0};
    context = zmq_ctx_new();
    server = zmq_socket(context, ZMQ_REP);
    ck_assert_int_eq(bindings_bind(&bindings, server, endpoint), 0);
}

static void tear_down(void)
{
    zmq_close(server);
    zmq_ctx_term(context);
    unlink(path);
    rmdir(folder);
}

static void *connect_client(void)
{
    const int none = 0;
    void *client = zmq_socket(context, ZMQ_REQ);
    zmq_setsockopt(client, ZMQ_LINGER, &none, sizeof none);
    ck_assert_int_eq(zmq_connect(client, endpoint), 0);
    return client;
}

static void ask(void *client)
{
    char byte = 0;
    ck_assert_int_eq(zmq_send(client, "a", 1, 0), 1);
    ck_assert_int_eq(zmq_recv(server, &byte, 1, 0), 1);
    ck_assert_int_eq(zmq_send(server, "b", 1, 0), 1);
    ck_assert_int_eq(zmq_recv(client, &byte, 1, 0), 1);
    ck_assert_int_eq(byte, 'b');
}

static bool is_socket(void)
{
    struct stat found;
    return lstat(path, &found) == 0 && S_ISSOCK(found.st_mode);
}

START_TEST(a_name_that_was_removed_is_made_anew)
{
    void *old = connect_client();
    ask(old);
    bindings_keep(&bindings, server);
    ck_assert_int_eq(unlink(path), 0);
    bindings_keep(&bindings, server);
    ck_assert(is_socket());
    ask(old);
    void *late = connect_client();
    ask(late);
    zmq_close(old);
    zmq_close(late);
}
END_TEST

START_TEST(so_is_one_whose_folder_comes_back_later)
{
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(rmdir(folder), 0);
    for (int i = 0; i < 3; i++)
        bindings_keep(&bindings, server);
    ck_assert_int_eq(mkdir(folder, 0700), 0);
    bindings_keep(&bindings, server);
    ck_assert(is_socket());
    void *late = connect_client();
    ask(late);
    zmq_close(late);
}
END_TEST

static int bind_another(void)
{
    struct bindings others = {0};
    void *other = zmq_socket(context, ZMQ_REP);
    const int rc = bindings_bind(&others, other, endpoint) == 0 ? 0 : -errno;
    zmq_close(other);
    return rc;
}

START_TEST(what_somebody_listens_at_is_not_taken_over)
{
    ck_assert_int_eq(binding_check(path), -EADDRINUSE);
    ck_assert_int_eq(bind_another(), -EADDRINUSE);
    void *late = connect_client();
    ask(late);
    zmq_close(late);
    /* A socket of another kind is listened at as well; and when nobody does, what is left of it is in nobody's way. */
    ck_assert_int_eq(unlink(path), 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(listen(fd, 1), 0);
    ck_assert_int_eq(bind_another(), -EADDRINUSE);
    close(fd);
    ck_assert(is_socket());
    ck_assert_int_eq(binding_check(path), 0);
    ck_assert_int_eq(bind_another(), 0);
}
END_TEST

START_TEST(a_file_that_is_no_socket_stays)
{
    struct stat found;
    ck_assert_int_eq(unlink(path), 0);
    FILE *file = fopen(path, "w");
    ck_assert(file && fputs("precious", file) >= 0 && fclose(file) == 0);
    ck_assert_int_eq(bind_another(), -EEXIST);
    ck_assert(stat(path, &found) == 0 && found.st_size == 8);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(symlink("/dev/null", path), 0);
    ck_assert_int_eq(bind_another(), -EEXIST);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(binding_check(path), 0);
}
END_TEST

START_TEST(what_is_no_name_is_left_alone)
{
    ck_assert_int_eq(bindings_bind(&bindings, server, "tcp://127.0.0.1:*"), 0);
    ck_assert_int_eq(bindings_bind(&bindings, server, "ipc://@test-binding"), 0);
    ck_assert_int_eq(bindings_bind(&bindings, server, "ipc:///no/such/folder/socket"), -1);
    ck_assert_uint_eq(bindings.count, 1);
    ck_assert_int_eq(unlink(path), 0); /* and what somebody else has put there */
    ck_assert_int_eq(mkdir(path, 0700), 0);
    bindings_keep(&bindings, server);
    ck_assert(!is_socket());
    ck_assert_int_eq(rmdir(path), 0);
    bindings_keep(&bindings, server);
    ck_assert(is_socket());
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("binding");
    tcase_add_checked_fixture(all, set_up, tear_down);
    tcase_add_test(all, a_name_that_was_removed_is_made_anew);
    tcase_add_test(all, so_is_one_whose_folder_comes_back_later);
    tcase_add_test(all, what_somebody_listens_at_is_not_taken_over);
    tcase_add_test(all, a_file_that_is_no_socket_stays);
    tcase_add_test(all, what_is_no_name_is_left_alone);
    Suite *suite = suite_create("binding");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
