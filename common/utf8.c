#include "common/utf8.h"

size_t utf8_decode(const unsigned char *text, uint32_t *character)
{
    static const struct {
        unsigned char mask, lead;
        uint32_t least;
    } forms[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
    for (size_t n = 0; n < sizeof forms / sizeof forms[0]; n++) {
        if ((text[0] & forms[n].mask) != forms[n].lead)
            continue;
        uint32_t value = text[0] & (unsigned char)~forms[n].mask;
        for (size_t i = 1; i <= n; i++) {
            if ((text[i] & 0xc0) != 0x80) /* the final NUL, too */
                return 0;
            value = value << 6 | (text[i] & 0x3f);
        }
        if (value < forms[n].least || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
            return 0;
        *character = value;
        return n + 1;
    }
    return 0;
}
