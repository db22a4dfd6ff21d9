/* The frontend's end of a client on the same host: what it takes, and that answers wait for one that does not read. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "frontend/local_client.h"

enum { REGION = 1 << 16 };
static const unsigned char instance[LOCAL_INSTANCE] = "instance";
static struct local_client *client, *dirty;
static struct local_record record;
static unsigned char packet[LOCAL_PACKET_MAX];
static const char *why;
static int theirs, memory;

static void setup(void)
{
    int pair[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
    theirs = pair[1];
    memory = memfd_create("test", MFD_ALLOW_SEALING);
    ck_assert_int_eq(ftruncate(memory, REGION), 0);
    ck_assert_int_eq(fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    client = local_client_new(pair[0], REGION, instance);
    ck_assert_ptr_nonnull(client);
    client->dirty_list = &dirty;
    struct local_welcome welcome;
    ck_assert_int_eq(recv(theirs, &welcome, sizeof welcome, 0), sizeof welcome);
    ck_assert_mem_eq(welcome.instance, instance, sizeof instance);
    ck_assert_uint_eq(welcome.region_max, REGION);
}

static void teardown(void)
{
    local_client_free(client);
    close(theirs);
    close(memory);
}

static int hello(uint32_t version, uint64_t bytes, int fd)
{
    const struct local_hello packet_of = {.magic = LOCAL_MAGIC, .version = version, .region_bytes = bytes};
    return local_client_hello(client, &packet_of, sizeof packet_of, fd, REGION, &why);
}

static void get_ready(void)
{
    ck_assert_int_eq(hello(LOCAL_VERSION, REGION, memory), 0);
    ck_assert_int_eq(local_client_flush(client), 0);
    ck_assert_int_gt(recv(theirs, packet, sizeof packet, 0), 0);
}

static long ask(uint32_t slot)
{
    const struct local_record request = {.slot = slot};
    const long bytes = local_request_write(&request, packet, sizeof packet);
    return local_client_request(client, packet, (size_t)bytes, &record);
}

START_TEST(only_a_right_greeting_is_taken)
{
    ck_assert_int_eq(hello(LOCAL_VERSION + 1, REGION, memory), -EBADMSG);
    ck_assert_int_eq(hello(LOCAL_VERSION, REGION, -1), -EBADMSG);
    ck_assert_int_eq(hello(LOCAL_VERSION, REGION + 1, memory), -E2BIG);
    ck_assert_ptr_nonnull(strstr(why, "frontend.local_memory"));
    ck_assert_int_eq(local_client_hello(client, "short", 5, memory, REGION, &why), -EBADMSG);
    ck_assert(!client->ready);
    ck_assert_int_eq(hello(LOCAL_VERSION, REGION, memory), 0);
    ck_assert(client->ready);
    ck_assert_ptr_eq(dirty, client);
}
END_TEST

START_TEST(a_slot_has_one_request_until_its_answer)
{
    get_ready();
    ck_assert_int_gt(ask(5), 0);
    ck_assert_int_eq(ask(5), -EBADMSG);
    ck_assert_int_gt(ask(6), 0);
    local_client_answer(client, &(struct local_record){.slot = 5});
    ck_assert_int_gt(ask(5), 0);
    ck_assert_int_eq(ask(LOCAL_SLOTS), -EBADMSG);
}
END_TEST

START_TEST(answers_of_many_are_sent_whole_and_in_order)
{
    get_ready();
    static unsigned char header[LOCAL_HEADER_MAX];
    enum { COUNT = 100 };
    for (uint32_t i = 0; i < COUNT; i++)
        local_client_answer(client, &(struct local_record){.slot = i, .header = header, .header_bytes = 1 + i * 37});
    uint32_t next = 0;
    while (next < COUNT) {
        const int rc = local_client_flush(client);
        ck_assert(rc == 0 || rc == -EAGAIN);
        ssize_t n;
        while ((n = recv(theirs, packet, sizeof packet, 0)) > 0) {
            for (size_t at = 0; at < (size_t)n;) {
                const long bytes = local_reply_parse(packet + at, (size_t)n - at, REGION, &record);
                ck_assert_int_gt(bytes, 0);
                ck_assert_uint_eq(record.slot, next);
                ck_assert_uint_eq(record.header_bytes, 1 + next++ * 37);
                at += (size_t)bytes;
            }
        }
        ck_assert_int_eq(errno, EAGAIN);
    }
    ck_assert_uint_eq(client->out_bytes, 0);
}
END_TEST

START_TEST(who_does_not_read_is_told_of_and_who_has_gone_too)
{
    get_ready();
    static unsigned char header[LOCAL_HEADER_MAX];
    int rc = 0;
    for (uint32_t i = 0; i < LOCAL_SLOTS && rc == 0; i++) {
        local_client_answer(client, &(struct local_record){.slot = i, .header = header, .header_bytes = sizeof header});
        rc = local_client_flush(client);
    }
    ck_assert_int_eq(rc, -EAGAIN);
    ck_assert_uint_gt(client->out_bytes, 0);
    shutdown(theirs, SHUT_RDWR);
    ck_assert_int_eq(local_client_flush(client), -EPIPE);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("local_client");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, only_a_right_greeting_is_taken);
    tcase_add_test(all, a_slot_has_one_request_until_its_answer);
    tcase_add_test(all, answers_of_many_are_sent_whole_and_in_order);
    tcase_add_test(all, who_does_not_read_is_told_of_and_who_has_gone_too);
    Suite *suite = suite_create("local_client");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
