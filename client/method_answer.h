/* The answers of PING, LIST, INFO, STATS and of changes, copied out of the decoded reply into one allocation each,
 * which is a struct expertd_pong, _list, _info or _stats with everything that it points to behind it; free() frees it.
 * Strings are made printable. Each returns NULL, or what is wrong with the reply. */
#ifndef EXPERTD_CLIENT_METHOD_ANSWER_H
#define EXPERTD_CLIENT_METHOD_ANSWER_H

#include "proto/expertd.pb-c.h"

const char *method_answer_take_pong(void **answer, const Expertd__Pong *pong);
const char *method_answer_take_list(void **answer, const Expertd__ExpertList *list);
const char *method_answer_take_info(void **answer, const Expertd__ExpertInfo *info);
const char *method_answer_take_changes(void **answer, const Expertd__Changes *changes);
const char *method_answer_take_stats(void **answer, const Expertd__Stats *stats);

#endif
