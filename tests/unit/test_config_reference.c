/* The page of the reference has every option, in tables that Markdown takes for tables. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_reference.h"
#include "common/config_table.h"

static char *page;

static void setup(void)
{
    size_t size;
    FILE *out = open_memstream(&page, &size);
    config_reference_print(out);
    fclose(out);
}

static void teardown(void)
{
    free(page);
}

/* The line that begins with `start`, between `from` and the next section. */
static const char *line_of(const char *from, const char *start)
{
    const char *end = strstr(from + 1, "\n## ");
    const char *line = strstr(from, start);
    ck_assert_msg(line && line[-1] == '\n' && (!end || line < end), "no line '%s'", start);
    return line;
}

START_TEST(every_option_has_a_row_in_its_sections_table)
{
    char text[160];
    for (unsigned s = 0; s < CONFIG_SECTIONS; s++) {
        const struct config_section *section = &config_sections[s];
        snprintf(text, sizeof text, "\n## `%s`\n", section->name);
        const char *at = strstr(page, text);
        ck_assert_ptr_nonnull(at);
        at++;
        for (unsigned i = 0; i < section->count; i++) {
            snprintf(text, sizeof text, "| `%s` | ", section->options[i].name);
            const char *line = line_of(at, text), *end = strchr(line, '\n');
            unsigned bars = 0;
            for (const char *c = line; c < end; c++)
                bars += *c == '|' && (c == line || c[-1] != '\\');
            ck_assert_msg(bars == 5, "%u cells: %.*s", bars - 1, (int)(end - line), line);
        }
    }
}
END_TEST

START_TEST(a_row_says_values_default_and_flag)
{
    ck_assert_ptr_nonnull(strstr(page,
                                 "| `log_level` | error\\|warning\\|info\\|debug | `info` | least important level "
                                 "that is logged (`--server-log-level`) |\n"));
    ck_assert_ptr_nonnull(strstr(page, "| `keep` | 1 to 1000 files | `3` | "));
    ck_assert_ptr_nonnull(strstr(page, "| `insecure` | true or false | `false` | "));
    ck_assert_ptr_nonnull(strstr(page, "| `weights` | path |  | "));
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("reference");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, every_option_has_a_row_in_its_sections_table);
    tcase_add_test(all, a_row_says_values_default_and_flag);
    Suite *suite = suite_create("config_reference");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
