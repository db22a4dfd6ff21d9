/* The client's end of shared memory, against a server that the test is: what it sends, and whatever it is sent. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/local_link.h"

enum { MEMORY = 1 << 20, FRAMES = 17 };
static const unsigned char instance[LOCAL_INSTANCE] = "the right one";
static struct local_link link_under_test;
static char folder[] = "/tmp/expertd-link.XXXXXX", path[64];
static int listener, server, region_fd;
static unsigned char packet[LOCAL_PACKET_MAX], *region;
static zmq_msg_t frames[FRAMES];

static void setup(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/socket", folder);
    strcpy(address.sun_path, path);
    listener = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(listen(listener, 1), 0);
    ck_assert_int_eq(local_link_open(&link_under_test, path, instance, MEMORY), 0);
    server = accept(listener, NULL, NULL);
    ck_assert_int_ge(server, 0);
    region_fd = -1;
    region = NULL;
}

static void teardown(void)
{
    local_link_close(&link_under_test);
    if (region)
        munmap(region, MEMORY);
    close(region_fd);
    close(server);
    close(listener);
    unlink(path);
    rmdir(folder);
}

static void greet(const unsigned char *as)
{
    struct local_welcome welcome = {
        .magic = LOCAL_MAGIC, .version = LOCAL_VERSION, .slots = LOCAL_SLOTS, .region_max = 1 << 30};
    memcpy(welcome.instance, as, sizeof welcome.instance);
    ck_assert_int_eq(send(server, &welcome, sizeof welcome, 0), sizeof welcome);
    ck_assert_uint_eq(local_link_receive(&link_under_test, frames, FRAMES), 0);
}

static void reply(const struct local_record *record)
{
    const long bytes = local_reply_write(record, packet, sizeof packet);
    ck_assert_int_eq(send(server, packet, (size_t)bytes, 0), bytes);
}

static void get_ready(void)
{
    struct local_hello hello;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {&hello, sizeof hello};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    greet(instance);
    ck_assert_int_eq(recvmsg(server, &message, 0), sizeof hello);
    ck_assert_uint_eq(hello.region_bytes, MEMORY);
    memcpy(&region_fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof region_fd);
    region = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, region_fd, 0);
    ck_assert_ptr_ne(region, MAP_FAILED);
    ck_assert_int_eq(link_under_test.state, LOCAL_LINK_GREETING);
    reply(&(struct local_record){.slot = LOCAL_READY});
    ck_assert_uint_eq(local_link_receive(&link_under_test, frames, FRAMES), 0);
    ck_assert_int_eq(link_under_test.state, LOCAL_LINK_READY);
}

static int send_request(const char *text, uint64_t room)
{
    zmq_msg_t request[2];
    zmq_msg_init_size(&request[0], 6);
    memcpy(zmq_msg_data(&request[0]), "header", 6);
    zmq_msg_init_size(&request[1], strlen(text));
    memcpy(zmq_msg_data(&request[1]), text, strlen(text));
    const int rc = local_link_send(&link_under_test, request, 2, room);
    zmq_msg_close(&request[0]);
    zmq_msg_close(&request[1]);
    return rc;
}

static struct local_record expect_request(const char *text)
{
    struct local_record record;
    const ssize_t n = recv(server, packet, sizeof packet, 0);
    ck_assert_int_eq(local_request_parse(packet, (size_t)n, MEMORY, &record), n);
    ck_assert_mem_eq(record.header, "header", 6);
    ck_assert_uint_eq(record.spans[0].bytes, strlen(text));
    ck_assert_mem_eq(region + record.spans[0].at, text, strlen(text));
    return record;
}

START_TEST(a_request_lies_in_the_memory_and_its_answer_in_the_room)
{
    get_ready();
    ck_assert_int_eq(send_request("a tensor", 100), 0);
    const struct local_record request = expect_request("a tensor");
    memcpy(region + request.room.at + 64, "answer", 6);
    reply(&(struct local_record){.slot = request.slot,
                                 .header = (const unsigned char *)"reply",
                                 .header_bytes = 5,
                                 .tensors = 1,
                                 .spans = {{request.room.at + 64, 6}}});
    ck_assert_uint_eq(local_link_receive(&link_under_test, frames, FRAMES), 2);
    ck_assert_mem_eq(zmq_msg_data(&frames[0]), "reply", 5);
    ck_assert_mem_eq(zmq_msg_data(&frames[1]), "answer", 6);
    local_link_close(&link_under_test); /* outputs outlive it */
    ck_assert_mem_eq(zmq_msg_data(&frames[1]), "answer", 6);
    zmq_msg_close(&frames[0]);
    zmq_msg_close(&frames[1]);
}
END_TEST

