/* Whatever stands in a file of a clients' folder. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/certificate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct certificate certificate;
    const char *why = NULL;
    const int rc = certificate_parse(&certificate, (const char *)data, size, &why);
    if (rc == 0 && (!certificate_is_key(certificate.public_key) ||
                    (certificate.secret_key[0] && !certificate_is_key(certificate.secret_key))))
        abort();
    if (rc < 0 && (!why || !why[0]))
        abort();
    return strlen(certificate.name) < sizeof certificate.name && strlen(certificate.role) < sizeof certificate.role
               ? 0
               : (abort(), 0);
}
