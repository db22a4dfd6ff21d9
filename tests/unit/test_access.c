#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/access.h"
#include "frontend/client_peer.h"
#include "frontend/local_client.h"

static struct server *server;

static void setup(void)
{
    server = calloc(1, sizeof *server);
    ck_assert_ptr_nonnull(server);
}

static void teardown(void)
{
    free(server);
}

static void ask_for_keys(void)
{
    memset(server->endpoint.guard.own.secret_key, 'k', sizeof server->endpoint.guard.own.secret_key - 1);
}

static bool allows(struct client_peer *peer, Expertd__Method method)
{
    const char *why = NULL;
    bool known = false;
    const bool allowed = access_allows(server, peer, method, &why, &known);
    ck_assert(known);
    ck_assert(allowed || (why && strstr(why, "operator's")));
    return allowed;
}

/* How many of the methods that there are. */
static unsigned allowed_methods(struct client_peer *peer)
{
    unsigned count = 0;
    for (unsigned i = 0; i < expertd__method__descriptor.n_values; i++)
        count += allows(peer, (Expertd__Method)expertd__method__descriptor.values[i].value);
    return count;
}

START_TEST(without_keys_everybody_may_do_everything)
{
    struct client_peer peer = {0};
    ck_assert_uint_eq(allowed_methods(&peer), expertd__method__descriptor.n_values);
}
END_TEST

START_TEST(on_this_host_the_servers_user_is_an_operator_and_its_group_trains)
{
    struct local_client client = {.owner = true};
    struct client_peer peer = {.local = &client};
    ask_for_keys();
    ck_assert_uint_eq(allowed_methods(&peer), expertd__method__descriptor.n_values);
    client.owner = false;
    ck_assert_uint_eq(allowed_methods(&peer), 6);
    ck_assert(allows(&peer, EXPERTD__METHOD__PING) && allows(&peer, EXPERTD__METHOD__LIST));
    ck_assert(allows(&peer, EXPERTD__METHOD__INFO) && allows(&peer, EXPERTD__METHOD__FORWARD));
    ck_assert(allows(&peer, EXPERTD__METHOD__BACKWARD) && allows(&peer, EXPERTD__METHOD__STATS));
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("access");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, without_keys_everybody_may_do_everything);
    tcase_add_test(all, on_this_host_the_servers_user_is_an_operator_and_its_group_trains);
    Suite *suite = suite_create("access");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
