#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/certificate.h"

static const char public_key[] = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID",
                  secret_key[] = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs";
static struct certificate certificate;
static const char *why;

static int parse(const char *text)
{
    return certificate_parse(&certificate, text, strlen(text), &why);
}

START_TEST(what_czmq_writes_is_read)
{
    ck_assert_int_eq(parse("#   ****  Generated on 2014-01-01 12:00:00 by CZMQ  ****\n"
                           "#   ZeroMQ CURVE **Secret** Certificate\n\n"
                           "metadata\n    name = \"some box\"\n    email = \"a@b\"\n    role = \"trainer\"\n"
                           "curve\n    public-key = \"Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID\"\n"
                           "    secret-key = \"D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs\"\n"),
                     0);
    ck_assert_str_eq(certificate.public_key, public_key);
    ck_assert_str_eq(certificate.secret_key, secret_key);
    ck_assert_str_eq(certificate.name, "some box");
    ck_assert_str_eq(certificate.role, "trainer");
}
END_TEST

START_TEST(other_ways_to_write_the_same_are_read)
{
    ck_assert_int_eq(
        parse("curve\r\n\tpublic-key=Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID\r\nmetadata\n  role = 'reader'"), 0);
    ck_assert_str_eq(certificate.public_key, public_key);
    ck_assert_str_eq(certificate.secret_key, "");
    ck_assert_str_eq(certificate.role, "reader");
}
END_TEST

static const char *const bad[] = {
    "",
    "curve\n",
    "public-key = \"Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID\"\n",             /* in no section */
    "other\n    public-key = \"Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID\"\n",  /* in another one */
    "curve\n    public-key = \"Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hI\"\n",   /* 39 characters */
    "curve\n    public-key = \"Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hIDD\"\n", /* 41 */
    "curve\n    public-key = \"Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hI~\"\n",  /* no Z85 */
    "curve\n    public-key = \"Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID\"\n    secret-key = \"short\"\n",
};

START_TEST(what_is_no_certificate_says_why)
{
    ck_assert_int_eq(parse(bad[_i]), -EINVAL);
    ck_assert_ptr_nonnull(strstr(why, "key"));
}
END_TEST

START_TEST(a_long_name_is_cut_and_cleaned)
{
    char text[1024];
    snprintf(text, sizeof text, "metadata\n    name = \"\033%0200d\"\ncurve\n    public-key = \"%s\"\n", 7, public_key);
    ck_assert_int_eq(parse(text), 0);
    ck_assert_uint_eq(strlen(certificate.name), CERTIFICATE_TEXT_SIZE - 1);
    ck_assert_int_eq(certificate.name[0], '?');
}
END_TEST

START_TEST(what_is_written_is_read_again_and_the_secret_is_ones_own)
{
    char folder[] = "/tmp/expertd-certificate.XXXXXX", path[64], secret[64];
    struct stat status;
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/box", folder);
    snprintf(secret, sizeof secret, "%s/box_secret", folder);
    struct certificate written = {.name = "box", .role = "operator"};
    strcpy(written.public_key, public_key);
    strcpy(written.secret_key, secret_key);
    ck_assert_int_eq(certificate_write(&written, path), 0);
    ck_assert_int_eq(certificate_write(&written, path), -EEXIST);
    ck_assert_int_eq(stat(secret, &status), 0);
    ck_assert_uint_eq(status.st_mode & 0777, 0600);
    ck_assert_int_eq(certificate_read(&certificate, path, &why), 0);
    ck_assert_mem_eq(&certificate, &written, sizeof written);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(certificate_write(&written, path), -EEXIST); /* the secret one is still there */
    ck_assert_int_eq(access(path, F_OK), -1);
    ck_assert_int_eq(unlink(secret), 0);
    ck_assert_int_eq(certificate_read(&certificate, path, &why), -ENOENT);
    ck_assert_int_eq(certificate_write(&written, path), 0);
    ck_assert_int_eq(unlink(secret), 0);
    ck_assert_int_eq(certificate_read(&certificate, path, &why), 0);
    ck_assert_str_eq(certificate.secret_key, "");
    ck_assert_int_eq(certificate_read(&certificate, folder, &why), -EINVAL); /* a folder */
    unlink(path);
    rmdir(folder);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("certificate");
    tcase_add_test(all, what_czmq_writes_is_read);
    tcase_add_test(all, other_ways_to_write_the_same_are_read);
    tcase_add_loop_test(all, what_is_no_certificate_says_why, 0, sizeof bad / sizeof bad[0]);
    tcase_add_test(all, a_long_name_is_cut_and_cleaned);
    tcase_add_test(all, what_is_written_is_read_again_and_the_secret_is_ones_own);
    Suite *suite = suite_create("certificate");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
