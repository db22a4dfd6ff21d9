#include "client/expertctl/json.h"

#include <inttypes.h>
#include <math.h>

#include "common/utf8.h"

static void write_string(FILE *stream, const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    fputc('"', stream);
    while (*at) {
        uint32_t character;
        const size_t length = utf8_decode(at, &character);
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
