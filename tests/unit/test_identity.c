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

/* As openssl genpkey -algorithm ed25519 writes it, and with the public half behind it, as others do (RFC 8410, 10.3).
 */
START_TEST(keys_that_others_made_are_read)
{
    static const char pem[] = "-----BEGIN PRIVATE KEY-----\n"
                              "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n"
                              "-----END PRIVATE KEY-----\n";
    static const char with_public[] = "text before\r\n-----BEGIN PRIVATE KEY-----\r\n"
                                      "MHICAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\r\n"
                                      "oB8wHQYKKoZIhvcNAQkJFDEPDA1DdXJkbGUgQ2hhaXJzgSEAGb9ECWmEzf6FQbrB\r\n"
                                      "Z9w7lshQhqowtrbLDFw4rXAxZuE=\r\n-----END PRIVATE KEY-----\r\n";
    static const uint8_t id[SERVER_ID_SIZE] = {0x19, 0xbf, 0x44, 0x09, 0x69, 0x84, 0xcd, 0xfe, 0x85, 0x41, 0xba,
                                               0xc1, 0x67, 0xdc, 0x3b, 0x96, 0xc8, 0x50, 0x86, 0xaa, 0x30, 0xb6,
                                               0xb6, 0xcb, 0x0c, 0x5c, 0x38, 0xad, 0x70, 0x31, 0x66, 0xe1};
    struct identity *identity;
    write_file(pem, sizeof pem - 1);
    ck_assert_int_eq(identity_create(&identity, file), 0);
    ck_assert_mem_eq(identity_id(identity), id, SERVER_ID_SIZE);
    identity_destroy(&identity);
    write_file(with_public, sizeof with_public - 1);
    ck_assert_int_eq(identity_create(&identity, file), 0);
    ck_assert_mem_eq(identity_id(identity), id, SERVER_ID_SIZE);
    identity_destroy(&identity);
}
END_TEST

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
    static const char *const others[] = {
        "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n", /* no end */
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY\n-----END PRIVATE KEY-----\n",  /* cut */
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VuBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n"
        "-----END PRIVATE KEY-----\n", /* of another kind, X25519 */
    };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        write_file(others[i], strlen(others[i]));
        ck_assert_int_eq(identity_create(&identity, file), -EINVAL);
    }
    ck_assert_int_eq(identity_create(&identity, "/no/such/folder/key.pem"), -ENOENT);
    ck_assert_int_lt(identity_create(&identity, folder), 0);
}
END_TEST

START_TEST(what_is_no_file_is_refused_and_not_waited_for)
{
    struct identity *identity;
    ck_assert_int_eq(mkfifo(file, 0600), 0);
    ck_assert_int_eq(identity_create(&identity, file), -EINVAL);
    ck_assert_ptr_null(identity);
    ck_assert_int_eq(unlink(file), 0);
    ck_assert_int_eq(mkdir(file, 0700), 0);
    ck_assert_int_eq(identity_create(&identity, file), -EINVAL);
    ck_assert_int_eq(rmdir(file), 0);
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
    tcase_add_test(all, keys_that_others_made_are_read);
    tcase_add_test(all, what_is_no_key_is_refused_and_left_alone);
    tcase_add_test(all, what_is_no_file_is_refused_and_not_waited_for);
    tcase_add_test(all, only_the_signer_signs);
    tcase_add_test(all, what_another_left_behind_is_in_nobodys_way);
    return world_run(all, "identity");
}
