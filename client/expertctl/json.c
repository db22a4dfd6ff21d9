#include "client/expertctl/json.h"

#include <inttypes.h>
#include <math.h>

/* Bytes of the UTF-8 character at text; 0 if there is none. */
static size_t utf8_length(const unsigned char *text)
{
    static const struct {
        unsigned char first, last, second_first, second_last;
        size_t length;
    } forms[] = {{0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
                 {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4},
                 {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4}};
    if (text[0] < 0x80)
        return 1;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (text[0] < forms[i].first || text[0] > forms[i].last)
            continue;
        if (text[1] < forms[i].second_first || text[1] > forms[i].second_last)
            return 0;
        for (size_t k = 2; k < forms[i].length; k++)
            if ((text[k] & 0xc0) != 0x80)
                return 0;
        return forms[i].length;
    }
    return 0;
}

static void write_string(FILE *stream, const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    fputc('"', stream);
    while (*at) {
        const size_t length = utf8_length(at);
        if (*at == '"' || *at == '\\')
            fprintf(stream, "\\%c", *at);
        else if (*at < ' ' || *at == 0x7f)
            fprintf(stream, "\\u%04x", *at);
        else if (length == 0)
            fputs("\\ufffd", stream);
        else
            fwrite(at, 1, length, stream);
        at += length ? length : 1;
    }
    fputc('"', stream);
}

static void lead(struct json *json, const char *key)
{
    if (json->comma)
        fputs(", ", json->stream);
    json->comma = true;
    if (key) {
        write_string(json->stream, key);
        fputs(": ", json->stream);
    }
}

void json_open(struct json *json, const char *key, char bracket)
{
    lead(json, key);
    fputc(bracket, json->stream);
    json->comma = false;
}

void json_close(struct json *json, char bracket)
{
    fputc(bracket, json->stream);
    json->comma = true;
}

void json_string(struct json *json, const char *key, const char *value)
{
    lead(json, key);
    write_string(json->stream, value);
}

void json_unsigned(struct json *json, const char *key, uint64_t value)
{
    lead(json, key);
    fprintf(json->stream, "%" PRIu64, value);
}

void json_number(struct json *json, const char *key, double value)
{
    lead(json, key);
    if (fabs(value) < 0x1p53 && value == trunc(value))
        fprintf(json->stream, "%.0f", value); /* a counter: every digit of it */
    else if (isfinite(value))
        fprintf(json->stream, "%.15g", value);
    else
        fputs("null", json->stream);
}

void json_bool(struct json *json, const char *key, bool value)
{
    lead(json, key);
    fputs(value ? "true" : "false", json->stream);
}
