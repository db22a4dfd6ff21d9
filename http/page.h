/* The page at "/" (http/page.html): one file, without anything from elsewhere. */
#ifndef EXPERTD_HTTP_PAGE_H
#define EXPERTD_HTTP_PAGE_H

#include <stddef.h>

extern const char page_html[];
extern const size_t page_html_bytes;

#endif
