/* Where a connection's keys come from. (What the server makes of them: tests/unit/test_trust.c.) */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "client/keys.h"

static char folder[256], server_path[320], own_path[320], public_path[320];
static struct certificate server, own;
static struct keys keys;

static void secret_path(char *to, size_t size, const char *path)
{
    snprintf(to, size, "%s_secret", path);
}

static void make(struct certificate *certificate, char *path, size_t size, const char *name)
{
    char secret[330];
    snprintf(path, size, "%s/%s", folder, name);
    *certificate = (struct certificate){0};
    ck_assert_int_eq(zmq_curve_keypair(certificate->public_key, certificate->secret_key), 0);
    ck_assert_int_eq(certificate_write(certificate, path), 0);
    if (path == own_path)
        return;
    secret_path(secret, sizeof secret, path); /* the other side's secret is not here */
    ck_assert_int_eq(unlink(secret), 0);
}

static void setup(void)
{
    struct certificate half;
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/keys.XXXXXX", parent ? parent : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    make(&server, server_path, sizeof server_path, "server");
    make(&own, own_path, sizeof own_path, "own");
    make(&half, public_path, sizeof public_path, "half");
    unsetenv("EXPERTD_SERVER_KEY");
    unsetenv("EXPERTD_KEY_FILE");
}

static void teardown(void)
{
    char secret[330];
    secret_path(secret, sizeof secret, own_path);
    unlink(secret);
    unlink(server_path);
    unlink(own_path);
    unlink(public_path);
    rmdir(folder);
}

START_TEST(without_keys_a_connection_is_plain)
{
    ck_assert_int_eq(keys_take(&keys, NULL, NULL), 0);
    ck_assert_str_eq(keys.server, "");
    ck_assert_int_eq(setenv("EXPERTD_SERVER_KEY", "", 1), 0);
    ck_assert_int_eq(keys_take(&keys, NULL, ""), 0);
    ck_assert_str_eq(keys.server, "");
    ck_assert_str_eq(keys.public_key, "");
    ck_assert_int_eq(keys_set(&keys, NULL), 0); /* touches no socket */
}
END_TEST

START_TEST(the_server_is_known_by_its_key_or_its_certificate)
{
    char other[CERTIFICATE_KEY_SIZE];
    ck_assert_int_eq(keys_take(&keys, server.public_key, NULL), 0);
    ck_assert_str_eq(keys.server, server.public_key);
    ck_assert_uint_eq(strlen(keys.secret_key), CERTIFICATE_KEY_SIZE - 1);
    strcpy(other, keys.public_key);
    ck_assert_int_eq(keys_take(&keys, server_path, NULL), 0);
    ck_assert_str_eq(keys.server, server.public_key);
    ck_assert_str_ne(keys.public_key, other); /* a pair that nobody knows, each time */
}
END_TEST

START_TEST(the_own_pair_is_that_of_the_file)
{
    ck_assert_int_eq(keys_take(&keys, server_path, own_path), 0);
    ck_assert_str_eq(keys.server, server.public_key);
    ck_assert_str_eq(keys.public_key, own.public_key);
    ck_assert_str_eq(keys.secret_key, own.secret_key);
}
END_TEST

START_TEST(what_is_not_given_comes_from_the_environment)
{
    ck_assert_int_eq(setenv("EXPERTD_SERVER_KEY", server_path, 1), 0);
    ck_assert_int_eq(setenv("EXPERTD_KEY_FILE", own_path, 1), 0);
    ck_assert_int_eq(keys_take(&keys, NULL, NULL), 0);
    ck_assert_str_eq(keys.server, server.public_key);
    ck_assert_str_eq(keys.public_key, own.public_key);
    ck_assert_int_eq(keys_take(&keys, own.public_key, NULL), 0); /* what is given is stronger */
    ck_assert_str_eq(keys.server, own.public_key);
}
END_TEST

START_TEST(what_is_no_key_is_refused)
{
    char nobody[320];
    snprintf(nobody, sizeof nobody, "%s/nobody", folder);
    ck_assert_int_eq(keys_take(&keys, "39 characters, and not one more of them", NULL), -EKEYREJECTED);
    ck_assert_int_eq(keys_take(&keys, nobody, NULL), -EKEYREJECTED);
    ck_assert_int_eq(keys_take(&keys, folder, NULL), -EKEYREJECTED);
    ck_assert_int_eq(keys_take(&keys, server_path, nobody), -EKEYREJECTED);
    ck_assert_int_eq(keys_take(&keys, server_path, public_path), -EKEYREJECTED); /* its secret half is not there */
    ck_assert_int_eq(setenv("EXPERTD_SERVER_KEY", nobody, 1), 0);
    ck_assert_int_eq(keys_take(&keys, NULL, NULL), -EKEYREJECTED);
    ck_assert_int_eq(setenv("EXPERTD_KEY_FILE", nobody, 1), 0);
    ck_assert_int_eq(keys_take(&keys, server_path, NULL), -EKEYREJECTED);
}
END_TEST

START_TEST(a_socket_gets_them)
{
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_DEALER);
    char key[CERTIFICATE_KEY_SIZE];
    size_t size = sizeof key;
    ck_assert_int_eq(keys_take(&keys, server_path, own_path), 0);
    ck_assert_int_eq(keys_set(&keys, socket), 0);
    ck_assert_int_eq(zmq_getsockopt(socket, ZMQ_CURVE_SERVERKEY, key, &size), 0);
    ck_assert_str_eq(key, server.public_key);
    size = sizeof key;
    ck_assert_int_eq(zmq_getsockopt(socket, ZMQ_CURVE_SECRETKEY, key, &size), 0);
    ck_assert_str_eq(key, own.secret_key);
    zmq_close(socket);
    zmq_ctx_term(context);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("keys");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, without_keys_a_connection_is_plain);
    tcase_add_test(all, the_server_is_known_by_its_key_or_its_certificate);
    tcase_add_test(all, the_own_pair_is_that_of_the_file);
    tcase_add_test(all, what_is_not_given_comes_from_the_environment);
    tcase_add_test(all, what_is_no_key_is_refused);
    tcase_add_test(all, a_socket_gets_them);
    Suite *suite = suite_create("keys");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