START_TEST(a_larger_room_is_made_or_the_request_goes_another_way)
{
    get_ready();
    ck_assert_int_eq(send_request("one", 64), 0);
    struct local_record request = expect_request("one");
    reply(&(struct local_record){.slot = request.slot, .wanted = 5000});
    ck_assert_uint_eq(local_link_receive(&link_under_test, frames, FRAMES), 0);
    request = expect_request("one");
    ck_assert_uint_ge(request.room.bytes, 5000);
    reply(&(struct local_record){.slot = request.slot, .wanted = 2 * MEMORY});
    ck_assert_uint_eq(local_link_receive(&link_under_test, frames, FRAMES), 0);
    ck_assert_uint_eq(local_link_refused(&link_under_test, frames), 2);
    ck_assert_mem_eq(zmq_msg_data(&frames[1]), "one", 3);
    zmq_msg_close(&frames[0]);
    zmq_msg_close(&frames[1]);
    ck_assert_uint_eq(local_link_refused(&link_under_test, frames), 0);
    ck_assert_int_eq(link_under_test.state, LOCAL_LINK_READY);
    ck_assert_uint_eq(link_under_test.free_count, LOCAL_SLOTS);
}
END_TEST

START_TEST(memory_and_slots_are_not_used_twice_before_an_answer)
{
    get_ready();
    uint64_t last = 0;
    for (int i = 0; i < 100; i++) {
        ck_assert_int_eq(send_request("the same", 0), 0);
        const struct local_record request = expect_request("the same");
        ck_assert(i == 0 || request.spans[0].at > last);
        last = request.spans[0].at;
    }
    reply(&(struct local_record){.slot = 7}); /* none will come */
    ck_assert_uint_eq(local_link_receive(&link_under_test, frames, FRAMES), 0);
    ck_assert_uint_eq(link_under_test.free_count, LOCAL_SLOTS - 99);
    int rc = 0, sent = 99;
    while ((rc = send_request("the same", 0)) == 0) {
        expect_request("the same");
        sent++;
    }
    ck_assert_int_eq(rc, -EAGAIN);
    ck_assert_int_eq(sent, LOCAL_SLOTS);
}
END_TEST

START_TEST(no_memory_is_an_answer)
{
    get_ready();
    ck_assert_int_eq(send_request("x", 2 * MEMORY), -ENOMEM);
    ck_assert_int_eq(send_request("x", 64), 0);
}
END_TEST

START_TEST(another_instance_gets_nothing)
{
    char byte;
    greet((const unsigned char *)"another one here");
    ck_assert_int_eq(link_under_test.state, LOCAL_LINK_NONE);
    ck_assert(link_under_test.failed && !link_under_test.lost);
    ck_assert_int_eq(recv(server, &byte, 1, 0), 0);
}
END_TEST

static void expect_loss(const struct local_record *record)
{
    get_ready();
    ck_assert_int_eq(send_request("x", 64), 0);
    const struct local_record request = expect_request("x");
    struct local_record bad = *record;
    if (bad.slot == 0)
        bad.slot = request.slot;
    reply(&bad);
    ck_assert_uint_eq(local_link_receive(&link_under_test, frames, FRAMES), 0);
    ck_assert_int_eq(link_under_test.state, LOCAL_LINK_NONE);
    ck_assert(link_under_test.lost);
}

START_TEST(a_tensor_outside_the_room_ends_the_link)
{
    expect_loss(&(struct local_record){
        .header = (const unsigned char *)"h", .header_bytes = 1, .tensors = 1, .spans = {{MEMORY - 8, 8}}});
}
END_TEST

START_TEST(an_answer_to_nothing_ends_the_link)
{
    expect_loss(&(struct local_record){.slot = 3, .header = (const unsigned char *)"h", .header_bytes = 1});
}
END_TEST

START_TEST(garbage_and_an_end_are_losses)
{
    get_ready();
    ck_assert_int_eq(send(server, "garbage", 7, 0), 7);
    ck_assert_uint_eq(local_link_receive(&link_under_test, frames, FRAMES), 0);
    ck_assert(link_under_test.lost);
    teardown();
    strcpy(folder, "/tmp/expertd-link.XXXXXX");
    setup();
    get_ready();
    close(server);
    ck_assert_uint_eq(local_link_receive(&link_under_test, frames, FRAMES), 0);
    ck_assert(link_under_test.lost);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("local_link");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_set_timeout(all, 120);
    tcase_add_test(all, a_request_lies_in_the_memory_and_its_answer_in_the_room);
    tcase_add_test(all, a_larger_room_is_made_or_the_request_goes_another_way);
    tcase_add_test(all, memory_and_slots_are_not_used_twice_before_an_answer);
    tcase_add_test(all, no_memory_is_an_answer);
    tcase_add_test(all, another_instance_gets_nothing);
    tcase_add_test(all, a_tensor_outside_the_room_ends_the_link);
    tcase_add_test(all, an_answer_to_nothing_ends_the_link);
    tcase_add_test(all, garbage_and_an_end_are_losses);
    Suite *suite = suite_create("local_link");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
