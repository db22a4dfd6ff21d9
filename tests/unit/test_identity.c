#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dht_world.h"

static char folder[] = "/tmp/expertd-identity.XXXXXX";
static char file[64];

static void setup(void)
{
    strcpy(folder, "/tmp/expertd-identity.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(file, sizeof file, "%s/key.pem", folder);
}

static void teardown(void)
{
    unlink(file);
    ck_assert_int_eq(rmdir(folder), 0);
}

START_TEST(a_key_file_is_made_and_read_again)
{
    struct identity *first, *second, *other;
    struct stat info;
    ck_assert_int_eq(identity_create(&first, file), 0);
    ck_assert_int_eq(stat(file, &info), 0);
    ck_assert_uint_eq(info.st_mode & 0777, 0600);
    ck_assert_int_eq(identity_create(&second, file), 0);
    ck_assert_mem_eq(identity_id(first), identity_id(second), SERVER_ID_SIZE);
    ck_assert_int_eq(identity_create(&other, ""), 0);
    ck_assert_mem_ne(identity_id(first), identity_id(other), SERVER_ID_SIZE);
    identity_destroy(&first);
    identity_destroy(&second);
    identity_destroy(&other);
}
END_TEST

static void write_file(const char *text, size_t size)
{
    FILE *out = fopen(file, "w");
    ck_assert_ptr_nonnull(out);
    ck_assert_uint_eq(fwrite(text, 1, size, out), size);
    fclose(out);
}

START_TEST(what_is_no_key_is_refused_and_left_alone)
{
    static char large[20000];
    struct identity *identity;
    struct stat info;
    write_file("garbage", 7);
    ck_assert_int_eq(identity_create(&identity, file), -EINVAL);
    ck_assert_ptr_null(identity);
    ck_assert_int_eq(stat(file, &info), 0);
    ck_assert_int_eq(info.st_size, 7);
    write_file(large, sizeof large);
    ck_assert_int_eq(identity_create(&identity, file), -EFBIG);
    write_file("", 0);
    ck_assert_int_lt(identity_create(&identity, file), 0);
    ck_assert_int_eq(identity_create(&identity, "/no/such/folder/key.pem"), -ENOENT);
    ck_assert_int_lt(identity_create(&identity, folder), 0);
}
END_TEST

START_TEST(only_the_signer_signs)
{
    struct identity *one, *two;
    const uint8_t payload[] = "payload";
    uint8_t signature[SIGNATURE_SIZE];
    ck_assert_int_eq(identity_create(&one, ""), 0);
    ck_assert_int_eq(identity_create(&two, ""), 0);
    ck_assert_int_eq(identity_sign(one, "a", payload, sizeof payload, signature), 0);
    ck_assert(identity_verify(identity_id(one), "a", payload, sizeof payload, signature));
    ck_assert(!identity_verify(identity_id(two), "a", payload, sizeof payload, signature));
    ck_assert(!identity_verify(identity_id(one), "b", payload, sizeof payload, signature));
    ck_assert(!identity_verify(identity_id(one), "a", payload, sizeof payload - 1, signature));
    signature[40] ^= 1;
    ck_assert(!identity_verify(identity_id(one), "a", payload, sizeof payload, signature));
    identity_destroy(&one);
    identity_destroy(&two);
}
END_TEST

/* A process that was killed while it made a key left its temporary file behind; the next one may have its number. */
START_TEST(what_another_left_behind_is_in_nobodys_way)
{
    char leftover[sizeof file + 32];
    struct identity *identity;
    snprintf(leftover, sizeof leftover, "%s.%ld.tmp", file, (long)getpid());
    const int fd = open(leftover, O_WRONLY | O_CREAT | O_EXCL, 0600);
    ck_assert_int_ge(fd, 0);
    close(fd);
    ck_assert_int_eq(identity_create(&identity, file), 0);
    identity_destroy(&identity);
    ck_assert_int_eq(unlink(leftover), 0);
    ck_assert_int_eq(unlink(file), 0);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("identity");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, a_key_file_is_made_and_read_again);
    tcase_add_test(all, what_is_no_key_is_refused_and_left_alone);
    tcase_add_test(all, only_the_signer_signs);
    tcase_add_test(all, what_another_left_behind_is_in_nobodys_way);
    return world_run(all, "identity");
}
